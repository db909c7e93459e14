"""The loop: epochs of training, each with its measurements and a copy of what was learnt."""

import math
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxcnn.training.data import Split, batches
from jaxcnn.training.step import Carry, flat, make_test_step, make_train_step, new_epoch

OnStep = Callable[[int, int, float, Carry], None]


class Epoch(NamedTuple):
    """What is known after an epoch, all of it on the host."""

    metrics: dict[str, float]
    params: dict[str, Any]  # arrays, by names such as conv1/kernel
    gradients: dict[str, Any]  # those of the last step
    predictions: np.ndarray  # of the test images


def train(
    model: ModuleType,
    ops: ModuleType,
    optimizer: optax.GradientTransformation,
    carry: Carry,
    data: tuple[Split, Split],
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    shift: int = 0,
    on_step: OnStep = lambda epoch, images, began, carry: None,
) -> Iterator[Epoch]:
    """Trains and yields after every epoch.

    Args:
        carry: from `step.start`; its buffers are donated.
        data: the training and the test split.
        seed: of the order of the training images, and of their shifts.
        shift: by how many pixels, at most, each is moved before it is trained on.
        on_step: called after each step with the epoch, the images seen in it, when it began
            (`time.perf_counter`), and the carry, which may not be computed yet: to read it is to
            wait for it.

    Raises:
        FloatingPointError: when the loss of an epoch, which is then not yielded, is not finite.
    """
    train_split, test_split = data
    size = len(train_split.labels)
    step = make_train_step(model, ops, optimizer)
    test_step = make_test_step(model, ops)
    # Compiled before the first clock starts: one step for whole batches, one for the last.
    steps = {
        n: step.lower(carry, train_split.images[:n], train_split.labels[:n]).compile()
        for n in {min(batch_size, size), size % batch_size} - {0}
    }
    rng = np.random.default_rng(seed)
    for epoch in range(1, epochs + 1):
        carry, images = new_epoch(carry), 0
        began = time.perf_counter()
        for batch in batches(train_split, batch_size, rng, shift):
            carry, gradients = steps[len(batch.labels)](carry, *batch)
            images += len(batch.labels)
            on_step(epoch, images, began, carry)
        # A step is only enqueued when its call returns: the clock waits for the last.
        jax.block_until_ready(carry)
        seconds = time.perf_counter() - began
        test_loss, predictions = evaluate(test_step, carry, test_split)
        metrics = {
            "epoch": epoch,
            "train_loss": float(carry.loss) / size,
            "train_accuracy": float(carry.correct) / size,
            "test_loss": test_loss,
            "test_accuracy": float((predictions == test_split.labels).mean()),
            "images_per_second": size / seconds,
            "seconds": seconds,
        }
        if not math.isfinite(metrics["train_loss"] + test_loss):
            raise FloatingPointError(f"the loss is not finite in epoch {epoch}")
        yield Epoch(metrics, flat(carry.params), flat(gradients), predictions)


def evaluate(
    test_step: jax.stages.Wrapped, carry: Carry, split: Split, batch_size: int = 512
) -> tuple[float, np.ndarray]:
    """The mean loss over a split and the class predicted for each of its images."""
    parts = [
        test_step(
            carry.params,
            carry.state,
            split.images[start : start + batch_size],
            split.labels[start : start + batch_size],
        )
        for start in range(0, len(split.labels), batch_size)
    ]
    losses, predictions = (np.concatenate(part) for part in zip(*parts, strict=True))
    return float(losses.mean()), predictions
