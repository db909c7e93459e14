"""Labelled images as NumPy arrays, what can be wrong with them, and scikit-learn's digits.

Where other data come from says `sources`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from jaxcnn.training.stopping import RequestError

TESTS = ("test", "val", "valid", "validation")  # names of what is tested on, the likeliest first

Watch = Callable[[int, int], None]  # is told how many pictures were read, and of how many


class Split(NamedTuple):
    """Images, and the class of each.

    The images are `(N, height, width, channels)`: float32 from 0 to 1, or uint8 from 0 to 255. The
    labels are `(N,)`, int32.
    """

    images: np.ndarray
    labels: np.ndarray


class Data(NamedTuple):
    """What to train on, what to test on, and the names of the classes in the order of the labels.

    `skipped` counts the pictures that could not be read and are left out.
    """

    train: Split
    test: Split
    classes: tuple[str, ...]
    skipped: int = 0


class DataError(RequestError):
    """Data that can't be used: a ValueError that says in a line which file it is, and why."""

    def __init__(self, message: str) -> None:
        # Names of files, and the messages of other libraries, may have several lines.
        super().__init__(" ".join(message.split("\n")).strip())


def digits() -> Data:
    """1,797 real digits, float32, enlarged to 28 by 28 pixels: 0 for paper to 1 for ink.

    Every fifth image of each class is a test image, so the split is stratified and always the
    same.
    """
    # Here and not above: all else in this module works without scikit-learn.
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)  # each pixel from 0 to 16
    images = pixels.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    images = np.asarray(jax.image.resize(images, (len(images), 28, 28, 1), "bilinear"))
    labels = labels.astype(np.int32)
    test = every_fifth(labels)
    return Data(
        Split(images[~test], labels[~test]),
        Split(images[test], labels[test]),
        tuple(map(str, range(10))),
    )


def every_fifth(labels: np.ndarray) -> np.ndarray:
    """Which images are for testing: the first of each class and every fifth from there on.

    Args:
        labels: `(N,)`, integers.

    Returns:
        `(N,)`, bool.

    >>> every_fifth(np.array([0, 1, 1, 1, 1, 1, 1]))
    array([ True,  True, False, False, False, False,  True])
    """
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        test[np.flatnonzero(labels == label)[::5]] = True
    return test


def unwatched(done: int, total: int) -> None:
    """A `Watch` that looks away."""
