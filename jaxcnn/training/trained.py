"""What a run learnt, as files in its directory, and read back from there as a model to use.

`parameters.npz` and `state.npz` have the leaves of the two trees by names such as `conv1/kernel`;
which model they are of says `config.json`. The trees themselves follow from the model's `init`.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.models import MODELS
from jaxcnn.training.settings import FILE as CONFIG
from jaxcnn.training.step import Tree
from jaxcnn.training.stopping import RequestError

PARAMETERS, STATE = "parameters.npz", "state.npz"
DTYPES = ("float32", "bfloat16")


class Trained(NamedTuple):
    """A model with what it learnt. It takes images `(N, *image_shape)`, of floats from 0 to 1."""

    model: ModuleType  # of jaxcnn.models
    params: Tree
    state: Tree
    classes: list[str]  # the names, in the order of the logits
    image_shape: tuple[int, int, int]  # height, width, channels (1, grey, or 3, RGB)
    dtype: str = "float32"  # what it computes with; parameters are float32


def save(out: Path, params: Mapping[str, np.ndarray], state: Mapping[str, np.ndarray]) -> None:
    """Writes the leaves, from `step.flat`, to `out`: each file whole or not at all."""
    for name, leaves in ((PARAMETERS, params), (STATE, state)):
        part = out / f"{name}.part"
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **leaves)
        os.replace(part, out / name)


def load(run: Path) -> Trained:
    """The model that a run trained.

    Args:
        run: its directory, with what `settings.write` and `save` left there.

    Raises:
        RequestError: a ValueError, in a line: it is no run, a file is not there or damaged, or what
            was learnt does not fit the model.
    """
    config = read_config(run)
    name, classes, image_shape = config["model"], config["classes"], tuple(config["image_shape"])
    model, size = MODELS[name]
    init = partial(model.init, num_classes=len(classes), channels=image_shape[-1], **size)
    like = jax.eval_shape(init, jax.random.key(0))
    params, state = (
        rebuild(run / file, tree, f"a {name} of {len(classes)} classes")
        for file, tree in zip((PARAMETERS, STATE), like, strict=True)
    )
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    try:
        jax.eval_shape(model.apply, params, state, image)
    except (TypeError, ValueError) as error:
        shape = "x".join(map(str, image_shape))
        message = str(error).splitlines()[0]
        raise RequestError(
            f"{run / CONFIG}: {name} takes no images of {shape}: {message}"
        ) from None
    return Trained(model, params, state, classes, image_shape, config["dtype"])


def read_config(run: Path) -> dict[str, Any]:
    """What config.json says, with a model, classes, an image's shape and a dtype that there are.

    Raises:
        RequestError: there is none, or it says something else; in a line.
    """
    path = run / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RequestError(f"{str(run)!r} is no run: it has no {CONFIG}") from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} can't be read: {error}") from None
    if not isinstance(config, dict):
        raise RequestError(f"{path} is no JSON object")
    model, dtype = config.get("model"), config.get("dtype")
    classes, shape = config.get("classes"), config.get("image_shape")
    if not isinstance(model, str) or model not in MODELS:
        raise RequestError(f"{path}: `model` must be one of {', '.join(MODELS)}, not {model!r}")
    if dtype not in DTYPES:
        raise RequestError(f"{path}: `dtype` must be one of {', '.join(DTYPES)}, not {dtype!r}")
    if not (isinstance(classes, list) and classes and all(isinstance(c, str) for c in classes)):
        raise RequestError(f"{path}: `classes` must be a list of names")
    sizes = shape if isinstance(shape, list) and len(shape) == 3 else [0]
    if not (all(type(n) is int and n > 0 for n in sizes) and sizes[-1] in (1, 3)):
        message = f"must be a height, a width and 1 or 3 channels, not {shape!r}"
        raise RequestError(f"{path}: `image_shape` {message}")
    return config


def rebuild(path: Path, like: Tree, model: str) -> Tree:
    """The tree whose leaves, by their names, are the arrays in an .npz file.

    Args:
        path: the file.
        like: a tree with shapes and dtypes for leaves.
        model: what the tree is of, for messages.

    Raises:
        RequestError: the file is not there or damaged, or has other names, shapes or dtypes.
    """
    found = read(path)
    leaves, tree = jax.tree_util.tree_flatten_with_path(like)
    wanted = {jax.tree_util.keystr(at, simple=True, separator="/"): leaf for at, leaf in leaves}
    for name, leaf in wanted.items():
        if name not in found:
            raise RequestError(f"{path} is not of {model}: it has no {name}")
        array = found[name]
        if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            has, needs = (f"{each.dtype} of shape {each.shape}" for each in (array, leaf))
            raise RequestError(f"{path} is not of {model}: {name} is {has}, and must be {needs}")
    for name in found:
        if name not in wanted:
            raise RequestError(f"{path} is not of {model}, which has no {name}")
    return jax.tree.unflatten(tree, [jnp.asarray(found[name]) for name in wanted])


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by their names.

    Raises:
        RequestError: it is not there, or damaged; in a line.
    """
    if not path.is_file():
        raise RequestError(f"{str(path.parent)!r} holds no trained model: it has no {path.name}")
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no .npz file, or only the beginning of one")
        with np.load(path, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays}
    except Exception as error:  # of whatever kind: a file system's, a zip's, a decoder's, NumPy's
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(f"{path} is damaged: {reason}") from None
