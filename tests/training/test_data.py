"""The digits and their split."""

import numpy as np
from sklearn.datasets import load_digits

from jaxcnn.training.data import DataError, digits, every_fifth
from jaxcnn.training.stopping import RequestError


def test_digits_are_split_whole_disjoint_and_stratified() -> None:
    train, test, classes, skipped = digits()
    assert classes == tuple("0123456789")
    assert skipped == 0
    assert train.images.shape == (1433, 28, 28, 1)
    assert test.images.shape == (364, 28, 28, 1)
    assert train.images.dtype == np.float32
    assert train.labels.dtype == np.int32
    every = np.concatenate([train.images, test.images]).reshape(1797, -1)
    assert len(np.unique(every, axis=0)) == len(np.unique(load_digits().data, axis=0))
    sizes = np.bincount(np.concatenate([train.labels, test.labels]))
    np.testing.assert_array_equal(sizes, np.bincount(load_digits().target))
    np.testing.assert_array_equal(np.bincount(test.labels), np.ceil(sizes / 5))


def test_digits_are_the_same_each_time() -> None:
    for one, other in zip(digits()[:2], digits()[:2], strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_digits_are_interpolated_and_scaled() -> None:
    data = load_digits()
    indices = np.sort(
        np.concatenate([np.flatnonzero(data.target == label)[::5] for label in range(10)])
    )
    centres = (np.arange(28) + 0.5) * 8 / 28 - 0.5
    weights = np.stack([np.interp(centres, np.arange(8), row) for row in np.eye(8)], axis=1)
    test = digits().test
    expected = weights @ data.images[indices] @ weights.T / 16
    np.testing.assert_allclose(test.images[..., 0], expected, atol=1e-6)
    np.testing.assert_array_equal(test.labels, data.target[indices])


def test_every_fifth_of_each_class_is_for_testing() -> None:
    labels = np.repeat([3, 0, 7], [11, 5, 1])
    expected = [n in (0, 5, 10, 11, 16) for n in range(17)]
    np.testing.assert_array_equal(every_fifth(labels), expected)
    order = np.random.default_rng(0).permutation(17)
    shuffled = every_fifth(labels[order])
    for label, many in ((3, 3), (0, 1), (7, 1)):
        chosen = np.flatnonzero(shuffled & (labels[order] == label))
        np.testing.assert_array_equal(chosen, np.flatnonzero(labels[order] == label)[::5])
        assert len(chosen) == many


def test_an_error_is_one_line_and_a_request_error() -> None:
    error = DataError("a\nb.png: it is\ntruncated\n")
    assert str(error) == "a b.png: it is truncated"
    assert isinstance(error, ValueError)
    assert isinstance(error, RequestError)  # which is what the scripts catch
