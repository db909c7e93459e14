"""What a trained model takes pictures for: files in, a class's probability and a map out."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax import Array
from jax.typing import DTypeLike

import jaxcnn
from jaxcnn.training.reading import read
from jaxcnn.training.saliency import Apply, logits, saliency
from jaxcnn.training.step import Tree
from jaxcnn.training.stopping import RequestError
from jaxcnn.training.trained import Trained

BATCH = 64  # pictures at a time, at most: so many are in memory


class Prediction(NamedTuple):
    """What a model took a picture for."""

    path: Path
    image: np.ndarray  # as the model was given it, (height, width, channels), from 0 to 1
    probabilities: np.ndarray  # (classes,)
    map: np.ndarray | None  # (height, width), of `saliency`, where it was asked for


def predict(
    trained: Trained,
    paths: Sequence[Path],
    *,
    invert: bool = False,
    maps: bool = False,
    tell: Callable[[str], None] = print,
) -> Iterator[Prediction]:
    """What a model takes pictures for, one after the other, in their order.

    Args:
        trained: from `trained.load`.
        paths: of the pictures.
        invert: whether black is to be white, and white black.
        maps: whether to say where the model looked.
        tell: is given a line for each picture that can't be read, and so is left out.
    """
    size = min(BATCH, len(paths))
    for start in range(0, len(paths), size or 1):
        found: list[tuple[Path, np.ndarray]] = []
        for path in paths[start : start + size]:
            try:
                found.append((path, read(path, trained.image_shape)))
            except RequestError as error:
                tell(str(error))
        if not found:
            continue
        # All batches have one size, with zeros where pictures lack: each size is compiled anew.
        images = np.zeros((size, *trained.image_shape), np.float32)
        images[: len(found)] = [image for _, image in found]
        if invert:
            images = 1 - images
        if maps:
            likely, looked = saliency(trained, images)
        else:
            likely, looked = probabilities(trained, images), None
        for n, (path, _) in enumerate(found):
            yield Prediction(path, images[n], likely[n], None if looked is None else looked[n])


def probabilities(trained: Trained, images: np.ndarray) -> np.ndarray:
    """The probabilities of the classes, `(N, classes)`, of images `(N, *image_shape)`, 0 to 1."""
    found = _probabilities(
        trained.params, trained.state, images, apply=trained.model.apply, dtype=trained.dtype
    )
    return np.asarray(found)


@partial(jax.jit, static_argnames=("apply", "dtype"))
def _probabilities(
    params: Tree, state: Tree, images: Array, *, apply: Apply, dtype: DTypeLike
) -> Array:
    return jaxcnn.softmax(logits(params, state, images, apply=apply, dtype=dtype))
