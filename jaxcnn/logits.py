"""From logits to probabilities, and to their logarithms.

Shape: z (the logits), y and the cotangent dy = dL/dy are all alike; sums run over `axis`, and j, k
count along it. (The notes' softmax sums over i and indexes z_k; the index of the sum is k.)

Softmax:

    y_j = exp(z_j) / sum_k exp(z_k)                                                            (1)

Its differential is dy_j = y_j (z'_j - sum_k y_k z'_k), a prime marking a perturbation, so

    <dy, y'> = sum_j dy_j y_j z'_j - (sum_j dy_j y_j) (sum_k y_k z'_k)
    dz_k = y_k (dy_k - sum_j dy_j y_j)                                                         (2)

The Jacobian diag(y) - y y^T is never formed. Residuals: y, which autodiff keeps, too, and where
elements take part.

Log-softmax:

    y_j = z_j - log sum_k exp(z_k)                                                             (3)
    y'_j = z'_j - sum_k p_k z'_k,  p = softmax(z)
    dz_k = dy_k - p_k sum_j dy_j                                                               (4)

Residuals: exp(z) and its sum, the quotient of which is p: here sum_j dy_j is divided by it, and not
each exp(z_k). (p is exp(y), too, but that would cost as many exponentials again.)

Log-sum-exp, with factors b (1 where none are given):

    y = log |u|,  u = sum_k b_k exp(z_k)                                                       (5)
    y' = sum_k (b_k exp(z_k) z'_k + exp(z_k) b'_k) / u
    dz_k = b_k exp(z_k) / u · dy                      db_k = exp(z_k) / u · dy                 (6)

Residuals: z, b and y. All three subtract the largest logit first, which changes nothing in (1)
and (3) and keeps exp from overflowing: logits of 1e4 are as good as those of 1.

`where` takes elements out of the sums: their y is 0 (or -inf, for the logarithm) whatever their z,
so their dz is 0 and their dy has no say.

Source: Bridle, "Probabilistic interpretation of feedforward classification network outputs", 1990.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxcnn import _check, _cotangent

Axis = int | tuple[int, ...] | None


def softmax(x: ArrayLike, axis: Axis = -1, where: Array | None = None) -> Array:
    """Probabilities of logits: `jax.nn.softmax` with a hand-derived gradient.

    `y_j = exp(x_j) / sum_k exp(x_k)`

    Args:
        x: the logits, of any shape and dtype; integers count as floating.
        axis: the axis, or axes, along which the result sums to 1; None is all of them.
        where: boolean, broadcast against `x`: the elements that take part. Others are 0.

    Returns:
        An array like `x`.

    Raises:
        TypeError: `x` is no array or number, or `where` not boolean.

    Gradient (`softmax_bwd`): `dx_k = y_k (dy_k - sum_j dy_j y_j)`; derived at the top of this file.

    The logits of the notes. They print (0.05, 0.7, 0.2, 0.05) for them, which is not their softmax:

    >>> y = softmax(jnp.array([0.23, 0.89, 0.45, 0.12]))
    >>> [f"{probability:.3f}" for probability in y]
    ['0.197', '0.381', '0.245', '0.176']
    >>> int(y.argmax()) + 1  # the output class is y2
    2
    """
    x = _check.inexact("softmax", x=x)
    _check.boolean("softmax", where=where)
    return _jitted_softmax(x, where, _hashable(axis))


def log_softmax(x: ArrayLike, axis: Axis = -1, where: Array | None = None) -> Array:
    """Logarithms of the probabilities of logits: `jax.nn.log_softmax`, gradient derived by hand.

    `y_j = x_j - log sum_k exp(x_k)`

    Args:
        x, axis, where: as `softmax`. Elements that take no part are -inf.

    Returns:
        An array like `x`.

    Raises:
        TypeError: `x` is no array or number, or `where` not boolean.

    Gradient (`log_softmax_bwd`): `dx_k = dy_k - softmax(x)_k sum_j dy_j`; derived at the top of
    this module.

    >>> log_softmax(jnp.array([0.0, 1e4]))
    Array([-10000.,      0.], dtype=float32)
    """
    x = _check.inexact("log_softmax", x=x)
    _check.boolean("log_softmax", where=where)
    return _jitted_log_softmax(x, where, _hashable(axis))


def logsumexp(
    a: ArrayLike,
    axis: Axis = None,
    b: ArrayLike | None = None,
    keepdims: bool = False,
    return_sign: bool = False,
    where: Array | None = None,
) -> Array | tuple[Array, Array]:
    """`log |sum_k b_k exp(a_k)|`: `jax.nn.logsumexp` with a hand-derived gradient.

    Args:
        a: of any shape and real dtype.
        axis: the axis, or axes, that the sum runs over; None is all of them.
        b: factors, which broadcast with `a`; None is 1. A factor of 0 takes its element out.
        keepdims: whether the result keeps those axes, with size 1.
        return_sign: whether to return the sum's sign, too. Without it a negative sum gives NaN.
        where: boolean, broadcast against `a`: the elements that take part.

    Returns:
        The logarithm, or a pair of it and the sign: 1, 0 or -1.

    Raises:
        TypeError: `a` or `b` is no array or number, or `where` not boolean.

    Gradient (`logsumexp_bwd`): `da_k = b_k exp(a_k) / sum dy` and `db_k = exp(a_k) / sum dy`;
    derived at the top of this module.

    >>> logsumexp(jnp.array([1e4, 1e4]))
    Array(10000.693, dtype=float32)
    """
    _check.boolean("logsumexp", where=where)
    if b is None:
        a, factors = _check.inexact("logsumexp", a=a), None
    else:
        a, factors = _check.promoted("logsumexp", a=a, b=b)
        a = jnp.broadcast_to(a, jnp.broadcast_shapes(a.shape, factors.shape))
    y, sign = _jitted_logsumexp(a, factors, where, _hashable(axis), bool(keepdims))
    if return_sign:
        return y, sign
    return y if factors is None else masked(y, sign >= 0, jnp.nan)


# The rules ---------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _softmax(x: Array, where: Array | None, axis: Axis) -> Array:
    return softmax_fwd(x, where, axis)[0]


def softmax_fwd(
    x: Array, where: Array | None, axis: Axis
) -> tuple[Array, tuple[Array, Array | None]]:
    """`y` by (1), and the residuals `(y, where)`."""
    exp = jnp.exp(_shifted(x, where, axis))
    y = exp / exp.sum(axis, keepdims=True, where=where)
    y = masked(y, where, 0)
    return y, (y, where)


def softmax_bwd(axis: Axis, residuals: tuple[Array, Array | None], dy: Array) -> tuple[Array, None]:
    """`(dx, None)` by (2), from the residuals of `softmax_fwd` and the output's cotangent."""
    y, where = residuals
    dx = y * (dy - (dy * y).sum(axis, keepdims=True))
    return masked(dx, where, 0), None  # for 0 times a sum that is not finite is NaN


_softmax.defvjp(softmax_fwd, softmax_bwd)
_jitted_softmax = jax.jit(_softmax, static_argnums=2)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _log_softmax(x: Array, where: Array | None, axis: Axis) -> Array:
    return log_softmax_fwd(x, where, axis)[0]


def log_softmax_fwd(
    x: Array, where: Array | None, axis: Axis
) -> tuple[Array, tuple[Array, Array, Array | None]]:
    """`y` by (3), and the residuals `(exp, its sum, where)`."""
    shifted = _shifted(x, where, axis)
    exp = jnp.exp(shifted)
    total = exp.sum(axis, keepdims=True, where=where)
    y = masked(shifted - jnp.log(total), where, -jnp.inf)
    return y, (masked(exp, where, 0), total, where)


def log_softmax_bwd(
    axis: Axis, residuals: tuple[Array, Array, Array | None], dy: Array
) -> tuple[Array, None]:
    """`(dx, None)` by (4), from the residuals of `log_softmax_fwd` and the output's cotangent."""
    exp, total, where = residuals
    if where is not None:  # in a sum of nothing there is no p
        total = jnp.where(total == 0, jnp.ones((), total.dtype), total)
    dy = masked(dy, where, 0)
    dx = dy - exp * (dy.sum(axis, keepdims=True) / total)
    return masked(dx, where, 0), None  # as in `softmax_bwd`


_log_softmax.defvjp(log_softmax_fwd, log_softmax_bwd)
_jitted_log_softmax = jax.jit(_log_softmax, static_argnums=2)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def _logsumexp(
    z: Array, b: Array | None, where: Array | None, axis: Axis, keepdims: bool
) -> tuple[Array, Array]:
    return logsumexp_fwd(z, b, where, axis, keepdims)[0]


SumResiduals = tuple[Array, Array | None, Array, Array, Array | None]


def logsumexp_fwd(
    z: Array, b: Array | None, where: Array | None, axis: Axis, keepdims: bool
) -> tuple[tuple[Array, Array], SumResiduals]:
    """`(y, sign u)` by (5), and the residuals `(z, b, largest z, u / exp largest, where)`."""
    z = masked(z, where, -jnp.inf)
    if b is not None:
        z = masked(z, b != 0, -jnp.inf)
    largest = jax.lax.stop_gradient(z.max(axis, keepdims=True, initial=-jnp.inf))
    largest = masked(largest, jnp.isfinite(largest), 0)
    exp = jnp.exp(z - largest)
    u = (exp if b is None else b * exp).sum(axis, keepdims=True)
    y, sign = jnp.log(jnp.abs(u)) + largest, jnp.sign(u)
    if not keepdims:
        y, sign = y.squeeze(axis), sign.squeeze(axis)
    return (y, sign), (z, b, largest, u, where)


def logsumexp_bwd(
    axis: Axis, keepdims: bool, residuals: SumResiduals, dout: tuple[Array, Array]
) -> tuple[Array | None, Array | None, None]:
    """`(dz, db, None)` by (6), from the residuals and the outputs' cotangents. A sign has none."""
    z, b, largest, u, where = residuals
    dy, _ = dout
    if not keepdims:
        dy = jnp.expand_dims(dy, range(z.ndim) if axis is None else axis)
    db = masked(jnp.exp(z - largest) / u * dy, where, 0)
    if b is None:
        return _cotangent.match(db, z), None, None
    return _cotangent.match(b * db, z), _cotangent.match(db, b), None


_logsumexp.defvjp(logsumexp_fwd, logsumexp_bwd)
_jitted_logsumexp = jax.jit(_logsumexp, static_argnums=(3, 4))


# Shared by the three -----------------------------------------------------------------------------


def _shifted(x: Array, where: Array | None, axis: Axis) -> Array:
    """The logits less the largest of them: 0 at most. -inf where an element takes no part."""
    x = masked(x, where, -jnp.inf)
    # The shift cancels in the result, and therefore in its second derivatives.
    return x - jax.lax.stop_gradient(x.max(axis, keepdims=True, initial=-jnp.inf))


def masked(x: Array, where: Array | None, value: float) -> Array:
    """`x`, with `value` in place of the elements that take no part."""
    return x if where is None else jnp.where(where, x, jnp.array(value, x.dtype))


def _hashable(axis: Axis) -> Axis:
    return tuple(axis) if isinstance(axis, list) else axis
