"""What the models share: how parameters are drawn, and convolutions between batch norms.

A model describes its layers by a tree of kernel shapes, `(*taps, channels in, channels out)`; its
parameters are the same tree with a dict in the place of each shape.
"""

import math
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxcnn.normalization import AxisName

Tree = Any  # nested dicts and lists
Layer = dict[str, Array]

MOMENTUM = 0.9  # of the running mean and variance


def with_bias(key: Array, shapes: Tree, dtype: DTypeLike) -> Tree:
    """A `kernel` (He-uniform) and a `bias` (zeros) for each shape of the tree.

    >>> params = with_bias(jax.random.key(0), {"dense": (4, 3)}, jnp.float32)
    >>> jax.tree.map(jnp.shape, params)
    {'dense': {'bias': (3,), 'kernel': (4, 3)}}
    """
    return jax.tree.map(
        lambda kernel: {"kernel": kernel, "bias": jnp.zeros(kernel.shape[-1:], dtype)},
        he_uniform(key, shapes, dtype),
    )


def with_norm(key: Array, shapes: Tree, dtype: DTypeLike) -> tuple[Tree, Tree]:
    """Parameters and state of a convolution and a batch norm for each shape of the tree.

    The parameters are a `kernel` (He-uniform), a `scale` (ones) and a `bias` (zeros), and the state
    is the running `mean` (zeros) and `var` (ones), in float32 or wider.

    >>> params, state = with_norm(jax.random.key(0), [(3, 3, 1, 8)], jnp.float32)
    >>> jax.tree.map(jnp.shape, state)
    [{'mean': (8,), 'var': (8,)}]
    """
    kernels = he_uniform(key, shapes, dtype)

    def parameters(kernel: Array) -> Layer:
        channels = kernel.shape[-1:]
        return {
            "kernel": kernel,
            "scale": jnp.ones(channels, dtype),
            "bias": jnp.zeros(channels, dtype),
        }

    def state(kernel: Array) -> Layer:
        wide = jnp.promote_types(dtype, jnp.float32)
        channels = kernel.shape[-1:]
        return {"mean": jnp.zeros(channels, wide), "var": jnp.ones(channels, wide)}

    return jax.tree.map(parameters, kernels), jax.tree.map(state, kernels)


def he_uniform(key: Array, shapes: Tree, dtype: DTypeLike) -> Tree:
    """Kernels uniform on `±sqrt(6 / fan_in)`, where `fan_in` is the taps times the channels in.

    All are cut from one draw: to compile a draw for each takes ten times as long.

    He et al., "Delving deep into rectifiers", 2015.
    """
    leaves, tree = jax.tree.flatten(shapes, is_leaf=lambda node: isinstance(node, tuple))
    sizes = [math.prod(shape) for shape in leaves]
    draw = jax.random.uniform(key, (sum(sizes),), dtype, minval=-1, maxval=1)
    kernels = [
        part.reshape(shape) * math.sqrt(6 / math.prod(shape[:-1]))
        for part, shape in zip(jnp.split(draw, np.cumsum(sizes)[:-1]), leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, kernels)


def conv(kernel: Array, x: Array, *, ops: ModuleType, strides: int = 1, groups: int = 1) -> Array:
    """A convolution without bias, padded by half its kernel."""
    return ops.conv(x, kernel, **_geometry(kernel, strides, groups))


def norm(
    params: Layer,
    state: Layer,
    x: Array,
    *,
    ops: ModuleType,
    train: bool,
    axis_name: AxisName = None,
) -> tuple[Array, Layer]:
    """Batch norm, and its state.

    In training the moments are those of the batch, also over the mapped axes of `axis_name`, and
    the state returned has moved a tenth of the way to them; otherwise they are the state's, which
    stays as it is.
    """
    scale, bias = params["scale"], params["bias"]
    if not train:
        return ops.batch_norm_inference(x, state["mean"], state["var"], scale, bias), state
    y, moments = ops.batch_norm(x, scale, bias, axis_name=axis_name)
    return y, _moved(state, moments)


def norm_relu_conv(
    params: Layer,
    state: Layer,
    x: Array,
    kernel: Array,
    *,
    ops: ModuleType,
    train: bool,
    axis_name: AxisName = None,
    strides: int = 1,
    groups: int = 1,
) -> tuple[Array, Layer]:
    """`norm`, ReLU and `conv`, and the state of the norm."""
    if not train:
        y, state = norm(params, state, x, ops=ops, train=train)
        return conv(kernel, ops.relu(y), ops=ops, strides=strides, groups=groups), state
    y, moments = ops.batch_norm_relu_conv(
        x,
        params["scale"],
        params["bias"],
        kernel,
        axis_name=axis_name,
        **_geometry(kernel, strides, groups),
    )
    return y, _moved(state, moments)


def _geometry(kernel: Array, strides: int, groups: int) -> dict[str, Any]:
    padding = [(taps // 2, taps // 2) for taps in kernel.shape[:-2]]
    return {"strides": strides, "padding": padding, "feature_group_count": groups}


def _moved(state: Layer, moments: tuple[Array, Array]) -> Layer:
    """The running moments, moved a tenth of the way to those of the batch."""
    batch = dict(zip(("mean", "var"), moments, strict=True))
    return jax.tree.map(lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new, state, batch)
