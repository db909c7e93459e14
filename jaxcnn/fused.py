"""Convolution, ReLU and max pool as one function: fewer passes over memory, and less is kept.

Shapes are those of `convolution.py` and `pooling.py`. Forward, with z = conv(x, kernel, bias):

    conv_relu             y = relu(z)                                                          (1)
    conv_relu_max_pool    y = max_pool(relu(z)) = relu(u),     u = max_pool(z)                 (2)

The two orders of (2) are equal, since relu never decreases: max_t max(z_t, 0) = max(max_t z_t, 0).
It is applied to u, which with windows of 2x2 has a quarter of the elements.

Backward. relu'(z) is 1 where z > 0, and there only y > 0. So of (1), by the rule of `relu`,

    dz = dy where y > 0, else 0                                                                (3)

and of (2), by (3) and by (4) of `pooling.py`, with the winner w[o] of each window of z,

    dz = sum_t adjoint_t(dy where w = t and y > 0)                                             (4)

That is the gradient of both orders: where y > 0 the first of the largest elements is the same with
and without relu, and elsewhere nothing passes. From dz to x, kernel and bias go (2), (3) and (4) of
`convolution.py`; the bias adds up what (4) is about to spread,

    dbias = sum_{n,o} (dy where y > 0)                                                         (5)

Residuals: x and the kernel; and of (1) y, which the next layer keeps as its input; of (2) w, one
byte an element of y, which is set to "none" where y is not > 0. Of one after another, autodiff
keeps z or its signs, relu(z) and y.

Sources: those of `convolution.py`, `activations.py` and `pooling.py`, whose rules these are.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxcnn import _check, _cotangent
from jaxcnn._cpu import choice
from jaxcnn._window import Window
from jaxcnn.activations import relu_bwd, relu_fwd
from jaxcnn.convolution import (
    Precision,
    check_conv,
    conv_bwd,
    forward,
    input_grad,
    kernel_grad,
)
from jaxcnn.convolution import Residuals as ConvResiduals
from jaxcnn.pooling import NO_WINNER, max_pool_bwd, max_pool_fwd

Cotangents = tuple[Array | None, Array | None, Array | None]


def conv_relu(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: _check.Padding = "SAME",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    precision: Precision = None,
) -> Array:
    """`relu(conv(x, kernel, bias))` with a hand-derived gradient.

    Args:
        x: `(N, *spatial, C)`, of floating dtype.
        kernel, bias, strides, padding, input_dilation, kernel_dilation, feature_group_count,
            precision: as in `conv`.

    Returns:
        `(N, *windows, O)`, of the same dtype.

    Raises:
        TypeError, ValueError: as `conv`; and where `x` is not floating.

    Gradient (`conv_relu_bwd`): that of `conv`, of `dz = dy` where `y > 0`, else 0; derived at the
    top of this module.

    >>> x, kernel = jnp.array([-1.0, 2.0]).reshape(1, 2, 1), jnp.ones((1, 1, 1))
    >>> conv_relu(x, kernel)[0, :, 0]
    Array([0., 2.], dtype=float32)
    >>> jax.grad(lambda x: conv_relu(x, kernel).sum())(x)[0, :, 0]
    Array([0., 1.], dtype=float32)
    """
    window = check_conv(
        "conv_relu",
        x,
        kernel,
        bias,
        strides,
        padding,
        input_dilation,
        kernel_dilation,
        feature_group_count,
    )
    _check.floating("conv_relu", x=x)
    return _jitted_conv_relu(x, kernel, bias, window, feature_group_count, precision)


def conv_relu_max_pool(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    pool_shape: int | Sequence[int],
    pool_strides: int | Sequence[int] | None = None,
    pool_padding: _check.Padding = "VALID",
    strides: int | Sequence[int] = 1,
    padding: _check.Padding = "SAME",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    precision: Precision = None,
) -> Array:
    """`max_pool(relu(conv(x, kernel, bias)))` with a hand-derived gradient.

    Args:
        x: `(N, *spatial, C)`, of floating dtype.
        kernel, bias, strides, padding, input_dilation, kernel_dilation, feature_group_count,
            precision: as in `conv`.
        pool_shape: the pool's window, for all axes or each.
        pool_strides: its step, for all axes or each. None is `pool_shape`: one beside the other.
        pool_padding: as `padding` in `max_pool`.

    Returns:
        `(N, *windows, O)`, of the same dtype. On a CPU Inf and NaN may reach further, as in `conv`.

    Raises:
        TypeError, ValueError: as `conv` and `max_pool`; and where a pool's window has nothing but
            padding in it.

    Gradient (`conv_relu_max_pool_bwd`): that of `conv`, of a `dz` that has `dy` at the place of
    each window's largest element, the first where several are equal, if that is above 0; derived
    at the top of this module.

    >>> x, kernel = jnp.array([-1.0, 2.0, -3.0, -2.0]).reshape(1, 4, 1), jnp.ones((1, 1, 1))
    >>> conv_relu_max_pool(x, kernel, pool_shape=2)[0, :, 0]
    Array([2., 0.], dtype=float32)
    >>> jax.grad(lambda x: conv_relu_max_pool(x, kernel, pool_shape=2).sum())(x)[0, :, 0]
    Array([0., 1., 0., 0.], dtype=float32)
    """
    function = "conv_relu_max_pool"
    window = check_conv(
        function,
        x,
        kernel,
        bias,
        strides,
        padding,
        input_dilation,
        kernel_dilation,
        feature_group_count,
    )
    _check.floating(function, x=x)
    taps = _check.per_axis(function, "pool_shape", pool_shape, len(window.size))
    pool = _check.window(
        function,
        window.outputs,
        taps,
        taps if pool_strides is None else pool_strides,
        pool_padding,
        names=("pool_strides", "", ""),
    )
    if not all(inside.any(1).all() for inside in pool.inside()):
        raise ValueError(
            f"{function}: `pool_padding` {pool_padding!r} must leave no window of `pool_shape` "
            f"{pool_shape!r} with nothing but padding"
        )
    return _jitted_conv_relu_max_pool(x, kernel, bias, window, pool, feature_group_count, precision)


# The rules ---------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _conv_relu(
    x: Array, kernel: Array, bias: Array | None, window: Window, groups: int, precision: Precision
) -> Array:
    return conv_relu_fwd(x, kernel, bias, window, groups, precision)[0]


def conv_relu_fwd(
    x: Array,
    kernel: Array,
    bias: Array | None,
    window: Window,
    groups: int = 1,
    precision: Precision = None,
) -> tuple[Array, tuple[ConvResiduals, Array]]:
    """`y` by (1), and the residuals: those of `conv_fwd`, and `y`."""

    def relu(z: Array) -> Array:
        return relu_fwd(z)[0]

    y = forward(x, kernel, bias, window, groups, precision, finish=relu)
    return y, ((x, kernel, bias), y)


def conv_relu_bwd(
    window: Window,
    groups: int,
    precision: Precision,
    residuals: tuple[ConvResiduals, Array],
    dy: Array,
) -> Cotangents:
    """`(dx, dkernel, dbias)`, from the residuals and the output's cotangent."""
    of_conv, y = residuals
    (dz,) = relu_bwd(y > 0, dy)  # (3)
    return conv_bwd(window, groups, precision, None, of_conv, dz)


_conv_relu.defvjp(conv_relu_fwd, conv_relu_bwd)
_jitted_conv_relu = jax.jit(_conv_relu, static_argnums=(3, 4, 5))


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _conv_relu_max_pool(
    x: Array,
    kernel: Array,
    bias: Array | None,
    window: Window,
    pool: Window,
    groups: int,
    precision: Precision,
) -> Array:
    return conv_relu_max_pool_fwd(x, kernel, bias, window, pool, groups, precision)[0]


def conv_relu_max_pool_fwd(
    x: Array,
    kernel: Array,
    bias: Array | None,
    window: Window,
    pool: Window,
    groups: int = 1,
    precision: Precision = None,
) -> tuple[Array, tuple[ConvResiduals, Array]]:
    """`y` by (2), and the residuals: those of `conv_fwd`, and the winners."""

    def relu_of_maxima(u: Array, winner: Array) -> tuple[Array, Array]:
        y, passes = relu_fwd(u)
        return y, jnp.where(passes, winner, jnp.array(NO_WINNER, winner.dtype))

    def pooled(z: Array) -> tuple[Array, Array]:
        return relu_of_maxima(*max_pool_fwd(z, pool))

    def in_turn(x: Array, kernel: Array, bias: Array | None) -> tuple[Array, Array]:
        return forward(x, kernel, bias, window, groups, precision, finish=pooled, of_elements=False)

    y, winner = choice.conv_pool(
        x, kernel, bias, relu_of_maxima, window, pool, groups, precision, in_turn
    )
    return y, ((x, kernel, bias), winner)


def conv_relu_max_pool_bwd(
    window: Window,
    pool: Window,
    groups: int,
    precision: Precision,
    residuals: tuple[ConvResiduals, Array],
    dy: Array,
) -> Cotangents:
    """`(dx, dkernel, dbias)`, from the residuals and the output's cotangent."""
    (x, kernel, bias), winner = residuals
    sharding = _cotangent.sharding(kernel)

    def in_turn(x: Array, kernel: Array, winner: Array, dy: Array) -> tuple[Array, Array, Array]:
        (dz,) = max_pool_bwd(pool, winner, dy)  # (4)
        dx = input_grad(dz, kernel, window, groups, precision)
        dkernel = kernel_grad(x, dz, window, groups, precision, sharding)
        (du,) = relu_bwd(winner >= 0, dy)
        return dx, dkernel, du.sum(range(dy.ndim - 1))  # (5)

    dx, dkernel, dbias = choice.conv_pool_grads(
        x, kernel, winner, dy, window, pool, groups, precision, in_turn
    )
    matched = _cotangent.match(dx, x), _cotangent.match(dkernel, kernel)
    return *matched, None if bias is None else _cotangent.match(dbias, bias)


_conv_relu_max_pool.defvjp(conv_relu_max_pool_fwd, conv_relu_max_pool_bwd)
_jitted_conv_relu_max_pool = jax.jit(_conv_relu_max_pool, static_argnums=(3, 4, 5, 6))
