"""Pictures that are moved and mirrored, against all the places where they can be."""

from functools import partial

import jax
import numpy as np
import pytest

from jaxcnn.training.augment import random_crop, random_flip

IMAGE = np.random.default_rng(0).uniform(1, 2, (6, 7, 3)).astype(np.float32)
COPIES = np.repeat(IMAGE[None], 400, axis=0)
FRAMED = np.pad(IMAGE, ((1, 1), (1, 1), (0, 0)))
PLACES = [FRAMED[top : top + 6, left : left + 7] for top in range(3) for left in range(3)]


@pytest.mark.parametrize(
    ("change", "possible"),
    [
        (partial(random_crop, padding=1), PLACES),
        (partial(random_crop, padding=0), [IMAGE]),
        (random_flip, [IMAGE, IMAGE[:, ::-1]]),
    ],
)
def test_each_change_is_as_frequent_as_another(change, possible) -> None:
    found = np.asarray(jax.jit(change)(jax.random.key(0), COPIES))
    counts = [sum(np.array_equal(one, each) for one in found) for each in possible]
    assert sum(counts) == 400
    mean = 400 / len(possible)
    assert np.all(np.abs(np.subtract(counts, mean)) <= 4 * np.sqrt(mean))  # standard deviations


@pytest.mark.parametrize("change", [partial(random_crop, padding=2), random_flip])
def test_devices_change_a_batch_as_one_does(change) -> None:
    images = np.random.default_rng(1).integers(0, 256, (12, 5, 5, 1), np.uint8)
    key = jax.random.key(3)
    whole = change(key, images)
    assert whole.dtype == np.uint8
    assert (np.asarray(whole) != images).any()
    divided = jax.vmap(partial(change, key, axis_name="batch"), axis_name="batch")
    parts = divided(images.reshape(4, 3, 5, 5, 1))
    np.testing.assert_array_equal(np.asarray(parts).reshape(images.shape), whole)
    np.testing.assert_array_equal(change(key, images), whole)
    assert (np.asarray(change(jax.random.key(4), images)) != whole).any()
