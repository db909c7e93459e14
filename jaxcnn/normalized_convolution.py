"""Batch norm, ReLU and convolution as one function: what goes into the convolution is not kept.

Shapes are those of `normalization.py` and `convolution.py`. Forward:

    h = batch_norm(x, scale, bias)        a = relu(h)        y = conv(a, kernel)               (1)

The order is that of networks that normalise before they convolve; and any chain of convolution,
batch norm and ReLU is one of these after another, but for its ends.

Backward, from dy through the three rules:

    dkernel = sum over windows of a dy        da = dy through the turned kernel                (2)
    dh = da where h > 0, else 0                                                                (3)
    dx, dscale, dbias = of batch norm, by dh                                                   (4)

(2) is (2) and (3) of `convolution.py`, and (4) is (5) to (8) of `normalization.py`.

Residuals: those of batch norm (x, and a number a channel) and the kernel. One after another, the
convolution keeps a, too, as large as x: of the activations in a chain, half are kept here. a is
worked out again, which takes one pass over x; memory that is not written for the first time in a
step saves more than that.

Sources: He et al., "Identity mappings in deep residual networks", 2016, for the order; Pleiss et
al., "Memory-efficient implementation of DenseNets", 2017, for working a out again.
"""

from collections.abc import Sequence
from functools import partial

import jax
from jax import Array

from jaxcnn import _check, _cotangent
from jaxcnn._cpu import choice
from jaxcnn._order import after
from jaxcnn._window import Window
from jaxcnn.activations import relu, relu_bwd, relu_fwd
from jaxcnn.convolution import Precision, check_conv, conv, conv_fwd, input_grad, kernel_grad
from jaxcnn.normalization import (
    AxisName,
    Moments,
    Residuals,
    batch_norm,
    batch_norm_bwd,
    batch_norm_fwd,
    batch_norm_y,
    check_batch_norm,
)


def batch_norm_relu_conv(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    kernel: Array,
    *,
    epsilon: float = 1e-5,
    axis_name: AxisName = None,
    strides: int | Sequence[int] = 1,
    padding: _check.Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    precision: Precision = None,
) -> tuple[Array, tuple[Array, Array]]:
    """`conv(relu(batch_norm(x, scale, bias)), kernel)` with a hand-derived gradient.

    Args:
        x: `(N, *spatial, C)`, of floating dtype.
        scale, bias, epsilon: as in `batch_norm`.
        axis_name: as in `batch_norm`. Where it is not None, the three are done one after another,
            and what goes into the convolution is kept.
        kernel, strides, padding, kernel_dilation, feature_group_count, precision: as in `conv`.

    Returns:
        `y`, `(N, *windows, O)`, of the same dtype, and `(mean, var)` of `x`, as `batch_norm`.

    Raises:
        TypeError, ValueError: as `batch_norm` and `conv`.

    Gradient (`batch_norm_relu_conv_bwd`): `dkernel` and `da` are those of `conv` at
    `a = relu(h)`, `h = batch_norm(x, scale, bias)`; `dx`, `dscale` and `dbias` those of
    `batch_norm` by `dh = da` where `h > 0`, else 0. Derived at the top of this module.

    >>> import jax.numpy as jnp
    >>> x, kernel = jnp.array([1.0, 3.0]).reshape(2, 1, 1), jnp.full((1, 1, 1), 5.0)
    >>> y, (mean, var) = batch_norm_relu_conv(x, None, None, kernel, epsilon=0.0)
    >>> y[:, 0, 0], mean, var
    (Array([0., 5.], dtype=float32), Array([2.], dtype=float32), Array([1.], dtype=float32))
    """
    function = "batch_norm_relu_conv"
    epsilon = check_batch_norm(function, x, scale, bias, epsilon)
    window = check_conv(
        function, x, kernel, None, strides, padding, 1, kernel_dilation, feature_group_count
    )
    if axis_name is not None:
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
    return _jitted(x, scale, bias, kernel, epsilon, window, feature_group_count, precision)


# The rule ----------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def _batch_norm_relu_conv(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    kernel: Array,
    epsilon: float,
    window: Window,
    groups: int,
    precision: Precision,
) -> tuple[Array, Moments]:
    return batch_norm_relu_conv_fwd(x, scale, bias, kernel, epsilon, window, groups, precision)[0]


def batch_norm_relu_conv_fwd(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    kernel: Array,
    epsilon: float,
    window: Window,
    groups: int = 1,
    precision: Precision = None,
) -> tuple[tuple[Array, Moments], tuple[Residuals, Array]]:
    """`y` and the moments by (1), and the residuals: those of `batch_norm_fwd`, and the kernel."""
    (_, moments), of_norm = batch_norm_fwd(x, scale, bias, epsilon)
    _, mean, r, *_ = of_norm
    a = choice.written(_activated, x, mean, r, scale, bias)
    y, _ = conv_fwd(a, kernel, None, window, groups, precision)
    return (y, moments), (of_norm, kernel)


def batch_norm_relu_conv_bwd(
    epsilon: float,
    window: Window,
    groups: int,
    precision: Precision,
    residuals: tuple[Residuals, Array],
    cotangents: tuple[Array, Moments],
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """`(dx, dscale, dbias, dkernel)`, from the residuals and the cotangents."""
    of_norm, kernel = residuals
    x, mean, r, scale, bias = of_norm
    dy, dmoments = cotangents
    da = input_grad(dy, kernel, window, groups, precision)  # (2)
    # `after`: or else a would be kept since the forward pass, which makes the same. And after da,
    # not dy: that is one element of a result, where XLA would work out again how dy was made.
    a = choice.written(_activated, x, after(mean, da), r, scale, bias)  # (1)
    sharding = _cotangent.sharding(kernel)
    dkernel = kernel_grad(a, dy, window, groups, precision, sharding)  # (2)
    (dh,) = relu_bwd(a > 0, da)  # (3): where a is above 0, h is
    of_norm_cotangents = batch_norm_bwd(epsilon, of_norm, (dh, dmoments))  # (4)
    return *of_norm_cotangents, _cotangent.match(dkernel, kernel)


def _activated(x: Array, mean: Array, r: Array, scale: Array | None, bias: Array | None) -> Array:
    """`a` by (1)."""
    return relu_fwd(batch_norm_y(x, mean, r, scale, bias))[0]


_batch_norm_relu_conv.defvjp(batch_norm_relu_conv_fwd, batch_norm_relu_conv_bwd)
_jitted = jax.jit(_batch_norm_relu_conv, static_argnums=(4, 5, 6, 7))
