"""Smooth activations: one function of one element, applied to each.

As in `activations.py`, dx = f'(x) · dy. With s = sigmoid(x), P and p the normal distribution's
cumulative and density function:

    sigmoid       1 / (1 + exp(-x))               y (1 - y)                                    (1)
    tanh          (exp x - exp -x) / (exp x + exp -x)    1 - y^2                               (2)
    softplus      log(1 + exp x)                  s                                            (3)
    log_sigmoid   -softplus(-x)                   sigmoid(-x)                                  (4)
    silu          x s                             s + x s (1 - s)                              (5)
    gelu          x P(x)                          P(x) + x p(x)                                (6)
    mish          x t,  t = tanh(softplus x)      t + x (1 - t^2) s                            (7)
    glu           a sigmoid(b),  [a, b] = x       da = s dy,  db = a s (1 - s) dy, s of b      (8)

gelu's usual approximation is P(x) = (1 + tanh u) / 2, u = sqrt(2/pi) (x + 0.044715 x^3), and its
derivative (1 - tanh^2 u) u' / 2 then stands where p(x) does.

Residuals: y where f' can be told from it, (1) and (2); else x. Autodiff keeps the same or more.

Sources: Elfwing et al., 2018 (silu); Hendrycks and Gimpel, 2016 (gelu); Misra, 2019 (mish); Dauphin
et al., 2017 (glu).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from jaxcnn import _check


def sigmoid(x: ArrayLike) -> Array:
    """`1 / (1 + exp(-x))`: `jax.nn.sigmoid` with a hand-derived gradient.

    Args:
        x: an array of any shape and dtype.

    Returns:
        An array like `x`, of inexact dtype. (So it is for all functions here.)

    Raises:
        TypeError: `x` is no array or number.

    Gradient (`sigmoid_bwd`): `dx = y (1 - y) dy`.

    >>> jax.grad(sigmoid)(0.0)
    Array(0.25, dtype=float32, weak_type=True)
    """
    return _jitted_sigmoid(_check.inexact("sigmoid", x=x))


def tanh(x: ArrayLike) -> Array:
    """The hyperbolic tangent: `jax.nn.tanh` with a hand-derived gradient.

    Gradient (`tanh_bwd`): `dx = (1 - y^2) dy`.

    >>> jax.grad(tanh)(0.0)
    Array(1., dtype=float32, weak_type=True)
    """
    return _jitted_tanh(_check.inexact("tanh", x=x))


def softplus(x: ArrayLike) -> Array:
    """`log(1 + exp(x))`: `jax.nn.softplus` with a hand-derived gradient.

    Gradient (`softplus_bwd`): `dx = sigmoid(x) dy`.

    >>> jax.grad(softplus)(0.0)
    Array(0.5, dtype=float32, weak_type=True)
    """
    return _jitted_softplus(_check.inexact("softplus", x=x))


def log_sigmoid(x: ArrayLike) -> Array:
    """`log(sigmoid(x))`: `jax.nn.log_sigmoid` with a hand-derived gradient.

    Gradient (`log_sigmoid_bwd`): `dx = sigmoid(-x) dy`.

    >>> log_sigmoid(-1e4)
    Array(-10000., dtype=float32)
    """
    return _jitted_log_sigmoid(_check.inexact("log_sigmoid", x=x))


def silu(x: ArrayLike) -> Array:
    """`x sigmoid(x)`: `jax.nn.silu` (or swish) with a hand-derived gradient.

    Gradient (`silu_bwd`): `dx = (s + x s (1 - s)) dy` with `s = sigmoid(x)`.

    >>> jax.grad(silu)(0.0)
    Array(0.5, dtype=float32, weak_type=True)
    """
    return _jitted_silu(_check.inexact("silu", x=x))


def gelu(x: ArrayLike, approximate: bool = True) -> Array:
    """`x P(x)`, P the normal cumulative distribution: `jax.nn.gelu`, gradient derived by hand.

    `approximate` takes `P(x) = (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2`.

    Gradient (`gelu_bwd`): `dx = (P(x) + x P'(x)) dy`.

    >>> jax.grad(gelu)(0.0)
    Array(0.5, dtype=float32, weak_type=True)
    """
    return _jitted_gelu(_check.inexact("gelu", x=x), bool(approximate))


def mish(x: ArrayLike) -> Array:
    """`x tanh(softplus(x))`: `jax.nn.mish` with a hand-derived gradient.

    Gradient (`mish_bwd`): `dx = (t + x (1 - t^2) sigmoid(x)) dy` with `t = tanh(softplus(x))`.

    >>> jax.grad(mish)(0.0)
    Array(0.6, dtype=float32, weak_type=True)
    """
    return _jitted_mish(_check.inexact("mish", x=x))


def glu(x: ArrayLike, axis: int = -1) -> Array:
    """`a sigmoid(b)`, the two halves of `x` along `axis`: `jax.nn.glu`, gradient derived by hand.

    The size of `axis` is even, and half of it in the result; else a ValueError is raised.

    Gradient (`glu_bwd`): `da = sigmoid(b) dy` and `db = a sigmoid(b) (1 - sigmoid(b)) dy`.

    >>> glu(jnp.array([3.0, 0.0]))
    Array([1.5], dtype=float32)
    """
    x = _check.inexact("glu", x=x)
    if not -x.ndim <= axis < x.ndim or x.shape[axis] % 2:
        raise ValueError(f"glu: `x` of shape {x.shape} must have an even size along axis {axis}")
    return _jitted_glu(x, axis)


# The rules ---------------------------------------------------------------------------------------


@jax.custom_vjp
def _sigmoid(x: Array) -> Array:
    return sigmoid_fwd(x)[0]


def sigmoid_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, which is the residual, too."""
    y = lax.logistic(x)
    return y, y


def sigmoid_bwd(y: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (1), from the residual of `sigmoid_fwd` and the output's cotangent."""
    return (y * (1 - y) * dy,)


_sigmoid.defvjp(sigmoid_fwd, sigmoid_bwd)
_jitted_sigmoid = jax.jit(_sigmoid)


@jax.custom_vjp
def _tanh(x: Array) -> Array:
    return tanh_fwd(x)[0]


def tanh_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, which is the residual, too."""
    y = jnp.tanh(x)
    return y, y


def tanh_bwd(y: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (2), from the residual of `tanh_fwd` and the output's cotangent."""
    return ((1 - y) * (1 + y) * dy,)


_tanh.defvjp(tanh_fwd, tanh_bwd)
_jitted_tanh = jax.jit(_tanh)


@jax.custom_vjp
def _softplus(x: Array) -> Array:
    return softplus_fwd(x)[0]


def softplus_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, and as the residual `x`."""
    return jnp.logaddexp(x, jnp.zeros((), x.dtype)), x


def softplus_bwd(x: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (3), from the residual of `softplus_fwd` and the output's cotangent."""
    return (lax.logistic(x) * dy,)


_softplus.defvjp(softplus_fwd, softplus_bwd)
_jitted_softplus = jax.jit(_softplus)


@jax.custom_vjp
def _log_sigmoid(x: Array) -> Array:
    return log_sigmoid_fwd(x)[0]


def log_sigmoid_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, and as the residual `x`."""
    return -softplus_fwd(-x)[0], x


def log_sigmoid_bwd(x: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (4), from the residual of `log_sigmoid_fwd` and the output's cotangent."""
    return softplus_bwd(-x, dy)


_log_sigmoid.defvjp(log_sigmoid_fwd, log_sigmoid_bwd)
_jitted_log_sigmoid = jax.jit(_log_sigmoid)


@jax.custom_vjp
def _silu(x: Array) -> Array:
    return silu_fwd(x)[0]


def silu_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, and as the residual `x`."""
    return x * lax.logistic(x), x


def silu_bwd(x: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (5), from the residual of `silu_fwd` and the output's cotangent."""
    s = lax.logistic(x)
    return ((s + x * s * (1 - s)) * dy,)


_silu.defvjp(silu_fwd, silu_bwd)
_jitted_silu = jax.jit(_silu)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _gelu(x: Array, approximate: bool) -> Array:
    return gelu_fwd(x, approximate)[0]


def gelu_fwd(x: Array, approximate: bool) -> tuple[Array, Array]:
    """`y`, and as the residual `x`."""
    return x * _normal(x, approximate)[0], x


def gelu_bwd(approximate: bool, x: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (6), from the residual of `gelu_fwd` and the output's cotangent."""
    cumulative, density = _normal(x, approximate)
    return ((cumulative + x * density) * dy,)


_gelu.defvjp(gelu_fwd, gelu_bwd)
_jitted_gelu = jax.jit(_gelu, static_argnums=1)


def _normal(x: Array, approximate: bool) -> tuple[Array, Array]:
    """`P(x)`, the cumulative distribution, or its approximation, and the derivative of that."""
    if not approximate:
        density = jnp.exp(-x * x / 2) * math.sqrt(0.5 / math.pi)
        return lax.erfc(-x * math.sqrt(0.5)) / 2, density
    root = math.sqrt(2 / math.pi)
    t = jnp.tanh(root * (x + 0.044715 * x * x * x))
    return (1 + t) / 2, (1 - t) * (1 + t) * root * (1 + 3 * 0.044715 * x * x) / 2


@jax.custom_vjp
def _mish(x: Array) -> Array:
    return mish_fwd(x)[0]


def mish_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, and as the residual `x`."""
    return x * jnp.tanh(softplus_fwd(x)[0]), x


def mish_bwd(x: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (7), from the residual of `mish_fwd` and the output's cotangent."""
    t = jnp.tanh(softplus_fwd(x)[0])
    return ((t + x * (1 - t) * (1 + t) * lax.logistic(x)) * dy,)


_mish.defvjp(mish_fwd, mish_bwd)
_jitted_mish = jax.jit(_mish)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _glu(x: Array, axis: int) -> Array:
    return glu_fwd(x, axis)[0]


def glu_fwd(x: Array, axis: int) -> tuple[Array, Array]:
    """`y`, and as the residual `x`."""
    a, b = jnp.split(x, 2, axis)
    return a * lax.logistic(b), x


def glu_bwd(axis: int, x: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (8), from the residual of `glu_fwd` and the output's cotangent."""
    a, b = jnp.split(x, 2, axis)
    s = lax.logistic(b)
    return (jnp.concatenate([s * dy, a * s * (1 - s) * dy], axis),)


_glu.defvjp(glu_fwd, glu_bwd)
_jitted_glu = jax.jit(_glu, static_argnums=1)
