"""The digits, their split, and the batches."""

import numpy as np
from sklearn.datasets import load_digits

from jaxcnn.training.data import Split, batches, digits, shifted


def test_digits_are_split_whole_disjoint_and_stratified() -> None:
    train, test = digits()
    assert train.images.shape == (1433, 28, 28, 1)
    assert test.images.shape == (364, 28, 28, 1)
    assert train.images.dtype == np.float32
    assert train.labels.dtype == np.int32
    every = np.concatenate([train.images, test.images]).reshape(1797, -1)
    assert len(np.unique(every, axis=0)) == len(np.unique(load_digits().data, axis=0))
    classes = np.bincount(np.concatenate([train.labels, test.labels]))
    np.testing.assert_array_equal(classes, np.bincount(load_digits().target))
    np.testing.assert_array_equal(np.bincount(test.labels), np.ceil(classes / 5))


def test_digits_are_the_same_each_time() -> None:
    for one, other in zip(digits(), digits(), strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_digits_are_interpolated_and_scaled() -> None:
    data = load_digits()
    indices = np.sort(
        np.concatenate([np.flatnonzero(data.target == label)[::5] for label in range(10)])
    )
    centres = (np.arange(28) + 0.5) * 8 / 28 - 0.5
    weights = np.stack([np.interp(centres, np.arange(8), row) for row in np.eye(8)], axis=1)
    _, test = digits()
    expected = weights @ data.images[indices] @ weights.T / 16
    np.testing.assert_allclose(test.images[..., 0], expected, atol=1e-6)
    np.testing.assert_array_equal(test.labels, data.target[indices])


def test_batches_hold_every_image_once_in_an_order_of_the_generator() -> None:
    split = Split(np.arange(10.0).reshape(10, 1, 1, 1), np.arange(10))
    first, again, other = (
        list(batches(split, 4, np.random.default_rng(seed))) for seed in (0, 0, 1)
    )
    assert [len(batch.labels) for batch in first] == [4, 4, 2]
    order = np.concatenate([batch.labels for batch in first])
    np.testing.assert_array_equal(np.sort(order), split.labels)
    np.testing.assert_array_equal(np.concatenate([batch.images for batch in first]).ravel(), order)
    np.testing.assert_array_equal(np.concatenate([batch.labels for batch in again]), order)
    assert (np.concatenate([batch.labels for batch in other]) != order).any()


def test_a_shift_moves_each_image_by_a_few_pixels() -> None:
    image = np.random.default_rng(0).uniform(1, 2, (1, 6, 7, 3))
    copies = np.repeat(image, 200, axis=0)
    np.testing.assert_array_equal(shifted(copies, np.random.default_rng(1), 0), copies)
    moved = shifted(copies, np.random.default_rng(1), 1)
    framed = np.pad(image[0], ((1, 1), (1, 1), (0, 0)))
    places = [framed[top : top + 6, left : left + 7] for top in range(3) for left in range(3)]
    found = [[np.array_equal(one, place) for place in places] for one in moved]
    np.testing.assert_array_equal(np.sum(found, axis=1), 1)
    assert np.any(found, axis=0).all()
