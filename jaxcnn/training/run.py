"""A whole run: checks the gradients, trains, and leaves metrics, parameters and pictures."""

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import jaxcnn
from jaxcnn.models import MODELS
from jaxcnn.training import loop, pictures, progress, step
from jaxcnn.training.data import Split, digits

SHIFT = 2  # pixels
OPS = {"manual": jaxcnn, "autodiff": jaxcnn.reference}


def run(
    out: Path,
    *,
    model: str,
    gradients: str,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    momentum: float,
    seed: int,
) -> dict[str, Any]:
    """Trains a model on the digits by SGD and returns the summary of the run.

    `out`, a directory, gets a line of `metrics.jsonl` after every epoch and the rest at the end,
    also when the end is an exception: Ctrl-C, or a loss that is not finite.
    """
    module, size = MODELS[model]
    data = digits()
    steps = math.ceil(len(data[0].labels) / batch_size)
    optimizer = optax.sgd(schedule(learning_rate, steps, epochs), momentum=momentum or None)
    init = partial(module.init, channels=data[0].images.shape[-1], **size)
    carry = step.start(init, optimizer, seed)
    first = next(loop.batches(data[0], batch_size, np.random.default_rng(seed), SHIFT))
    print(
        "manual against autodiff, largest relative error of the first batch's gradients:",
        flush=True,
    )
    errors = step.gradient_errors(module, carry, *first)
    for name, error in errors.items():
        print(f"  {name:{max(map(len, errors))}}  {error:.1e}", flush=True)

    done: list[loop.Epoch] = []
    try:
        with progress.bar() as bar, (out / "metrics.jsonl").open("a") as record:
            on_step = progress.follow(bar, epochs, len(data[0].labels))
            for epoch in loop.train(
                module,
                OPS[gradients],
                optimizer,
                carry,
                data,
                epochs=epochs,
                batch_size=batch_size,
                seed=seed,
                shift=SHIFT,
                on_step=on_step,
            ):
                done.append(epoch)
                print(json.dumps(epoch.metrics), file=record, flush=True)
                bar.console.print(progress.epoch_line(epoch.metrics, epochs), soft_wrap=True)
    finally:
        if done:
            write(out, done, data[1])
    last = done[-1].metrics
    seconds = sum(epoch.metrics["seconds"] for epoch in done)
    return {
        "model": model,
        "gradients": gradients,
        "epochs": epochs,
        "train_loss": last["train_loss"],
        "test_accuracy": last["test_accuracy"],
        "images_per_second": round(epochs * len(data[0].labels) / seconds, 1),
        "out": str(out),
    }


def schedule(peak: float, steps: int, epochs: int) -> optax.Schedule:
    """A learning rate that rises for five epochs of `steps` and falls to zero by the last's end.

    It rises slowly for the comparison's sake. Two gradients differ by rounding, sooner or later
    that decides a ReLU or a maximum near a tie, and at a high rate the two runs then drift apart.
    It falls to zero because a high rate at the end leaves the accuracy to chance.
    """
    return lambda step: peak * jnp.minimum((step + 1) / (5 * steps), 1 - step / (steps * epochs))


def write(out: Path, done: list[loop.Epoch], test: Split) -> None:
    """The parameters of the last epoch, and the pictures."""
    last = done[-1]
    np.savez(out / "parameters.npz", **last.params)
    name = next(name for name, value in last.params.items() if value.ndim == 4)
    figures = {
        "curves": pictures.curves([epoch.metrics for epoch in done]),
        "confusion": pictures.confusion(test.labels, last.predictions),
        "filters": pictures.filters(last.params[name], last.gradients[name], name),
    }
    for title, figure in figures.items():
        figure.savefig(out / f"{title}.png", dpi=150, bbox_inches="tight")
