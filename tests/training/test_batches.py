"""Which images come in which batch."""

import numpy as np
import pytest

from jaxcnn.training.batches import batches
from jaxcnn.training.data import Split

SPLIT = Split(np.arange(10.0).reshape(10, 1, 1, 1), np.arange(10))


def orders(seed: int, epochs: int = 1) -> np.ndarray:
    read = batches(SPLIT, 4, seed=seed, epochs=epochs)
    return np.concatenate([batch.labels for batch in read]).reshape(epochs, 10)


def test_every_image_comes_once_an_epoch_in_an_order_of_the_seed() -> None:
    read = list(batches(SPLIT, 4, seed=0, epochs=2))
    assert [len(batch.labels) for batch in read] == [4, 4, 2] * 2
    for batch in read:
        np.testing.assert_array_equal(batch.images.ravel(), batch.labels)
    one, two = orders(0, 2)
    for order in (one, two, *orders(1)):
        np.testing.assert_array_equal(np.sort(order), SPLIT.labels)
    assert (one != two).any()
    assert (one != orders(1)[0]).any()
    assert (two != orders(1)[0]).any()  # the seeds are not the epochs
    np.testing.assert_array_equal(orders(0)[0], one)


@pytest.mark.parametrize("start", range(7))
def test_the_rest_is_the_same_from_any_batch_on(start: int) -> None:
    whole, rest = (list(batches(SPLIT, 4, seed=5, epochs=2, start=n)) for n in (0, start))
    for batch, same in zip(rest, whole[start:], strict=True):
        np.testing.assert_array_equal(batch.labels, same.labels)


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_share_the_same_batches(hosts: int) -> None:
    def share(host: int, size: int) -> slice:
        return slice(host * size // hosts, (host + 1) * size // hosts)

    def read(host: int) -> list[np.ndarray]:
        found = batches(SPLIT, 4, seed=5, epochs=1, share=lambda size: share(host, size))
        return [batch.labels for batch in found]

    whole = [batch.labels for batch in batches(SPLIT, 4, seed=5, epochs=1)]
    for batch, *parts in zip(whole, *map(read, range(hosts)), strict=True):
        np.testing.assert_array_equal(np.concatenate(parts), batch)
