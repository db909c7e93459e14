"""The same functions in plain JAX: what autodiff differentiates.

Every function here has the name and the signature of its twin in `jaxcnn` and no rule of its own:
`jax.grad` of it is the gradient that the hand-derived one is held against. Where another library
defines the function, its own is taken as it is, so that an agreement is one with that library.

>>> import jax, jaxcnn
>>> x = jax.numpy.array([-1.0, 0.0, 2.0])
>>> bool((jax.grad(lambda x: jaxcnn.relu(x).sum())(x)
...       == jax.grad(lambda x: jaxcnn.reference.relu(x).sum())(x)).all())
True

This module imports no layer of `jaxcnn`, and no layer imports it.
"""

import math
from collections.abc import Callable, Hashable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.lax import conv_general_dilated, conv_transpose
from jax.nn import (
    elu,
    gelu,
    glu,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    logsumexp,
    mish,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    tanh,
)
from jax.typing import DTypeLike
from optax import (
    huber_loss,
    l2_loss,
    safe_softmax_cross_entropy,
    sigmoid_binary_cross_entropy,
    softmax_cross_entropy,
    softmax_cross_entropy_with_integer_labels,
    squared_error,
)

__all__ = [
    "avg_pool",
    "batch_norm",
    "batch_norm_inference",
    "batch_norm_relu_conv",
    "binary_cross_entropy",
    "categorical_cross_entropy",
    "conv",
    "conv_general_dilated",
    "conv_relu",
    "conv_relu_max_pool",
    "conv_transpose",
    "dense",
    "dropout",
    "elu",
    "flatten",
    "gelu",
    "glu",
    "group_norm",
    "hard_sigmoid",
    "hard_swish",
    "hard_tanh",
    "huber_loss",
    "l2_loss",
    "layer_norm",
    "leaky_relu",
    "log_sigmoid",
    "log_softmax",
    "logsumexp",
    "max_pool",
    "min_pool",
    "mish",
    "relu",
    "relu6",
    "safe_softmax_cross_entropy",
    "selu",
    "sigmoid",
    "sigmoid_binary_cross_entropy",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "softmax_cross_entropy_with_integer_labels",
    "softplus",
    "squared_error",
    "tanh",
]

Padding = str | int | Sequence[int | Sequence[int]]


def conv(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """`jax.lax.conv_general_dilated`, channels last, plus the bias."""
    rank = kernel.ndim - 2
    spatial = "XYZ"[:rank]
    layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    y = lax.conv_general_dilated(
        x,
        kernel,
        window_strides=_tuple(strides, rank),
        padding=_pads(padding, rank),
        lhs_dilation=_tuple(input_dilation, rank),
        rhs_dilation=_tuple(kernel_dilation, rank),
        dimension_numbers=layout,
        feature_group_count=feature_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )
    if bias is None:
        return y
    return y + bias.astype(y.dtype).reshape((1,) * (rank + 1) + bias.shape)


def conv_relu(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> Array:
    """`relu(conv(x, kernel, bias))`."""
    z = conv(
        x,
        kernel,
        bias,
        strides=strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        feature_group_count=feature_group_count,
        precision=precision,
    )
    return relu(z)


def conv_relu_max_pool(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    pool_shape: int | Sequence[int],
    pool_strides: int | Sequence[int] | None = None,
    pool_padding: Padding = "VALID",
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> Array:
    """`max_pool(relu(conv(x, kernel, bias)))`."""
    y = conv_relu(
        x,
        kernel,
        bias,
        strides=strides,
        padding=padding,
        input_dilation=input_dilation,
        kernel_dilation=kernel_dilation,
        feature_group_count=feature_group_count,
        precision=precision,
    )
    window = _tuple(pool_shape, kernel.ndim - 2)
    steps = window if pool_strides is None else _tuple(pool_strides, kernel.ndim - 2)
    return max_pool(y, window, steps, pool_padding)


def batch_norm_relu_conv(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    kernel: Array,
    *,
    epsilon: float = 1e-5,
    axis_name: Hashable | Sequence[Hashable] | None = None,
    strides: int | Sequence[int] = 1,
    padding: Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    precision: lax.PrecisionLike = None,
) -> tuple[Array, tuple[Array, Array]]:
    """`conv(relu(batch_norm(x, scale, bias)), kernel)`."""
    h, moments = batch_norm(x, scale, bias, epsilon=epsilon, axis_name=axis_name)
    y = conv(
        relu(h),
        kernel,
        strides=strides,
        padding=padding,
        kernel_dilation=kernel_dilation,
        feature_group_count=feature_group_count,
        precision=precision,
    )
    return y, moments


def max_pool(
    x: Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    window_dilation: Sequence[int] | None = None,
) -> Array:
    """`jax.lax.reduce_window` with `max`, over the axes before the last one."""
    return _reduce_window(x, -jnp.inf, lax.max, window_shape, strides, padding, window_dilation)


def min_pool(
    x: Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    *,
    window_dilation: Sequence[int] | None = None,
) -> Array:
    """`jax.lax.reduce_window` with `min`, over the axes before the last one."""
    return _reduce_window(x, jnp.inf, lax.min, window_shape, strides, padding, window_dilation)


def avg_pool(
    x: Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: Padding = "VALID",
    count_include_pad: bool = True,
    *,
    window_dilation: Sequence[int] | None = None,
) -> Array:
    """`jax.lax.reduce_window` with `add`, divided by the number of elements in each window."""
    geometry = (window_shape, strides, padding, window_dilation)
    total = _reduce_window(x, 0.0, lax.add, *geometry)
    if count_include_pad:
        return total / math.prod(window_shape)
    return total / _reduce_window(jnp.ones_like(x), 0.0, lax.add, *geometry)


def dense(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """`x @ kernel + bias`."""
    y = jnp.matmul(x, kernel)
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)


def flatten(x: Array) -> Array:
    """Every axis but the first made into one."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def batch_norm(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    *,
    epsilon: float = 1e-5,
    axis_name: Hashable | Sequence[Hashable] | None = None,
) -> tuple[Array, tuple[Array, Array]]:
    """`(x - mean) / sqrt(var + epsilon) * scale + bias`; the moments over all axes but the last."""
    wide, batch = _wide(x), tuple(range(x.ndim - 1))
    mean = _over_devices(wide.mean(batch), axis_name)
    var = _over_devices(jnp.square(wide - _row(mean, wide)).mean(batch), axis_name)
    y = batch_norm_inference(wide, mean, var, scale, bias, epsilon=epsilon)
    return y.astype(x.dtype), (mean, var)


def batch_norm_inference(
    x: Array,
    mean: Array,
    var: Array,
    scale: Array | None,
    bias: Array | None,
    *,
    epsilon: float = 1e-5,
) -> Array:
    """`(x - mean) / sqrt(var + epsilon) * scale + bias`, with moments that are given."""
    wide = _wide(x)
    factor = lax.rsqrt(_row(var, wide) + epsilon)
    return _affine(wide - _row(mean, wide), factor, scale, bias).astype(x.dtype)


def layer_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int | Sequence[int] = -1,
    epsilon: float = 1e-6,
) -> Array:
    """`(x - mean) / sqrt(var + epsilon) * scale + bias`, the moments over `axis`."""
    axes = axis if isinstance(axis, int) else tuple(axis)
    wide = _wide(x)
    centred = wide - wide.mean(axes, keepdims=True)
    factor = lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + epsilon)
    return _affine(centred, factor, scale, bias).astype(x.dtype)


def group_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    num_groups: int,
    epsilon: float = 1e-6,
) -> Array:
    """`layer_norm` of each image's groups of channels, then `scale` and `bias` per channel."""
    groups = _wide(x).reshape(*x.shape[:-1], num_groups, x.shape[-1] // num_groups)
    axes = (*range(1, x.ndim - 1), -1)
    centred = groups - groups.mean(axes, keepdims=True)
    factor = lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + epsilon)
    factor = jnp.broadcast_to(factor, (*factor.shape[:-1], groups.shape[-1]))
    factor = factor.reshape(*factor.shape[:-2], x.shape[-1])
    return _affine(centred.reshape(x.shape), factor, scale, bias).astype(x.dtype)


def dropout(
    key: Array,
    x: Array,
    rate: float,
    *,
    axis_name: Hashable | Sequence[Hashable] | None = None,
) -> Array:
    """`x / (1 - rate)` where it is kept, with a probability of `1 - rate`, else 0."""
    if rate in (0, 1):
        return x if rate == 0 else jnp.zeros_like(x)
    devices = 1 if axis_name is None else lax.axis_size(axis_name)
    kept = jax.random.bernoulli(key, 1.0 - rate, (devices, *x.shape))
    if axis_name is None:
        kept = kept[0]
    else:  # the draws for the whole batch, of which this device has its share
        kept = lax.dynamic_index_in_dim(kept, lax.axis_index(axis_name), keepdims=False)
    return jnp.where(kept, x / (1.0 - rate), 0)


def binary_cross_entropy(probabilities: Array, labels: Array) -> Array:
    """`-(labels log p + (1 - labels) log(1 - p))`, elementwise."""
    labels = labels.astype(probabilities.dtype)
    return -(labels * _log(probabilities) + (1 - labels) * _log(1 - probabilities))


def categorical_cross_entropy(probabilities: Array, labels: Array) -> Array:
    """`-sum_c labels_c log p_c` over the last axis."""
    return -(labels.astype(probabilities.dtype) * _log(probabilities)).sum(-1)


def _wide(x: Array) -> Array:
    """`x` in float32 at least, in which the moments of half precision are taken."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _row(parameter: Array, x: Array) -> Array:
    return parameter.astype(x.dtype).reshape((1,) * (x.ndim - 1) + parameter.shape)


def _affine(x: Array, factor: Array, scale: Array | None, bias: Array | None) -> Array:
    y = x * (factor if scale is None else factor * _row(scale, x))
    return y if bias is None else y + _row(bias, x)


def _over_devices(mean: Array, axis_name: Hashable | Sequence[Hashable] | None) -> Array:
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def _log(p: Array) -> Array:
    """The logarithm of `p` raised to the smallest normal number; its derivative is 1 over that."""
    raised = jnp.maximum(p, jnp.finfo(p.dtype).tiny)
    return jnp.log(jnp.where(p < raised, p + lax.stop_gradient(raised - p), p))


def _reduce_window(
    x: Array,
    init: float,
    reduce: Callable[..., Array],
    window_shape: Sequence[int],
    strides: Sequence[int] | None,
    padding: Padding,
    dilation: Sequence[int] | None,
) -> Array:
    rank = len(window_shape)
    batch = (1,) * (x.ndim - rank - 1)
    taps = (*batch, *window_shape, 1)
    steps = (*batch, *_tuple(1 if strides is None else strides, rank), 1)
    apart = (*batch, *_tuple(1 if dilation is None else dilation, rank), 1)
    pads = _pads(padding, rank)
    identity = np.array(init, x.dtype)
    if not isinstance(pads, str):  # padded here: autodiff of a negatively padded maximum fails
        x = lax.pad(x, identity, [(*p, 0) for p in [(0, 0)] * len(batch) + pads + [(0, 0)]])
        pads = "VALID"
    if batch:
        return lax.reduce_window(x, identity, reduce, taps, steps, pads, None, apart)
    return lax.reduce_window(
        x[None], identity, reduce, (1, *taps), (1, *steps), pads, None, (1, *apart)
    )[0]


def _tuple(value: int | Sequence[int], rank: int) -> tuple[int, ...]:
    return (value,) * rank if isinstance(value, int) else tuple(value)


def _pads(padding: Padding, rank: int) -> str | list[tuple[int, int]]:
    if isinstance(padding, str):
        return padding
    pads = [padding] * rank if isinstance(padding, int) else padding
    return [(pad, pad) if isinstance(pad, int) else (pad[0], pad[1]) for pad in pads]
