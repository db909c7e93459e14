"""How good a classifier is: each class by itself, and the images that it is most wrong about."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FEW = 20  # classes, that a table has a line for each of
WORST = 10  # classes, that it has instead where there are more


class Row(NamedTuple):
    """One class. What can't be said without images is NaN, or None."""

    name: str
    images: int  # that are of it
    right: int  # how many of them were taken for it
    accuracy: float  # the share that they are: the recall
    precision: float  # the share that is of it, of all images that were taken for it
    taken_for: str | None  # the other class that its images were most often taken for
    times: int  # how often


def softmax(logits: np.ndarray) -> np.ndarray:
    """The probabilities of logits `(N, classes)`, in float64.

    >>> softmax(np.log([[1.0, 3.0]]))
    array([[0.25, 0.75]])
    """
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def counts(labels: np.ndarray, predictions: np.ndarray, classes: int) -> np.ndarray:
    """How many images of each class (row) were taken for each class (column): `(classes, classes)`.

    >>> counts(np.array([0, 0, 1]), np.array([0, 1, 1]), 2)
    array([[1, 1],
           [0, 1]])
    """
    found = np.zeros((classes, classes), int)
    np.add.at(found, (labels, predictions), 1)
    return found


def per_class(labels: np.ndarray, predictions: np.ndarray, classes: Sequence[str]) -> list[Row]:
    """A row for each class, in their order.

    Args:
        labels, predictions: `(N,)`, integers from 0 to the number of classes, less one.
        classes: their names.

    >>> row, _ = per_class(np.array([0, 0, 1]), np.array([0, 1, 1]), ["cat", "dog"])
    >>> row.name, row.images, row.right, row.accuracy, row.precision, row.taken_for
    ('cat', 2, 1, 0.5, 1.0, 'dog')
    """
    found = counts(labels, predictions, len(classes))
    rows = []
    for number, name in enumerate(classes):
        images, right, taken = found[number].sum(), found[number, number], found[:, number].sum()
        others = np.where(np.arange(len(classes)) == number, 0, found[number])
        most = int(others.argmax())
        rows.append(
            Row(
                name,
                int(images),
                int(right),
                float(right / images) if images else np.nan,
                float(right / taken) if taken else np.nan,
                classes[most] if others[most] else None,
                int(others[most]),
            )
        )
    return rows


def table(rows: Sequence[Row]) -> str:
    """A table of the classes; of more than 20, those ten of which most images went wrong.

    >>> print(table(per_class(np.array([0, 0, 1]), np.array([0, 1, 1]), ["cat", "dog"])))
    class  images  right  accuracy  precision  most often taken for
    cat         2      1     50.0%     100.0%  dog (1)
    dog         1      1    100.0%      50.0%
    """
    # Here and not above: this module is for those who compute, too.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = list(rows)
    if len(rows) > FEW:
        seen = [row for row in rows if row.images]
        shown = sorted(seen, key=lambda row: row.accuracy)[:WORST]
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    grid.add_column("class", overflow="ellipsis", no_wrap=True, max_width=30)
    for heading in ("images", "right", "accuracy", "precision"):
        grid.add_column(heading, justify="right", no_wrap=True)
    grid.add_column("most often taken for", overflow="ellipsis", no_wrap=True, max_width=40)
    for row in shown:
        shares = [share(row.accuracy), share(row.precision)]
        taken_for = "" if row.taken_for is None else f"{row.taken_for} ({row.times})"
        # As `Text`: in a string, brackets would be markup.
        cells = (row.name, str(row.images), str(row.right), *shares, taken_for)
        grid.add_row(*map(Text, cells))
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(grid)
    lines = [line.rstrip() for line in captured.get().splitlines()]
    if len(rows) > FEW:
        lines.append(f"the {len(shown)} worst of {len(rows)} classes")
    return "\n".join(lines)


def share(value: float) -> str:
    """A share in per cent; a dash for NaN."""
    return "-" if np.isnan(value) else f"{value:.1%}"


def worst(
    labels: np.ndarray, predictions: np.ndarray, probabilities: np.ndarray, count: int = 25
) -> np.ndarray:
    """The images that were classified wrong and have the highest loss, the worst first.

    The loss is `-log p`, of the probability of the right class: the lower that is, the worse.

    Args:
        labels, predictions: `(N,)`.
        probabilities: `(N, classes)`.
        count: how many, at most.

    Returns:
        Their places in `labels`, at most `count`, and fewer where there are fewer mistakes.

    >>> probabilities = np.array([[0.4, 0.6], [0.3, 0.7], [0.1, 0.9]])
    >>> worst(np.array([0, 0, 1]), probabilities.argmax(1), probabilities)
    array([1, 0])
    """
    wrong = np.flatnonzero(labels != predictions)
    order = np.argsort(probabilities[wrong, labels[wrong]], kind="stable")
    return wrong[order[:count]]
