"""LeNet-5: two convolutions, two pools, three dense layers, as the notes draw it.

    x (N, 28, 28, 1)
      conv 5x5 -> 6, SAME     (N, 28, 28, 6)    relu    max pool 2x2   (N, 14, 14, 6)
      conv 5x5 -> 16, VALID   (N, 10, 10, 16)   relu    max pool 2x2   (N, 5, 5, 16)
      flatten                 (N, 400)
      dense -> 120, relu, dense -> 84, relu, dense -> logits (N, 10)

LeCun et al., "Gradient-based learning applied to document recognition", 1998. ReLU and max pooling
stand where the original has a scaled tanh and trained subsampling.
"""

from types import ModuleType
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

import jaxcnn
from jaxcnn.models.parts import with_bias
from jaxcnn.normalization import AxisName

Params = dict[str, dict[str, Array]]


def init(
    key: Array, *, num_classes: int = 10, channels: int = 1, dtype: DTypeLike = jnp.float32
) -> tuple[Params, dict[str, Any]]:
    """Parameters (He-uniform kernels, zero biases) and an empty state.

    Args:
        key: a `jax.random` key.
        num_classes: the number of logits.
        channels: the number of channels of the images, which are 28 by 28 pixels.
        dtype: the parameters' dtype.

    Returns:
        `params`, a dict of a `kernel` and a `bias` for each layer, and `state`, empty: no layer
        of LeNet-5 keeps statistics.

    >>> import jax
    >>> params, state = init(jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    61706
    """
    shapes = {
        "conv1": (5, 5, channels, 6),
        "conv2": (5, 5, 6, 16),
        "dense1": (400, 120),
        "dense2": (120, 84),
        "logits": (84, num_classes),
    }
    return with_bias(key, shapes, dtype), {}


def apply(
    params: Params,
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
        x: images, `(N, 28, 28, channels)`.
        ops: the namespace to compute with: `jaxcnn` for hand-derived gradients,
            `jaxcnn.reference` for those of autodiff.
        train, key, axis_name: the same for every model; LeNet-5 does the same in training, draws
            nothing, and takes no moments of a batch.

    Returns:
        `logits`, `(N, num_classes)`, and `state` as it came.

    >>> import jax
    >>> params, state = init(jax.random.key(0))
    >>> logits, state = apply(params, state, jnp.zeros((2, 28, 28, 1)))
    >>> logits.shape
    (2, 10)
    """
    del train, key, axis_name
    x = ops.conv_relu_max_pool(x, **params["conv1"], pool_shape=2)
    x = ops.conv_relu_max_pool(x, **params["conv2"], padding="VALID", pool_shape=2)
    x = ops.flatten(x)
    x = ops.relu(ops.dense(x, **params["dense1"]))
    x = ops.relu(ops.dense(x, **params["dense2"]))
    return ops.dense(x, **params["logits"]), state
