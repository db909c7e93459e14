"""Labelled images as NumPy arrays: scikit-learn's handwritten digits, and shuffled batches."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np


class Split(NamedTuple):
    """Images, `(N, height, width, channels)`, float32, and their labels, `(N,)`, int32."""

    images: np.ndarray
    labels: np.ndarray


def digits() -> tuple[Split, Split]:
    """The training and the test split of 1,797 real digits, enlarged to 28 by 28 pixels.

    Every fifth image of each class is a test image, so the split is stratified and always the
    same. The pixels are 0 for paper to 1 for ink.
    """
    # Here and not above: all else in this module works without scikit-learn.
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)  # each pixel from 0 to 16
    images = pixels.reshape(-1, 8, 8, 1).astype(np.float32) / 16
    images = np.asarray(jax.image.resize(images, (len(images), 28, 28, 1), "bilinear"))
    is_test = np.zeros(len(labels), bool)
    for label in range(10):
        is_test[np.flatnonzero(labels == label)[::5]] = True
    labels = labels.astype(np.int32)
    return Split(images[~is_test], labels[~is_test]), Split(images[is_test], labels[is_test])


def batches(split: Split, size: int, rng: np.random.Generator, shift: int = 0) -> Iterator[Split]:
    """Every image once, in a new order; the last batch has whatever is left.

    With a `shift` each image is moved by up to so many pixels, to add to the few that there are.

    >>> split = Split(np.zeros((5, 28, 28, 1)), np.arange(5))
    >>> [len(batch.labels) for batch in batches(split, 2, np.random.default_rng(0))]
    [2, 2, 1]
    """
    order = rng.permutation(len(split.labels))
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        yield Split(shifted(split.images[chosen], rng, shift), split.labels[chosen])


def shifted(images: np.ndarray, rng: np.random.Generator, shift: int) -> np.ndarray:
    """Each image moved by a random `-shift` to `shift` pixels along both axes; zeros come in."""
    height, width = images.shape[1:3]
    padded = np.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
    corners = rng.integers(2 * shift + 1, size=(len(images), 2))
    moved = [
        image[top : top + height, left : left + width]
        for image, (top, left) in zip(padded, corners, strict=True)
    ]
    return np.stack(moved)
