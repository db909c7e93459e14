"""ResNet: blocks of convolutions, each added to what went in.

    x (N, H, W, channels)
      stem       conv 3x3, for images of 32x32 ("cifar"); or, for 224x224 ("imagenet"),
                 conv 7x7 by strides 2, and max pool 3x3 by 2
      4 stages   of blocks; all but the first stage halve the image and double the channels
      mean over all positions, and dense -> logits

    block        relu(x + F(x)), F of two 3x3 convolutions, or at a depth of 50 and more a
                 bottleneck: 1x1 to a fourth of the channels, 3x3, and 1x1 back. Where F changes the
                 shape, x goes through a 1x1 convolution, the shortcut.

After each convolution comes batch norm, and after that ReLU, but for the block's last, which is
added first. Where a block halves the image, its (first) 3x3 convolution does.

He et al., "Deep residual learning for image recognition", 2015.
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

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
STEMS = {"cifar": 3, "imagenet": 7}  # taps along an axis


def init(
    key: Array,
    *,
    depth: int = 18,
    stem: str = "cifar",
    num_classes: int = 10,
    channels: int = 3,
    width: int = 64,
    dtype: DTypeLike = jnp.float32,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters (He-uniform kernels, scales of one, zero biases) and the state of the batch norms.

    Args:
        key: a `jax.random` key.
        depth: 18, 34, 50, 101 or 152 layers.
        stem: "cifar" or "imagenet". `apply` sees by its kernel which of them it is.
        num_classes: the number of logits.
        channels: the number of channels of the images.
        width: the channels of the first stage, in the 3x3 convolutions.
        dtype: the parameters' dtype.

    Returns:
        `params`, with `stem`, `stages` (lists of blocks) and `logits`; `state`, likewise, with the
        running `mean` and `var` of each batch norm.

    Raises:
        ValueError: no such depth, or no such stem.

    >>> params, state = init(jax.random.key(0), depth=50, stem="imagenet", num_classes=1000)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    25557032
    """
    if depth not in BLOCKS:
        raise ValueError(f"resnet: `depth` must be one of {list(BLOCKS)}, got {depth!r}")
    if stem not in STEMS:
        raise ValueError(f"resnet: `stem` must be 'cifar' or 'imagenet', got {stem!r}")
    stages: list[list[dict[str, Any]]] = []
    before = width
    for number, blocks in enumerate(BLOCKS[depth]):
        inside = width * 2**number
        after = inside if depth < 50 else 4 * inside
        stages.append([])
        for _ in range(blocks):
            if depth < 50:
                convs = [(3, 3, before, inside), (3, 3, inside, after)]
            else:
                convs = [(1, 1, before, inside), (3, 3, inside, inside), (1, 1, inside, after)]
            shortcut = {} if before == after else {"shortcut": (1, 1, before, after)}
            stages[-1].append({"convs": convs, **shortcut})
            before = after
    shapes = {"stem": (STEMS[stem], STEMS[stem], channels, width), "stages": stages}
    norm_key, logits_key = jax.random.split(key)
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
) -> tuple[Array, dict[str, Any]]:
    """The logits of a batch of images.

    Args:
        params, state: from `init`.
        x: images, `(N, H, W, channels)`.
        ops: the namespace to compute with: `jaxcnn` for hand-derived gradients,
            `jaxcnn.reference` for those of autodiff.
        train: whether to normalise by the moments of the batch, and to move the state to them.
        key: the same for every model; ResNet draws nothing.
        axis_name: of the mapped axes (of `jax.shard_map`) over which the batch is divided: the
            moments are those of the whole batch.

    Returns:
        `logits`, `(N, num_classes)`, and the state.

    >>> params, state = init(jax.random.key(0), width=4)
    >>> logits, state = apply(params, state, jnp.zeros((2, 8, 8, 3)), train=True)
    >>> logits.shape
    (2, 10)
    """
    del key
    imagenet = params["stem"]["kernel"].shape[0] == STEMS["imagenet"]
    settings: dict[str, Any] = {"ops": ops, "train": train, "axis_name": axis_name}
    z = conv(params["stem"]["kernel"], x, ops=ops, strides=2 if imagenet else 1)
    x, stem = norm(params["stem"], state["stem"], z, **settings)
    x = ops.relu(x)
    if imagenet:
        x = ops.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
    stages: list[list[Any]] = []
    for number, blocks in enumerate(params["stages"]):
        stages.append([])
        for place, layers in enumerate(blocks):
            strides = 2 if number > 0 and place == 0 else 1
            before = state["stages"][number][place]
            x, moved = block(layers, before, x, strides=strides, **settings)
            stages[-1].append(moved)
    x = ops.flatten(ops.avg_pool(x, x.shape[1:3]))
    return ops.dense(x, **params["logits"]), {"stem": stem, "stages": stages}


def block(
    params: dict[str, Any],
    state: dict[str, Any],
    x: Array,
    *,
    ops: ModuleType,
    strides: int,
    **settings: Any,
) -> tuple[Array, dict[str, Any]]:
    """`relu(x + F(x))`, and the state of its batch norms."""
    convs, norms = params["convs"], state["convs"]
    halving = len(convs) - 2  # of two convolutions the first, of three the second
    steps = [strides if place == halving else 1 for place in range(len(convs))]
    z = conv(convs[0]["kernel"], x, ops=ops, strides=steps[0])
    moved: dict[str, Any] = {"convs": []}
    for place, layer in enumerate(convs[1:]):
        last, step = (convs[place], norms[place]), steps[place + 1]
        z, now = norm_relu_conv(*last, z, layer["kernel"], ops=ops, strides=step, **settings)
        moved["convs"].append(now)
    y, now = norm(convs[-1], norms[-1], z, ops=ops, **settings)
    moved["convs"].append(now)
    if "shortcut" in params:
        z = conv(params["shortcut"]["kernel"], x, ops=ops, strides=strides)
        x, moved["shortcut"] = norm(params["shortcut"], state["shortcut"], z, ops=ops, **settings)
    return ops.relu(x + y), moved
