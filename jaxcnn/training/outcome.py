"""What a run leaves in its directory: a line of metrics an epoch, what was learnt, and pictures."""

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jaxcnn.training import evaluation, pictures, trained
from jaxcnn.training.data import Data
from jaxcnn.training.loop import Epoch
from jaxcnn.training.settings import Settings, replace
from jaxcnn.training.stopping import RequestError

Metrics = dict[str, float]


@contextlib.contextmanager
def record(out: Path, first: bool) -> Iterator[Callable[[Metrics], None]]:
    """Gives a function that adds a line to metrics.jsonl; to be used on the first machine."""
    if not first:
        yield lambda metrics: None
        return
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as file:
        yield lambda metrics: print(json.dumps(metrics), file=file, flush=True)


def rewind(out: Path, epochs: int, first: bool) -> list[Metrics]:
    """The metrics of the first epochs; what comes after them goes from the file.

    A run that goes on from a checkpoint does again what came after that, and a line that was being
    written when it was killed is no line.
    """
    path = out / "metrics.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = text.splitlines()[:epochs]
    try:
        history = [json.loads(line) for line in lines]
    except ValueError as error:
        raise RequestError(f"{path} is damaged: {error}") from None
    if first:
        replace(path, "".join(f"{line}\n" for line in lines))
    return history


def write(out: Path, history: list[Metrics], epoch: Epoch, data: Data) -> None:
    """What was learnt up to the last epoch, and the pictures."""
    trained.save(out, epoch.params, epoch.state)
    (images, labels), predictions = data.test, epoch.logits.argmax(-1)
    probabilities = evaluation.softmax(epoch.logits)
    name = next(name for name, value in epoch.params.items() if value.ndim == 4)
    figures = {
        "curves": pictures.curves(history),
        "confusion": pictures.confusion(labels, predictions, data.classes),
        "mistakes": pictures.mistakes(images, labels, predictions, probabilities, data.classes),
        "filters": pictures.filters(epoch.params[name], epoch.gradients[name], name),
    }
    for title, figure in figures.items():
        figure.savefig(out / f"{title}.png", dpi=150, bbox_inches="tight")


def summary(out: Path, settings: Settings, history: list[Metrics]) -> dict[str, Any]:
    """A finished run in a few numbers."""
    last = history[-1]
    seconds = sum(metrics["seconds"] for metrics in history)
    trained_on = sum(metrics["seconds"] * metrics["images_per_second"] for metrics in history)
    return {
        "model": settings.model,
        "gradients": settings.gradients,
        "epochs": settings.epochs,
        "train_loss": last["train_loss"],
        "test_accuracy": last["test_accuracy"],
        "images_per_second": round(trained_on / seconds, 1),
        "out": str(out),
    }


def table(epoch: Epoch, data: Data) -> str:
    """How each class fared."""
    rows = evaluation.per_class(data.test.labels, epoch.logits.argmax(-1), data.classes)
    return evaluation.table(rows)
