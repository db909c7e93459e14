"""Normalisation: elements that belong together are brought to mean 0 and variance 1.

Shapes, for images (any number of spatial axes goes the same way):

    x, y         (N, H, W, C)     and dy, the cotangent dL/dy
    scale, bias  (C,)             one entry a channel, either may be left out

Which m elements belong together in a set, E being the mean over each:

    batch norm   one channel's, of all images and positions (and of all devices)    m = N·H·W
    layer norm   one position's channels (or along what axes one likes)             m = C
    group norm   one image's, of a group of g channels and all positions            m = H·W·g

Forward:

    mean = E[x]        var = E[(x - mean)^2]        r = 1 / sqrt(var + epsilon)                (1)
    n = (x - mean) r                                                                           (2)
    y = n scale + bias                                                                         (3)

Backward. A prime marks a perturbation. The mean of x - mean is 0, so that var' has one term:

    mean' = E[x']      var' = 2 E[(x - mean) x']    r' = -r^3 var' / 2
    n' = (x' - mean') r + (x - mean) r' = r (x' - E[x'] - n E[n x'])
    y' = n' scale + n scale' + bias'

E is symmetric, <v, E[w]> = <E[v], w>. The inner product of y' with dy, where dn = scale dy:

    <dy, y'> = <r (dn - E[dn] - n E[n dn]), x'> + <sum n dy, scale'> + <sum dy, bias'>

the sums running over all axes but the channels'. Read off what multiplies each perturbation:

    dx = r (dn - E[dn] - n E[n dn])                                                            (4)
    dscale = sum n dy              dbias = sum dy                                              (5)

In words: of dn goes what a shift or a stretch of the whole set would have undone.
Batch norm returns mean and var, too. Their cotangents dmean and dvar, with their differentials:

    <dmean, E[x']> + <dvar, 2 E[(x - mean) x']>     to dx:  + (dmean + 2 (x - mean) dvar) / m  (6)

and since its scale is constant over a set, the two sums of (5) serve (4), which needs no others:

    E[dn] = scale dbias / m        E[n dn] = scale dscale / m                                  (7)

With n = (x - mean) r, what multiplies dy, x - mean and 1 in (4) and (6) together is a number a set:

    dx = r scale dy + (2 dvar / m - r^2 E[n dn]) (x - mean) + (dmean / m - r E[dn])            (8)

(In group norm likewise the sums of one image, times scale / (H·W), averaged over the g channels.)
With given moments, as in inference, only what is inside y remains:

    dx = r scale dy                dmean = -r scale dbias        dvar = -r^2 scale dscale / 2  (9)

These dmean and dvar, put into (6), give (4) again. So it goes over devices: mean and var are the
`lax.pmean` of each device's own E, y takes them as given, (9), and what comes back from `pmean` to
the device's own moments goes to dx by (6). Casts, means and `pmean` are linear and left to JAX:
what the cotangent of a `pmean` is to one device differs between `jax.shard_map` with and without
`check_vma` and `jax.vmap`, and a rule cannot tell which it is in. On one device x - mean has not
the mean 0, and var' another term, -2 E[x - mean] mean'; but dvar is the same on all devices, and in
the sum over them the term vanishes: it is left out.

Residuals: x, mean and r (and scale; bias for its type). x is the caller's, the others are one
number a set: n is worked out again. Autodiff keeps x - mean and its double: two arrays of the size
of x, in float32 even where x is bfloat16. (Over devices, x is kept in float32, once.)

Half precision: all of this is done in float32, and y and dx are rounded at the end.

Sources: Ioffe and Szegedy, 2015 (batch norm); Ba et al., 2016 (layer norm); Wu and He, 2018 (group
norm).
"""

import math
import operator
from collections.abc import Hashable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn import _check, _cotangent
from jaxcnn._order import after

AxisName = Hashable | Sequence[Hashable] | None
Moments = tuple[Array, Array]
Residuals = tuple[Array, Array, Array, Array | None, Array | None]
Given = tuple[Array, Array, Array, Array | None, Array | None]


def batch_norm(
    x: Array,
    scale: Array | None,
    bias: Array | None,
    *,
    epsilon: float = 1e-5,
    axis_name: AxisName = None,
) -> tuple[Array, tuple[Array, Array]]:
    """Normalises each channel over the batch, with a hand-derived gradient.

    `y = (x - mean) / sqrt(var + epsilon) * scale + bias`

    Args:
        x: `(*batch_and_spatial, C)`, of floating dtype.
        scale: `(C,)`, of floating dtype, or None.
        bias: `(C,)`, of floating dtype, or None.
        epsilon: added to the variance; a static number, not negative.
        axis_name: the name, or names, of the mapped axes (of `jax.shard_map` or `jax.vmap`) over
            which mean and variance are taken, too. A batch that is sharded under `jax.jit` alone
            needs none.

    Returns:
        `y` like `x`, and `(mean, var)`, each `(C,)`, in float32 or wider: the moments of the batch,
        of which a running average serves `batch_norm_inference`. `var` is the biased variance: the
        sum of squares divided by the number of elements.

    Raises:
        TypeError: a dtype is not floating, or `epsilon` no number.
        ValueError: the shapes do not fit, or `epsilon` is negative.

    Gradient (`batch_norm_bwd`): `dx = r (dn - E[dn] - n E[n dn])`, `dscale = sum n dy` and
    `dbias = sum dy`, with `n = (x - mean) r`, `r = 1 / sqrt(var + epsilon)`, `dn = scale dy` and E
    the mean over the batch: it goes through mean and variance, and adds what comes from those
    returned. Derived at the top of this module.

    >>> x = jnp.array([[1.0, 0.0], [3.0, 8.0]])
    >>> y, (mean, var) = batch_norm(x, jnp.array([1.0, 2.0]), jnp.array([0.0, 5.0]), epsilon=0.0)
    >>> y
    Array([[-1.,  3.],
           [ 1.,  7.]], dtype=float32)
    >>> mean, var
    (Array([2., 4.], dtype=float32), Array([ 1., 16.], dtype=float32))
    """
    epsilon = check_batch_norm("batch_norm", x, scale, bias, epsilon)
    if axis_name is None:
        return _jitted_batch_norm(x, scale, bias, epsilon)
    if isinstance(axis_name, list):
        axis_name = tuple(axis_name)
    return _jitted_over_devices(x, scale, bias, epsilon, axis_name)


def batch_norm_inference(
    x: Array,
    mean: Array,
    var: Array,
    scale: Array | None,
    bias: Array | None,
    *,
    epsilon: float = 1e-5,
) -> Array:
    """`batch_norm` with a mean and a variance that are given, with a hand-derived gradient.

    `y = (x - mean) / sqrt(var + epsilon) * scale + bias`

    Args:
        x: `(*batch_and_spatial, C)`, of floating dtype.
        mean: `(C,)`, of floating dtype.
        var: `(C,)`, of floating dtype.
        scale: `(C,)`, of floating dtype, or None.
        bias: `(C,)`, of floating dtype, or None.
        epsilon: added to the variance; a static number, not negative.

    Returns:
        `y` like `x`.

    Raises:
        TypeError: a dtype is not floating, or `epsilon` no number.
        ValueError: the shapes do not fit, or `epsilon` is negative.

    Gradient (`batch_norm_inference_bwd`): `dx = r scale dy`, `dscale = sum (x - mean) r dy`,
    `dbias = sum dy`, `dmean = -r scale dbias` and `dvar = -r^2 scale dscale / 2`, with
    `r = 1 / sqrt(var + epsilon)`; derived at the top of this module.

    >>> x, mean, var = jnp.array([[1.0], [5.0]]), jnp.array([3.0]), jnp.array([4.0])
    >>> batch_norm_inference(x, mean, var, jnp.array([10.0]), None, epsilon=0.0)
    Array([[-10.],
           [ 10.]], dtype=float32)
    """
    function = "batch_norm_inference"
    _check.floating(function, x=x, scale=scale, bias=bias)
    for name, moment in (("mean", mean), ("var", var)):
        if moment is None:
            raise TypeError(f"{function}: `{name}` must be an array, got None")
        _check.floating(function, **{name: moment})
    _per_channel(function, x, mean=mean, var=var, scale=scale, bias=bias)
    return _jitted_batch_norm_inference(x, mean, var, scale, bias, _epsilon(function, epsilon))


def layer_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    axis: int | Sequence[int] = -1,
    epsilon: float = 1e-6,
) -> Array:
    """Normalises along an axis or several: `flax.linen.LayerNorm` with a hand-derived gradient.

    `y = (x - mean) / sqrt(var + epsilon) * scale + bias`

    Args:
        x: `(..., C)`, of floating dtype.
        scale: `(C,)`, of floating dtype, or None. (Along the last axis, whatever `axis` is: as in
            flax.)
        bias: `(C,)`, of floating dtype, or None.
        axis: along which the moments are taken.
        epsilon: added to the variance; a static number, not negative.

    Returns:
        `y` like `x`. (flax's is of the dtype that `x`, `scale` and `bias` promote to.)

    Raises:
        TypeError: a dtype is not floating, `axis` holds no integers, or `epsilon` is no number.
        ValueError: the shapes do not fit, `axis` is not one of `x`, or `epsilon` is negative.

    Gradient (`layer_norm_bwd`): `dx = r (dn - E[dn] - n E[n dn])`, `dscale = sum n dy` and
    `dbias = sum dy`, with `n = (x - mean) r`, `r = 1 / sqrt(var + epsilon)`, `dn = scale dy` and E
    the mean along `axis`; derived at the top of this module.

    >>> layer_norm(jnp.array([[1.0, 3.0], [0.0, 8.0]]), jnp.array([1.0, 2.0]), epsilon=0.0)
    Array([[-1.,  2.],
           [-1.,  2.]], dtype=float32)
    """
    _check.floating("layer_norm", x=x, scale=scale, bias=bias)
    _per_channel("layer_norm", x, scale=scale, bias=bias)
    axes = _axes("layer_norm", x, axis)
    return _jitted_layer_norm(x, scale, bias, axes, _epsilon("layer_norm", epsilon))


def group_norm(
    x: Array,
    scale: Array | None = None,
    bias: Array | None = None,
    *,
    num_groups: int,
    epsilon: float = 1e-6,
) -> Array:
    """Normalises groups of an image's channels: `flax.linen.GroupNorm`, gradient derived by hand.

    `y = (x - mean) / sqrt(var + epsilon) * scale + bias`

    Args:
        x: `(N, *spatial, C)`, of floating dtype. The moments are taken over the spatial axes and
            the channels of a group, which lie next to each other.
        scale: `(C,)`, of floating dtype, or None.
        bias: `(C,)`, of floating dtype, or None.
        num_groups: divides C. C groups are known as instance norm.
        epsilon: added to the variance; a static number, not negative.

    Returns:
        `y` like `x`. (flax's is of the dtype that `x`, `scale` and `bias` promote to.)

    Raises:
        TypeError: a dtype is not floating, `num_groups` no integer, or `epsilon` no number.
        ValueError: the shapes do not fit, or `epsilon` is negative.

    Gradient (`group_norm_bwd`): that of `layer_norm`, of each group on its own; derived at the top
    of this module.

    >>> group_norm(jnp.array([[1.0, 3.0, 0.0, 8.0]]), num_groups=2, epsilon=0.0)
    Array([[-1.,  1., -1.,  1.]], dtype=float32)
    """
    _check.floating("group_norm", x=x, scale=scale, bias=bias)
    if x.ndim < 2:
        raise ValueError(f"group_norm: `x` must have shape (N, *spatial, C), got {x.shape}")
    _per_channel("group_norm", x, scale=scale, bias=bias)
    try:
        num_groups = operator.index(num_groups)
    except TypeError:
        raise TypeError(
            f"group_norm: `num_groups` must be an integer, got {num_groups!r}"
        ) from None
    if num_groups < 1 or x.shape[-1] % num_groups:
        raise ValueError(
            f"group_norm: `num_groups` {num_groups} must divide the {x.shape[-1]} channels of `x` "
            f"of shape {x.shape}"
        )
    return _jitted_group_norm(x, scale, bias, num_groups, _epsilon("group_norm", epsilon))


def _per_channel(function: str, x: Array, **parameters: Array | None) -> None:
    """All have the shape `(C,)`, or are None."""
    if x.ndim == 0:
        raise ValueError(f"{function}: `x` must have an axis of channels, got a scalar")
    for name, parameter in parameters.items():
        if parameter is not None and parameter.shape != x.shape[-1:]:
            raise ValueError(
                f"{function}: `{name}` must have shape {x.shape[-1:]}, one entry for each channel "
                f"of `x` of shape {x.shape}, got {parameter.shape}"
            )


def check_batch_norm(
    function: str, x: Array, scale: Array | None, bias: Array | None, epsilon: float
) -> float:
    """`epsilon`, when all arguments fit."""
    _check.floating(function, x=x, scale=scale, bias=bias)
    _per_channel(function, x, scale=scale, bias=bias)
    return _epsilon(function, epsilon)


def _epsilon(function: str, epsilon: float) -> float:
    if not isinstance(epsilon, int | float):
        raise TypeError(f"{function}: `epsilon` must be a static number, got {epsilon!r}")
    if not epsilon >= 0:
        raise ValueError(f"{function}: `epsilon` must not be negative, got {epsilon!r}")
    return float(epsilon)


def _axes(function: str, x: Array, axis: int | Sequence[int]) -> tuple[int, ...]:
    """The axes counted from the front, in order."""
    try:
        given = [
            operator.index(entry) for entry in (axis if isinstance(axis, Sequence) else [axis])
        ]
    except TypeError:
        raise TypeError(f"{function}: `axis` must hold integers, got {axis!r}") from None
    axes = sorted({entry + x.ndim if entry < 0 else entry for entry in given})
    if len(axes) < len(given) or not all(0 <= entry < x.ndim for entry in axes):
        raise ValueError(
            f"{function}: `axis` {axis!r} must name axes of `x` of shape {x.shape}, each once"
        )
    return tuple(axes)


# The rules ---------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _batch_norm(
    x: Array, scale: Array | None, bias: Array | None, epsilon: float
) -> tuple[Array, Moments]:
    return batch_norm_fwd(x, scale, bias, epsilon)[0]


def batch_norm_fwd(
    x: Array, scale: Array | None, bias: Array | None, epsilon: float
) -> tuple[tuple[Array, Moments], Residuals]:
    """`y` and `(mean, var)` by (1), (2), (3), and the residuals `(x, mean, r, scale, bias)`."""
    mean = _wide(x).mean(_batch(x))
    var = variance_fwd(x, mean)[0]
    r = lax.rsqrt(var + epsilon)
    # `after`: or else x - mean, which is in the variance too, would be written to memory for both.
    y = batch_norm_y(x, after(mean, r), r, scale, bias)
    return (y, (mean, var)), (x, mean, r, scale, bias)


def batch_norm_y(x: Array, mean: Array, r: Array, scale: Array | None, bias: Array | None) -> Array:
    """`y` by (2) and (3)."""
    return _scaled(_normalized(x, mean, r), scale, bias).astype(x.dtype)


def batch_norm_bwd(
    epsilon: float, residuals: Residuals, cotangents: tuple[Array, Moments]
) -> tuple[Array | None, Array | None, Array | None]:
    """`(dx, dscale, dbias)` by (5), (7) and (8), from the residuals and the cotangents."""
    x, mean, r, scale, bias = residuals
    dy, (dmean, dvar) = cotangents
    x_wide, dy, m = _wide(x), _wide(dy), math.prod(x.shape[:-1])
    dbias = dy.sum(_batch(x))  # (5)
    over_r = ((x_wide - _row(after(mean, dbias), x_wide)) * dy).sum(_batch(x))
    dscale = r * over_r if m else over_r  # (5); of no elements, r is NaN
    mean_dn, mean_n_dn = _scaled(dbias, scale) / m, _scaled(dscale, scale) / m  # (7)
    # `after`: or else x - mean, which is in that sum too, would be written to memory for both.
    from_mean = x_wide - _row(after(mean, over_r), x_wide)
    dx = _row(_scaled(r, scale), dy) * dy  # (8)
    dx = dx + _row(2 * dvar / m - r * r * mean_n_dn, dy) * from_mean
    dx = dx + _row(dmean / m - r * mean_dn, dy)
    return _cotangent.match(dx, x), _matched(dscale, scale), _matched(dbias, bias)


_batch_norm.defvjp(batch_norm_fwd, batch_norm_bwd)
_jitted_batch_norm = jax.jit(_batch_norm, static_argnums=3)


@jax.custom_vjp
def _variance(x: Array, mean: Array) -> Array:
    return variance_fwd(x, mean)[0]


def variance_fwd(x: Array, mean: Array) -> tuple[Array, Moments]:
    """This device's own `var` by (1), around a mean over all; the residuals are the arguments."""
    wide = _wide(x)
    return jnp.square(wide - _row(mean, wide)).mean(_batch(x)), (x, mean)


def variance_bwd(residuals: Moments, dvar: Array) -> tuple[Array | None, None]:
    """`(dx, None)` by (6), from the residuals and a cotangent that is the same on all devices."""
    x, mean = residuals
    wide = _wide(x)
    dx = (wide - _row(mean, wide)) * _row(2 * dvar / math.prod(x.shape[:-1]), wide)
    return _cotangent.match(dx, x), None


_variance.defvjp(variance_fwd, variance_bwd)


def _over_devices(
    x: Array, scale: Array | None, bias: Array | None, epsilon: float, axis_name: AxisName
) -> tuple[Array, Moments]:
    """Batch norm over devices, of the rules before and after this."""
    wide = _wide(x)
    mean = lax.pmean(wide.mean(_batch(x)), axis_name)
    var = lax.pmean(_variance(wide, mean), axis_name)
    y = _batch_norm_inference(wide, mean, var, scale, bias, epsilon)
    return y.astype(x.dtype), (mean, var)


_jitted_over_devices = jax.jit(_over_devices, static_argnums=(3, 4))


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _batch_norm_inference(
    x: Array, mean: Array, var: Array, scale: Array | None, bias: Array | None, epsilon: float
) -> Array:
    return batch_norm_inference_fwd(x, mean, var, scale, bias, epsilon)[0]


def batch_norm_inference_fwd(
    x: Array, mean: Array, var: Array, scale: Array | None, bias: Array | None, epsilon: float
) -> tuple[Array, Given]:
    """`y` by (2) and (3), and as the residuals the arguments."""
    r = lax.rsqrt(_wide(var) + epsilon)
    return batch_norm_y(x, mean, r, scale, bias), (x, mean, var, scale, bias)


def batch_norm_inference_bwd(
    epsilon: float, residuals: Given, dy: Array
) -> tuple[Array | None, Array | None, Array | None, Array | None, Array | None]:
    """`(dx, dmean, dvar, dscale, dbias)` by (5) and (9), from the residuals and the cotangent."""
    x, mean, var, scale, bias = residuals
    r = lax.rsqrt(_wide(var) + epsilon)
    n, dy = _normalized(x, mean, r), _wide(dy)
    r = r.astype(n.dtype)
    dscale, dbias = (n * dy).sum(_batch(x)), dy.sum(_batch(x))  # (5)
    dx = _row(r, n) * _scaled(dy, scale)
    dmean = -r * _scaled(dbias, scale)
    dvar = -r * r * _scaled(dscale, scale) / 2
    moments = _cotangent.match(dmean, mean), _cotangent.match(dvar, var)
    return _cotangent.match(dx, x), *moments, _matched(dscale, scale), _matched(dbias, bias)


_batch_norm_inference.defvjp(batch_norm_inference_fwd, batch_norm_inference_bwd)
_jitted_batch_norm_inference = jax.jit(_batch_norm_inference, static_argnums=5)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _layer_norm(
    x: Array, scale: Array | None, bias: Array | None, axes: tuple[int, ...], epsilon: float
) -> Array:
    return layer_norm_fwd(x, scale, bias, axes, epsilon)[0]


def layer_norm_fwd(
    x: Array, scale: Array | None, bias: Array | None, axes: tuple[int, ...], epsilon: float
) -> tuple[Array, Residuals]:
    """`y` by (1), (2), (3), and the residuals `(x, mean, r, scale, bias)`."""
    wide = _wide(x)
    mean = wide.mean(axes, keepdims=True)
    r = lax.rsqrt(jnp.square(wide - mean).mean(axes, keepdims=True) + epsilon)
    y = _scaled(_normalized(x, mean, r), scale, bias).astype(x.dtype)
    return y, (x, mean, r, scale, bias)


def layer_norm_bwd(
    axes: tuple[int, ...], epsilon: float, residuals: Residuals, dy: Array
) -> tuple[Array | None, Array | None, Array | None]:
    """`(dx, dscale, dbias)` by (4) and (5), from the residuals and the output's cotangent."""
    x, mean, r, scale, bias = residuals
    n, dy = _normalized(x, mean, r), _wide(dy)
    dn = _scaled(dy, scale)
    mean_dn, mean_n_dn = (v.mean(axes, keepdims=True) for v in (dn, n * dn))
    dx = r * (dn - mean_dn - n * mean_n_dn)  # (4)
    dscale, dbias = _matched(n * dy, scale), _matched(dy, bias)  # (5)
    return _cotangent.match(dx, x), dscale, dbias


_layer_norm.defvjp(layer_norm_fwd, layer_norm_bwd)
_jitted_layer_norm = jax.jit(_layer_norm, static_argnums=(3, 4))


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _group_norm(
    x: Array, scale: Array | None, bias: Array | None, num_groups: int, epsilon: float
) -> Array:
    return group_norm_fwd(x, scale, bias, num_groups, epsilon)[0]


def group_norm_fwd(
    x: Array, scale: Array | None, bias: Array | None, num_groups: int, epsilon: float
) -> tuple[Array, Residuals]:
    """`y` by (1), (2), (3), and the residuals `(x, mean, r, scale, bias)`.

    Mean and r are `(N, groups)`. A mean is first over the positions, then over the channels of a
    group: x itself is never split.
    """
    wide, positions = _wide(x), tuple(range(1, x.ndim - 1))
    mean = _group_mean(wide.mean(positions), num_groups)
    var = jnp.square(wide - _spread(mean, x)).mean(positions)
    r = lax.rsqrt(_group_mean(var, num_groups) + epsilon)
    y = _scaled(_normalized(x, _spread(mean, x), _spread(r, x)), scale, bias).astype(x.dtype)
    return y, (x, mean, r, scale, bias)


def group_norm_bwd(
    num_groups: int, epsilon: float, residuals: Residuals, dy: Array
) -> tuple[Array | None, Array | None, Array | None]:
    """`(dx, dscale, dbias)` by (4), (5) and (7), from the residuals and the output's cotangent."""
    x, mean, r, scale, bias = residuals
    r = _spread(r, x)
    n, dy = _normalized(x, _spread(mean, x), r), _wide(dy)
    positions, count = tuple(range(1, x.ndim - 1)), math.prod(x.shape[1:-1])
    sums = (n * dy).sum(positions), dy.sum(positions)  # (5), of each image
    mean_n_dn, mean_dn = (
        _spread(_group_mean(_scaled(total, scale) / count, num_groups), x) for total in sums
    )  # (7)
    dx = r * (_scaled(dy, scale) - mean_dn - n * mean_n_dn)  # (4)
    return _cotangent.match(dx, x), _matched(sums[0], scale), _matched(sums[1], bias)


_group_norm.defvjp(group_norm_fwd, group_norm_bwd)
_jitted_group_norm = jax.jit(_group_norm, static_argnums=(3, 4))


# What they share ---------------------------------------------------------------------------------


def _normalized(x: Array, mean: Array, r: Array) -> Array:
    """`n` by (2), in float32 or wider."""
    wide = _wide(x)
    return (wide - _row(mean, wide)) * _row(r, wide)


def _scaled(n: Array, scale: Array | None, bias: Array | None = None) -> Array:
    """`n scale + bias`, either left out where it is None."""
    if scale is not None:
        n = n * _row(scale, n)
    return n if bias is None else n + _row(bias, n)


def _matched(cotangent: Array, parameter: Array | None) -> Array | None:
    """The cotangent of a parameter, summed over the axes that the parameter does not have."""
    return None if parameter is None else _cotangent.match(cotangent, parameter)


def _batch(x: Array) -> tuple[int, ...]:
    """All axes but the last."""
    return tuple(range(x.ndim - 1))


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _row(values: Array, x: Array) -> Array:
    """`values` of the last axes of `x`, with axes of size 1 for the others, in the dtype of `x`."""
    return jnp.expand_dims(values.astype(x.dtype), range(x.ndim - values.ndim))


def _group_mean(values: Array, num_groups: int) -> Array:
    """`(N, C)` to `(N, groups)`: the mean over the channels of each group."""
    return values.reshape(values.shape[0], num_groups, values.shape[-1] // num_groups).mean(-1)


def _spread(values: Array, x: Array) -> Array:
    """`(N, groups)` to `(N, 1, ..., 1, C)`: a group's number at each of its channels in `x`."""
    images, groups = values.shape
    each = jnp.broadcast_to(values[..., None], (images, groups, x.shape[-1] // groups))
    return jnp.expand_dims(each.reshape(images, x.shape[-1]), range(1, x.ndim - 1))
