"""The batches of a training run: shuffled anew each epoch, and read ahead of the step by Grain.

Which images a batch holds follows from the seed and the batch's number alone. So a run goes on
where it was interrupted, on another number of hosts too: each reads its rows of the same batches.

Grain is given batches to read, and not images to shuffle and to batch: it takes 35 us for each
image, which is a quarter of what a step of LeNet-5 takes for it.
"""

import functools
import math
from collections.abc import Callable, Iterator

import grain
import numpy as np

from jaxcnn.training.data import Split

AHEAD = 8  # batches, at most, wait to be trained on


def batches(
    split: Split,
    size: int,
    *,
    seed: int,
    epochs: int,
    start: int = 0,
    share: Callable[[int], slice] = slice,
) -> Iterator[Split]:
    """Every image once an epoch, in a new order; an epoch's last batch has whatever is left.

    Args:
        split: images and labels, N of each.
        size: of a batch.
        seed: of the orders.
        epochs: how many times every image comes.
        start: the number of the first batch, counted from the first epoch on.
        share: gives, for the size of a batch, the rows that this host reads of it.

    >>> split = Split(np.zeros((5, 28, 28, 1)), np.arange(5))
    >>> [len(batch.labels) for batch in batches(split, 2, seed=0, epochs=1)]
    [2, 2, 1]
    """
    images = len(split.labels)
    steps = math.ceil(images / size)

    def read(number: int) -> Split:
        epoch, step = divmod(number, steps)
        rows = order(images, seed, epoch)[step * size : (step + 1) * size]
        rows = rows[share(len(rows))]
        return Split(split.images[rows], split.labels[rows])

    # One thread: to read is to copy rows, and the others are for the step.
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=AHEAD)
    dataset = grain.MapDataset.range(start, steps * epochs).map(read)
    return iter(dataset.to_iter_dataset(options))


@functools.lru_cache(maxsize=2)
def order(images: int, seed: int, epoch: int) -> np.ndarray:
    """In which order an epoch, counted from 0, has the images."""
    return np.random.default_rng((seed, epoch)).permutation(images)
