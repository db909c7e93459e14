"""Event files for TensorBoard, by tensorboardX."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def board(out: Path | None) -> Iterator[Callable[[dict[str, float], int], None]]:
    """Gives a function that adds an epoch's metrics, of so many steps; without `out`, it does not.

    The files are in `out/tensorboard`.
    """
    if out is None:
        yield lambda metrics, steps: None
        return
    from tensorboardX import SummaryWriter  # only where asked for: it is an extra

    with SummaryWriter(str(out / "tensorboard")) as writer:

        def add(metrics: dict[str, float], steps: int) -> None:
            for name, value in metrics.items():
                if name != "epoch":
                    split, _, rest = name.partition("_")
                    tag = f"{rest}/{split}" if split in ("train", "test") else name
                    writer.add_scalar(tag, value, int(metrics["epoch"]) * steps)
            writer.flush()

        yield add
