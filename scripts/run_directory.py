"""A run's directory: who may write in it, before JAX is there to write anything."""

import contextlib
import fcntl
import itertools
import os
import time
from pathlib import Path

RUN = ("config.json", "metrics.jsonl", "checkpoints")  # a directory with any of these has a run


def claim(path: str, new: bool) -> bool:
    """Keeps others on this machine away from a run's directory, until we end, however that is.

    Returns whether it was made.
    """
    made = new and not os.path.isdir(path)
    if new:
        os.makedirs(path, exist_ok=True)
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OSError(f"{path!r}: a run is going on there") from None
    except OSError:
        pass  # a file system without locks
    if new and any(os.path.exists(os.path.join(path, name)) for name in RUN):
        raise OSError(f"{path!r} already holds a run")
    if not os.access(path, os.W_OK):
        raise OSError(f"{path!r} can't be written to")
    return made


def fresh() -> str:
    """A new directory, named by the time and, where that one is taken, a number."""
    name = time.strftime("runs/%Y-%m-%d-%H%M%S")
    for path in itertools.chain([name], (f"{name}-{n}" for n in itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            os.makedirs(path)
            break
    return path


def release(out: Path, made: bool) -> None:
    """Nothing is left of a run that neither finished an epoch nor was saved."""
    config, metrics, checkpoints = (out / name for name in RUN)
    if (metrics.exists() and metrics.stat().st_size) or checkpoints.exists():
        return
    metrics.unlink(missing_ok=True)
    config.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        if made:
            out.rmdir()
            if out.parent == Path("runs"):
                out.parent.rmdir()
