"""What a run says while it trains: a bar on a terminal, and one line an epoch anywhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jaxcnn.training.loop import OnStep, Seen
from jaxcnn.training.step import Carry


class Output(Console):
    """A console that leaves it to the script what happens when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def bar(shown: bool = True) -> Progress:
    """A progress bar, to be entered; it draws nothing unless standard output is a terminal.

    Without `shown` its console prints nothing, either.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=Output(quiet=not shown),
        expand=True,
    )
    progress.disable = not sys.stdout.isatty() or progress.console.is_dumb_terminal
    return progress


@contextlib.contextmanager
def reading(shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Gives a function of how many pictures were read, and of how many, that moves a bar."""
    with bar(shown) as progress:
        task = progress.add_task("reading", total=None, numbers="", visible=False)

        def watch(done: int, total: int) -> None:
            numbers = f"{done:,} of {total:,} pictures"
            progress.update(task, completed=done, total=total, numbers=numbers, visible=True)

        yield watch
        progress.remove_task(task)


def follow(progress: Progress, epochs: int, size: int) -> OnStep:
    """The `watch` of `loop.train` that moves the bar, for epochs of `size` images."""
    task = progress.add_task(f"epoch 1/{epochs}", total=epochs * size, numbers="")
    drawn = 0.0

    def watch(seen: Seen, carry: Carry) -> None:
        nonlocal drawn
        # To read the loss is to wait for the device: ten times a second, and only for a reader.
        if progress.disable or (time.perf_counter() - drawn < 0.1 and seen.images < size):
            return
        loss, accuracy = float(carry.loss) / seen.images, float(carry.correct) / seen.images
        drawn = time.perf_counter()
        rate = seen.here / (drawn - seen.began)
        progress.update(
            task,
            description=f"epoch {seen.epoch}/{epochs}",
            completed=(seen.epoch - 1) * size + seen.images,
            numbers=f"loss {loss:.4f}  accuracy {accuracy:6.1%}  {rate:,.0f} images/s",
        )

    return watch


def epoch_line(metrics: dict[str, float], epochs: int) -> str:
    """An epoch in a line."""
    return (
        f"epoch {metrics['epoch']:{len(str(epochs))}}/{epochs}"
        f"  train loss {metrics['train_loss']:.4f} accuracy {metrics['train_accuracy']:6.1%}"
        f"  test loss {metrics['test_loss']:.4f} accuracy {metrics['test_accuracy']:6.1%}"
        f"  {metrics['images_per_second']:,.0f} images/s"
    )
