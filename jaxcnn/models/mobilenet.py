"""MobileNet: convolutions that are separable in depth, a ninth of the multiplications.

    x (N, H, W, channels)
      stem       conv 3x3
      13 pairs   depthwise conv 3x3 (each channel on its own), then pointwise conv 1x1
      mean over all positions, and dense -> logits

After each convolution come batch norm and ReLU. Where a pair doubles the channels its depthwise
convolution halves the image, but for the first pair.

Howard et al., "MobileNets: efficient convolutional neural networks for mobile vision applications",
2017.
"""

from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

import jaxcnn
from jaxcnn.models.parts import conv, norm, norm_relu_conv, with_bias, with_norm
from jaxcnn.normalization import AxisName

# The channels that each pair gives, in multiples of the stem's.
WIDTHS = (2, 4, 4, 8, 8, 16, 16, 16, 16, 16, 16, 32, 32)


def init(
    key: Array,
    *,
    num_classes: int = 10,
    channels: int = 3,
    width: int = 32,
    dtype: DTypeLike = jnp.float32,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters (He-uniform kernels, scales of one, zero biases) and the state of the batch norms.

    Args:
        key: a `jax.random` key.
        num_classes: the number of logits.
        channels: the number of channels of the images.
        width: the channels of the stem; 32 is the paper's width multiplier of 1.
        dtype: the parameters' dtype.

    Returns:
        `params`, with `stem`, `pairs` (a list) and `logits`; `state`, likewise, with the running
        `mean` and `var` of each batch norm.

    >>> params, state = init(jax.random.key(0), num_classes=1000)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    4231976
    """
    pairs, before = [], width
    for multiple in WIDTHS:
        after = multiple * width
        pairs.append({"depthwise": (3, 3, 1, before), "pointwise": (1, 1, before, after)})
        before = after
    norm_key, logits_key = jax.random.split(key)
    shapes = {"stem": (3, 3, channels, width), "pairs": pairs}
    params, state = with_norm(norm_key, shapes, dtype)
    return params | with_bias(logits_key, {"logits": (before, num_classes)}, dtype), state


def apply(
    params: dict[str, Any],
    state: dict[str, Any],
    x: Array,
    *,
    ops: ModuleType = jaxcnn,
    train: bool = False,
    key: Array | None = None,
    axis_name: AxisName = None,
    stem_strides: int = 1,
) -> tuple[Array, dict[str, Any]]:
    """The logits of a batch of images.

    Args:
        params, state: from `init`.
        x: images, `(N, H, W, channels)`.
        ops: the namespace to compute with: `jaxcnn` for hand-derived gradients,
            `jaxcnn.reference` for those of autodiff.
        train: whether to normalise by the moments of the batch, and to move the state to them.
        key: the same for every model; MobileNet draws nothing.
        axis_name: of the mapped axes (of `jax.shard_map`) over which the batch is divided: the
            moments are those of the whole batch.
        stem_strides: 1 for small images, of 32x32; 2 for the paper's, of 224x224.

    Returns:
        `logits`, `(N, num_classes)`, and the state.

    >>> params, state = init(jax.random.key(0), width=4)
    >>> logits, state = apply(params, state, jnp.zeros((2, 16, 16, 3)), train=True)
    >>> logits.shape
    (2, 10)
    """
    del key
    settings: dict[str, Any] = {"ops": ops, "train": train, "axis_name": axis_name}
    z = conv(params["stem"]["kernel"], x, ops=ops, strides=stem_strides)
    last = params["stem"], state["stem"]  # of the norm that comes behind z
    moved = []
    for place, (pair, norms) in enumerate(zip(params["pairs"], state["pairs"], strict=True)):
        before, after = pair["pointwise"]["kernel"].shape[-2:]
        strides = 2 if after > before and place > 0 else 1
        kernel = pair["depthwise"]["kernel"]
        z, now = norm_relu_conv(*last, z, kernel, strides=strides, groups=before, **settings)
        moved.append(now)
        last = pair["depthwise"], norms["depthwise"]
        z, now = norm_relu_conv(*last, z, pair["pointwise"]["kernel"], **settings)
        moved.append(now)
        last = pair["pointwise"], norms["pointwise"]
    x, now = norm(*last, z, **settings)
    x = ops.relu(x)
    stem, *others = [*moved, now]
    pairs = [
        {"depthwise": depthwise, "pointwise": pointwise}
        for depthwise, pointwise in zip(others[::2], others[1::2], strict=True)
    ]
    x = ops.flatten(ops.avg_pool(x, x.shape[1:3]))
    return ops.dense(x, **params["logits"]), {"stem": stem, "pairs": pairs}
