"""Checkpoints, by Orbax: all that a run needs to go on as if it had not been interrupted.

A checkpoint is the carry of a step, number and random key included; which images come next follows
from the number (`batches`). Orbax writes it in the background, and a checkpoint appears under its
name when it is complete: one that was cut off is never seen. What happens to files later, such as a
disk that fails, a digest of the contents tells.
"""

import functools
import hashlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxcnn.training.step import Carry, flat
from jaxcnn.training.stopping import NotFiniteError, RequestError

KEPT = 3  # the latest


@functools.cache
def manager(directory: Path) -> Any:
    """Orbax's of the checkpoints in a directory, which is made if it is not there."""
    import orbax.checkpoint as ocp  # takes a second: where there is something to save or to read

    logging.getLogger("absl").setLevel(logging.CRITICAL)  # what matters is raised, too
    options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, cleanup_tmp_directories=True)
    return ocp.CheckpointManager(
        directory.absolute(), options=options, item_names=("carry", "about")
    )


def finish(directory: Path) -> None:
    """Waits until all is written."""
    if manager.cache_info().currsize:
        manager(directory).close()
        manager.cache_clear()


def save(directory: Path, carry: Carry) -> Path:
    """Copies the carry and begins to write it, once the one before is written. Returns where.

    Raises:
        NotFiniteError: a number in it is not, which nothing could go on from.
        RequestError: there is a checkpoint of this step or a later one.
    """
    import orbax.checkpoint as ocp

    leaves, step = named(carry), int(carry.step)
    for name, leaf in leaves.items():
        if not np.isfinite(leaf.astype(np.float32)).all():
            raise NotFiniteError(f"{name}: not finite after step {step}")
    saved = manager(directory).save(
        step,
        args=ocp.args.Composite(
            carry=ocp.args.StandardSave(leaves), about=ocp.args.JsonSave({"digest": digest(leaves)})
        ),
    )
    if not saved:
        raise RequestError(f"{directory} has checkpoints of step {step} or later, of another run")
    return directory / str(step)


def last(directory: Path) -> Path | None:
    """Where the last checkpoint is; None without any."""
    steps = [int(path.name) for path in directory.glob("*") if path.name.isdigit()]
    return directory / str(max(steps)) if steps else None


def latest(directory: Path, like: Carry, tell: Callable[[str], None] = print) -> Carry | None:
    """The carry of the last checkpoint that is whole, its arrays on the host; None without any.

    Args:
        like: a carry of the same shapes and dtypes.
        tell: is given a line for each damaged checkpoint, which is then removed.

    Raises:
        RequestError: there are checkpoints, and all are damaged.
    """
    if last(directory) is None:
        return None
    damaged = []
    for step in sorted(manager(directory).all_steps(), reverse=True):
        try:
            carry = read(directory, step, like)
        except Exception as error:  # of whatever kind: Orbax's, a file system's, a decoder's
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            tell(f"{directory / str(step)} is damaged, and left out: {reason[:200]}")
            damaged.append(step)
            continue
        for each in damaged:
            manager(directory).delete(each)
        return carry
    raise RequestError(f"no checkpoint in {directory} can be read")


def read(directory: Path, step: int, like: Carry) -> Carry:
    """The carry of a step.

    Raises:
        ValueError: it is not what was saved, or not of this model. (Orbax raises many others.)
    """
    import orbax.checkpoint as ocp

    wanted = named(like)
    restored = manager(directory).restore(
        step,
        args=ocp.args.Composite(
            carry=ocp.args.StandardRestore(wanted), about=ocp.args.JsonRestore()
        ),
    )
    found = restored.carry
    if digest(found) != restored.about["digest"]:
        raise ValueError("its contents are not what was saved")
    shapes, there = (
        {name: (leaf.shape, leaf.dtype) for name, leaf in leaves.items()}
        for leaves in (wanted, found)
    )
    if shapes != there:
        raise ValueError("it is of another model")
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in wanted])


def named(carry: Carry) -> dict[str, np.ndarray]:
    """Copies of the leaves, by names that are no paths of files."""
    return {name.replace("/", "."): leaf for name, leaf in flat(carry).items()}


def digest(leaves: Mapping[str, np.ndarray]) -> str:
    """Of names, dtypes, shapes and contents."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(leaves):
        leaf = np.ascontiguousarray(leaves[name])
        found.update(f"{name} {leaf.dtype} {leaf.shape} ".encode())
        found.update(leaf.tobytes())
    return found.hexdigest()
