"""Event files for TensorBoard, by tensorboardX."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path


@contextlib.contextmanager
def board(out: Path | None, step: int = 0) -> Iterator[Callable[[dict[str, float], int], None]]:
    """Gives a function that adds an epoch's metrics, of so many steps; without `out`, it does not.

    The files are in `out/tensorboard`. What they say of later steps than `step` no longer counts.
    """
    if out is None:
        yield lambda metrics, steps: None
        return
    from tensorboardX import SummaryWriter  # only where asked for: it is an extra

    with SummaryWriter(str(out / "tensorboard"), purge_step=step + 1) as writer:

        def add(metrics: dict[str, float], steps: int) -> None:
            for name, value in metrics.items():
                if name != "epoch":
                    split, _, rest = name.partition("_")
                    tag = f"{rest}/{split}" if split in ("train", "test") else name
                    writer.add_scalar(tag, value, int(metrics["epoch"]) * steps)
            writer.flush()

        yield add
