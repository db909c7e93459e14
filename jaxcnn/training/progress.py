"""What a run says while it trains: a bar on a terminal, and one line an epoch anywhere."""

import sys
import time

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jaxcnn.training.loop import OnStep
from jaxcnn.training.step import Carry


def bar() -> Progress:
    """A progress bar, to be entered; it draws nothing unless standard output is a terminal."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[numbers]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
        expand=True,
    )
    progress.disable = not sys.stdout.isatty() or progress.console.is_dumb_terminal
    return progress


def follow(progress: Progress, epochs: int, size: int) -> OnStep:
    """The `on_step` of `loop.train` that moves the bar, for epochs of `size` images."""
    task = progress.add_task(f"epoch 1/{epochs}", total=epochs * size, numbers="")
    drawn = 0.0

    def on_step(epoch: int, images: int, began: float, carry: Carry) -> None:
        nonlocal drawn
        # To read the loss is to wait for the device: ten times a second, and only for a reader.
        if progress.disable or (time.perf_counter() - drawn < 0.1 and images < size):
            return
        loss, accuracy = float(carry.loss) / images, float(carry.correct) / images
        drawn = time.perf_counter()
        rate = images / (drawn - began)
        progress.update(
            task,
            description=f"epoch {epoch}/{epochs}",
            completed=(epoch - 1) * size + images,
            numbers=f"loss {loss:.4f}  accuracy {accuracy:6.1%}  {rate:,.0f} images/s",
        )

    return on_step


def epoch_line(metrics: dict[str, float], epochs: int) -> str:
    """An epoch in a line."""
    return (
        f"epoch {metrics['epoch']:{len(str(epochs))}}/{epochs}"
        f"  train loss {metrics['train_loss']:.4f} accuracy {metrics['train_accuracy']:6.1%}"
        f"  test loss {metrics['test_loss']:.4f} accuracy {metrics['test_accuracy']:6.1%}"
        f"  {metrics['images_per_second']:,.0f} images/s"
    )
