"""Pooling: a window's maximum or mean. No parameters, hence no parameter gradient.

Shapes, for two spatial axes (any number goes the same way, and so does any number of batch axes):

    x   (..., H, W, C)     images
    y   (..., P, Q, C)     one value a window, and dy its cotangent dL/dy

Window o has a tap t for each of its elements, and with strides s and low pads p the tap reads

    x_t[o] = x[s·o + t - p]                                                                    (1)

(with d·t in place of t where the window is dilated by d). Reading is linear in x. The inner product
of x_t with a cotangent v, rearranged by what it reads,

    sum_o v[o] · x[s·o + t - p] = sum_i x[i] · (sum_{o : s·o + t - p = i} v[o])

gives its adjoint, which writes v back to where the tap read, and drops what it read of the padding:

    adjoint_t(v)[i] = v[(i + p - t) / s], and 0 where that is no output's index                (2)

Mean, of n[o] elements (all of the window's, or those inside the image):

    y[o] = sum_t x_t[o] / n[o]                       dx = sum_t adjoint_t(dy / n)              (3)

Maximum. The winner w[o] is the tap with the largest element, the first in window order where
several are equal. Near x the winner stays, so that y[o] = x_{w[o]}[o] and only it has a derivative:

    y[o] = max_t x_t[o]                              dx = sum_t adjoint_t(dy where w = t)      (4)

which is the notes' matrix of the image's size, filled with the gradients at the winners' places.
Windows that overlap may have one winner in common: its gradients add up.

Residuals: w, one byte an output element (up to 128 taps), instead of the x that autodiff keeps: for
a 2x2 window on float32, 1/16 of the bytes. The mean keeps nothing. Both gather: for each element of
x, from the windows that hold it. Autodiff of the maximum scatters.

Conventions: padding is -inf under the maximum and never wins, not even in a window of nothing but
-inf; NaN wins, and the first NaN takes the gradient; padding is 0 under the mean.

Source: the notes this project grew from.
"""

import functools
import math
import operator
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from jaxcnn import _check
from jaxcnn._cpu import choice
from jaxcnn._taps import gather, largest, pad, read
from jaxcnn._window import Window


def max_pool(
    x: Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: _check.Padding = "VALID",
    *,
    window_dilation: Sequence[int] | None = None,
) -> Array:
    """The largest element of each window: `flax.linen.max_pool` with a hand-derived gradient.

    `y[o] = max_t x[strides·o + t - pad]`

    Args:
        x: `(*batch, *spatial, C)`, with any number of batch axes, none included.
        window_shape: the window's taps along each spatial axis; their number is that of the axes.
        strides: the window's step along each axis; None is 1 along all (as in flax).
        padding: "VALID" (none), "SAME", "SAME_LOWER", or elements of -inf: one integer, or an
            integer or a (low, high) pair an axis.
        window_dilation: distance between the window's taps along each axis; None is 1 along all.

    Returns:
        `(*batch, *windows, C)`, of the same dtype.

    Raises:
        TypeError: `x` is not floating, or the geometry not integer.
        ValueError: `x` has too few axes, or the geometry does not fit.

    Gradient (`max_pool_bwd`): each window's cotangent goes to its largest element, the first in
    window order where several are equal; derived at the top of this module.

    >>> image = jnp.array([[1., 2., 0., 0.],
    ...                    [3., 4., 0., 5.],
    ...                    [7., 0., 1., 1.],
    ...                    [0., 0., 1., 1.]])[None, :, :, None]
    >>> max_pool(image, (2, 2), strides=(2, 2))[0, :, :, 0]
    Array([[4., 5.],
           [7., 1.]], dtype=float32)
    >>> _, vjp = jax.vjp(lambda x: max_pool(x, (2, 2), strides=(2, 2)), image)
    >>> dx, = vjp(jnp.array([[10., 20.], [30., 40.]])[None, :, :, None])
    >>> dx[0, :, :, 0]
    Array([[ 0.,  0.,  0.,  0.],
           [ 0., 10.,  0., 20.],
           [30.,  0., 40.,  0.],
           [ 0.,  0.,  0.,  0.]], dtype=float32)
    """
    window = _window("max_pool", x, window_shape, strides, padding, window_dilation)
    return _jitted_max_pool(x, window)


def min_pool(
    x: Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: _check.Padding = "VALID",
    *,
    window_dilation: Sequence[int] | None = None,
) -> Array:
    """The smallest element of each window: `flax.nnx.min_pool` with a hand-derived gradient.

    `y[o] = min_t x[strides·o + t - pad] = -max_t -x[strides·o + t - pad]`, which is how it is
    evaluated: arguments, result, errors and gradient are those of `max_pool`, with padding of inf.

    >>> min_pool(jnp.array([3.0, 1.0, 2.0, 5.0]).reshape(1, 4, 1), (2,), strides=(2,))[0, :, 0]
    Array([1., 2.], dtype=float32)
    """
    window = _window("min_pool", x, window_shape, strides, padding, window_dilation)
    return -_jitted_max_pool(-x, window)


def avg_pool(
    x: Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None = None,
    padding: _check.Padding = "VALID",
    count_include_pad: bool = True,
    *,
    window_dilation: Sequence[int] | None = None,
) -> Array:
    """The mean of each window: `flax.linen.avg_pool` with a hand-derived gradient.

    `y[o] = sum_t x[strides·o + t - pad] / n[o]`

    Args:
        x, window_shape, strides, padding, window_dilation: as `max_pool`; the padding is 0.
        count_include_pad: whether `n` counts the window's padding, too.

    Returns:
        `(*batch, *windows, C)`, of the same dtype. A window of nothing but padding, where that is
        not counted, has the mean 0 / 0 = NaN, as in flax; it passes no gradient.

    Raises:
        TypeError, ValueError: as `max_pool`.

    Gradient (`avg_pool_bwd`): each window's cotangent over `n` goes to all of its elements.

    >>> x = jnp.arange(4.0).reshape(1, 4, 1)
    >>> avg_pool(x, (2,), strides=(2,))[0, :, 0]
    Array([0.5, 2.5], dtype=float32)
    >>> jax.grad(lambda x: avg_pool(x, (2,), strides=(2,))[0, 1, 0])(x)[0, :, 0]
    Array([0. , 0. , 0.5, 0.5], dtype=float32)
    """
    window = _window("avg_pool", x, window_shape, strides, padding, window_dilation)
    return _jitted_avg_pool(x, window, bool(count_include_pad))


NO_WINNER = -2  # where there is no window; and no tap is -1


# The rules ---------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x: Array, window: Window) -> Array:
    return max_pool_fwd(x, window)[0]


def max_pool_fwd(x: Array, window: Window) -> tuple[Array, Array]:
    """`y` by (4), and as the residual each window's winner: the number of its tap."""

    def by_taps(x: Array) -> tuple[Array, Array]:
        padded = lax.optimization_barrier(pad(x, window.pads, -jnp.inf))
        inside = jnp.asarray(window.first_inside()[..., None], _smallest_integer(window))
        return largest((read(padded, offset, window) for offset in window.offsets()), inside)  # (1)

    return choice.pooled(by_taps, x, window)


def max_pool_bwd(window: Window, winner: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (4), from the winners and the output's cotangent."""

    def written(tap: np.ndarray, winner: Array, dy: Array) -> Array:
        return jnp.where(winner == tap.astype(winner.dtype), dy, jnp.zeros((), dy.dtype))

    return (gather(window, (winner, dy), (NO_WINNER, 0), written),)


_max_pool.defvjp(max_pool_fwd, max_pool_bwd)
_jitted_max_pool = jax.jit(_max_pool, static_argnums=1)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _avg_pool(x: Array, window: Window, count_include_pad: bool) -> Array:
    return avg_pool_fwd(x, window, count_include_pad)[0]


def avg_pool_fwd(x: Array, window: Window, count_include_pad: bool) -> tuple[Array, None]:
    """`y` by (3). There is no residual: a mean's derivative does not depend on `x`."""

    def by_taps(x: Array) -> Array:
        padded = lax.optimization_barrier(pad(x, window.pads, 0))
        return functools.reduce(operator.add, (read(padded, at, window) for at in window.offsets()))

    total = choice.summed(by_taps, x, window, partial(_sum_windows, window))
    return total / _count(window, count_include_pad, x.dtype), None


def avg_pool_bwd(window: Window, count_include_pad: bool, _: None, dy: Array) -> tuple[Array]:
    """`(dx,)` by (3), from the output's cotangent."""
    count = _count(window, count_include_pad, dy.dtype)
    shares = jnp.where(count > 0, dy / jnp.maximum(count, 1), jnp.zeros((), dy.dtype))

    def written(tap: np.ndarray, shares: Array) -> Array:
        return jnp.where(tap >= 0, shares, jnp.zeros((), shares.dtype))

    return (gather(window, (shares,), (0,), written),)


_avg_pool.defvjp(avg_pool_fwd, avg_pool_bwd)
_jitted_avg_pool = jax.jit(_avg_pool, static_argnums=(1, 2))


def _sum_windows(window: Window, x: Array) -> Array:
    """The sum of the elements of each window, by XLA's own operation."""
    batch = (1,) * (x.ndim - len(window.taps) - 1)
    return lax.reduce_window(
        pad(x, window.pads, 0),
        np.zeros((), x.dtype),
        lax.add,
        (*batch, *window.taps, 1),
        (*batch, *window.strides, 1),
        "VALID",
        window_dilation=(*batch, *window.dilation, 1),
    )


# Geometry ----------------------------------------------------------------------------------------


def _window(
    function: str,
    x: Array,
    window_shape: Sequence[int],
    strides: Sequence[int] | None,
    padding: _check.Padding,
    dilation: Sequence[int] | None,
) -> Window:
    _check.floating(function, x=x)
    taps = _check.per_axis(function, "window_shape", window_shape, len(window_shape))
    if x.ndim < len(taps) + 1:
        raise ValueError(
            f"{function}: `x` of shape {x.shape} must have an axis for each of the {len(taps)} "
            f"entries of `window_shape` {window_shape!r}, and one of channels behind them"
        )
    size = x.shape[x.ndim - 1 - len(taps) : -1]
    steps = 1 if strides is None else strides
    return _check.window(function, size, taps, steps, padding, 1 if dilation is None else dilation)


def _count(window: Window, count_include_pad: bool, dtype: DTypeLike) -> np.ndarray:
    """`n` in (3): the number of elements of each window, to be broadcast against the output."""
    if count_include_pad:
        return np.array(math.prod(window.taps), dtype)
    counts = np.ones(1)
    for inside in window.inside():
        counts = counts[..., None, :] * inside.sum(1)[:, None]
    return counts.astype(dtype)


def _smallest_integer(window: Window) -> DTypeLike:
    return np.min_scalar_type(-math.prod(window.taps))
