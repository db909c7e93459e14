"""VGG: stages of 3x3 convolutions, each stage ending in a pool that halves the image.

    x (N, H, W, channels)
      for each stage:  conv 3x3, relu, as often as it has widths,  then max pool 2x2
      mean over all positions         (N, width of the last)
      dense, relu, dropout            (N, units)
      dense -> logits                 (N, num_classes)

The default has six convolutions, for images of 32x32; `VGG16` has thirteen, for 224x224. The mean
stands where the original flattens, so that images of any size do, and one hidden dense layer
where it has two.

Simonyan and Zisserman, "Very deep convolutional networks for large-scale image recognition", 2014.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

import jaxcnn
from jaxcnn.models.parts import with_bias
from jaxcnn.normalization import AxisName

SIX = ((64, 64), (128, 128), (256, 256))
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
DROPOUT = 0.5


def init(
    key: Array,
    *,
    num_classes: int = 10,
    channels: int = 3,
    stages: Sequence[Sequence[int]] = SIX,
    units: int = 512,
    dtype: DTypeLike = jnp.float32,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters (He-uniform kernels, zero biases) and an empty state.

    Args:
        key: a `jax.random` key.
        num_classes: the number of logits.
        channels: the number of channels of the images.
        stages: for each stage the widths of its convolutions.
        units: the width of the hidden dense layer.
        dtype: the parameters' dtype.

    Returns:
        `params`: under `stages` a list a stage, with a `kernel` and a `bias` for each convolution,
        and the same for `dense` and `logits`. `state`, empty: VGG keeps no statistics.

    >>> import jax
    >>> params, state = init(jax.random.key(0))
    >>> params["stages"][2][1]["kernel"].shape
    (3, 3, 256, 256)
    """
    shapes: list[list[tuple[int, ...]]] = []
    width = channels
    for widths in stages:
        shapes.append([])
        for wider in widths:
            shapes[-1].append((3, 3, width, wider))
            width = wider
    tree = {"stages": shapes, "dense": (width, units), "logits": (units, num_classes)}
    return with_bias(key, tree, dtype), {}


def apply(
    params: dict[str, Any],
    state: dict[str, Any],
    x: Array,
    *,
    ops: ModuleType = jaxcnn,
    train: bool = False,
    key: Array | None = None,
    axis_name: AxisName = None,
) -> tuple[Array, dict[str, Any]]:
    """The logits of a batch of images.

    Args:
        params, state: from `init`.
        x: images, `(N, H, W, channels)`, at least 2 to the number of stages high and wide.
        ops: the namespace to compute with: `jaxcnn` for hand-derived gradients,
            `jaxcnn.reference` for those of autodiff.
        train: whether half of the hidden units drop out.
        key: draws which, in training.
        axis_name: of the mapped axes (of `jax.shard_map`) over which the batch is divided: each
            device then drops what one device would have dropped of the whole batch.

    Returns:
        `logits`, `(N, num_classes)`, and `state` as it came.

    >>> import jax
    >>> params, state = init(jax.random.key(0), stages=((4, 4), (8,)), units=8)
    >>> logits, state = apply(params, state, jnp.zeros((2, 8, 8, 3)))
    >>> logits.shape
    (2, 10)
    """
    for *layers, last in params["stages"]:
        for layer in layers:
            x = ops.conv_relu(x, **layer)
        x = ops.conv_relu_max_pool(x, **last, pool_shape=2)
    x = ops.flatten(ops.avg_pool(x, x.shape[1:3]))
    x = ops.relu(ops.dense(x, **params["dense"]))
    if train:
        x = ops.dropout(key, x, DROPOUT, axis_name=axis_name)
    return ops.dense(x, **params["logits"]), state
