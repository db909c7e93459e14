"""The loop: epochs of training, each with its measurements and a copy of what was learnt."""

import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn.training.batches import batches
from jaxcnn.training.data import Split
from jaxcnn.training.devices import divide, fetch, share
from jaxcnn.training.step import (
    NEVER,
    Carry,
    Recipe,
    compile_step,
    flat,
    make_test_step,
    make_train_step,
    new_epoch,
)
from jaxcnn.training.stopping import NotFiniteError


class Seen(NamedTuple):
    """Where an epoch is."""

    step: int  # how many there have been
    epoch: int
    images: int  # trained on in this epoch
    here: int  # and since this process began with it
    began: float  # when that was (`time.perf_counter`)


class Epoch(NamedTuple):
    """What is known after an epoch, all of it on the host."""

    metrics: dict[str, float]
    params: dict[str, Any]  # arrays, by names such as conv1/kernel
    state: dict[str, Any]  # likewise
    gradients: dict[str, Any]  # those of the last step
    losses: np.ndarray  # of the test images
    logits: np.ndarray  # of the test images, (N, classes)


OnStep = Callable[[Seen, Carry], None]


def nothing(seen: Seen, carry: Carry) -> None:
    """An `OnStep`."""


def train(
    model: ModuleType,
    ops: ModuleType,
    recipe: Recipe,
    carry: Carry,
    data: tuple[Split, Split],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    watch: OnStep = nothing,
    keep: OnStep = nothing,
) -> Iterator[Epoch]:
    """Trains, from the step that the carry is at, and yields after every epoch.

    Args:
        carry: from `step.start` or a checkpoint, on all devices; its buffers are donated.
        data: the training and the test split.
        seed: of the order of the training images.
        watch: called after each step. The carry may not be computed yet: to read it is to wait.
        keep: called after each step, too, and may save the carry. After an epoch's last step it
            is called when the epoch has been yielded, and so was written down.

    Raises:
        NotFiniteError: when a loss or a gradient is not.
    """
    train_split, test_split = data
    size = len(train_split.labels)
    steps = math.ceil(size / batch_size)  # an epoch's
    sizes = [min(batch_size, size - step * batch_size) for step in range(steps)]
    different = sorted(set(sizes))
    done = int(carry.step)
    mesh = recipe.mesh
    test_step = make_test_step(model, ops, recipe.dtype)
    step = make_train_step(model, ops, recipe)

    def compiled_for(n: int) -> jax.stages.Compiled:
        first = train_split.images[share(n, mesh)], train_split.labels[share(n, mesh)]
        return compile_step(step.lower(carry, *divide(first, n, mesh)))

    # Compiled before the first clock starts: one step for whole batches, one for the last.
    with ThreadPoolExecutor() as pool:
        compiled = dict(zip(different, pool.map(compiled_for, different), strict=True))
    reader = batches(
        train_split,
        batch_size,
        seed=seed,
        epochs=epochs,
        start=done,
        share=partial(share, mesh=mesh),
    )
    names = ["the loss", *(f"the gradient of {name}" for name in flat(carry.params))]
    for epoch in range(done // steps + 1, epochs + 1):
        begin = done % steps
        if begin == 0:
            carry = new_epoch(carry)
        seen = Seen(done, epoch, sum(sizes[:begin]), 0, time.perf_counter())
        broken = None
        for n in sizes[begin:]:
            batch = divide(next(reader), n, mesh)
            check(broken, names)  # of the step before: to read this one's is to wait for it
            carry, gradients, broken = compiled[n](carry, *batch)
            done += 1
            seen = seen._replace(step=done, images=seen.images + n, here=seen.here + n)
            watch(seen, carry)
            if done % steps:
                keep(seen, carry)
        # A step is only enqueued when its call returns: the clock waits for the last.
        check(broken, names)
        jax.block_until_ready(carry)
        seconds = time.perf_counter() - seen.began
        losses, logits = evaluate(test_step, carry, test_split, recipe)
        metrics = {
            "epoch": epoch,
            "train_loss": float(carry.loss) / size,
            "train_accuracy": float(carry.correct) / size,
            "test_loss": float(losses.mean()),
            "test_accuracy": float((logits.argmax(-1) == test_split.labels).mean()),
            "images_per_second": seen.here / seconds,
            "seconds": seconds,
        }
        if not math.isfinite(metrics["test_loss"]):
            raise NotFiniteError(f"the loss of the test images is not finite after epoch {epoch}")
        yield Epoch(metrics, flat(carry.params), flat(carry.state), flat(gradients), losses, logits)
        keep(seen, carry)


def check(broken: jax.Array | None, names: list[str]) -> None:
    """Raises `NotFiniteError` with the first step in which something was not, and what.

    It names the first two in the order of the model: the loss, and a parameter.
    """
    if broken is None:
        return
    steps = np.asarray(broken)
    first = int(steps.min())
    if first < NEVER:
        found = [name for name, step in zip(names, steps, strict=True) if step == first]
        raise NotFiniteError(f"{' and '.join(found[:2])}: not finite in step {first}")


def evaluate(
    test_step: jax.stages.Wrapped,
    carry: Carry,
    split: Split,
    recipe: Recipe,
    batch_size: int = 512,
) -> tuple[np.ndarray, np.ndarray]:
    """The loss of each image of a split, and its logits."""
    parts = []
    for start in range(0, len(split.labels), batch_size):
        stop = min(start + batch_size, len(split.labels))
        rows = share(stop - start, recipe.mesh)
        here = slice(start + rows.start, start + rows.stop)
        batch = divide((split.images[here], split.labels[here]), stop - start, recipe.mesh)
        parts.append(test_step(carry.params, carry.state, *batch))
    losses, logits = (
        np.concatenate([fetch(part) for part in each]) for each in zip(*parts, strict=True)
    )
    return losses, logits
