"""Activations with kinks: one function of one element, applied to each.

Shape: x, y and the cotangent dy = dL/dy are all alike. With y = f(x) elementwise, the inner product

    <dy, f'(x) · x'> = <dy · f'(x), x'>        so that        dx = f'(x) · dy                  (1)

and all that a rule needs to keep is what f'(x) can be worked out from. A parameter a of f, one for
many elements, is as if it were broadcast to each of them, and the adjoint of a copy is a sum:

    da = sum of df/da · dy                                                                     (2)

f and f' on either side of the kinks, and at them as in `jax.nn`:

    relu          max(x, 0)                       0 | 0 at 0 | 1
    relu6         min(max(x, 0), 6)               0 | 0 at 0 | 1 | 0 at 6 | 0
    hard_tanh     min(max(x, -1), 1)              0 | 1 at -1 | 1 | 1 at 1 | 0
    hard_sigmoid  relu6(x + 3) / 6                relu6'(x + 3) / 6
    hard_swish    x hard_sigmoid(x)               hard_sigmoid(x) + x hard_sigmoid'(x)
    leaky_relu    x if x >= 0 else a x            a | 1 at 0 | 1
    elu           x if x > 0 else a (exp x - 1)   a exp x | a at 0 | 1
    selu          elu(x, a) times a constant      elu' times the constant

(`jnp.maximum(x, 0)` would have a derivative of 0.5 at 0.) Residuals: for the first four, in which
f' takes two values, which of them, one byte an element; for the others x. Autodiff keeps the same
or more. NaN goes through forward, and takes the gradient that it has in `jax.nn`.

Sources: Nair and Hinton, 2010 (relu); Howard et al., "Searching for MobileNetV3", 2019 (the hard
ones); Maas et al., 2013 (leaky_relu); Clevert et al., 2016 (elu); Klambauer et al., 2017 (selu).
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxcnn import _check, _cotangent

# Klambauer et al., 2017: the fixed point of mean 0 and variance 1.
SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


def relu(x: ArrayLike) -> Array:
    """`max(x, 0)`: `jax.nn.relu` with a hand-derived gradient.

    Args:
        x: an array of any shape and real dtype.

    Returns:
        An array like `x`.

    Raises:
        TypeError: `x` is no array or number. (So it is for all functions here.)

    Gradient (`relu_bwd`): `dx = dy` where `x > 0`, else 0; and 0 at the kink.

    >>> relu(jnp.array([-1.0, 0.0, 2.0]))
    Array([0., 0., 2.], dtype=float32)
    >>> jax.grad(lambda x: relu(x).sum())(jnp.array([-1.0, 0.0, 2.0]))
    Array([0., 0., 1.], dtype=float32)
    """
    return _jitted_relu(_check.array("relu", x=x))


def relu6(x: ArrayLike) -> Array:
    """`min(max(x, 0), 6)`: `jax.nn.relu6` with a hand-derived gradient.

    `x` is an array of any shape and real dtype; so is the result, of floating dtype.

    Gradient (`relu6_bwd`): `dx = dy` where `0 < x < 6`, else 0; and 0 at the kinks.

    >>> jax.grad(lambda x: relu6(x).sum())(jnp.array([0.0, 2.0, 6.0]))
    Array([0., 1., 0.], dtype=float32)
    """
    return _jitted_relu6(_check.inexact("relu6", x=x))


def hard_tanh(x: ArrayLike) -> Array:
    """`min(max(x, -1), 1)`: `jax.nn.hard_tanh` with a hand-derived gradient.

    `x` is an array of any shape and real dtype; so is the result.

    Gradient (`hard_tanh_bwd`): `dx = dy` where `-1 <= x <= 1`, else 0; and 1 at the kinks.

    >>> jax.grad(lambda x: hard_tanh(x).sum())(jnp.array([-2.0, -1.0, 0.5]))
    Array([0., 1., 1.], dtype=float32)
    """
    return _jitted_hard_tanh(_check.array("hard_tanh", x=x))


def hard_sigmoid(x: ArrayLike) -> Array:
    """`relu6(x + 3) / 6`: `jax.nn.hard_sigmoid` with a hand-derived gradient.

    `x` is an array of any shape and real dtype; so is the result, of floating dtype.

    Gradient (`hard_sigmoid_bwd`): `dx = dy / 6` where `-3 < x < 3`, else 0; and 0 at the kinks.

    >>> jax.grad(lambda x: hard_sigmoid(x).sum())(jnp.array([-3.0, 0.0, 4.0]))
    Array([0.        , 0.16666667, 0.        ], dtype=float32)
    """
    return _jitted_hard_sigmoid(_check.inexact("hard_sigmoid", x=x))


def hard_swish(x: ArrayLike) -> Array:
    """`x relu6(x + 3) / 6`: `jax.nn.hard_swish` with a hand-derived gradient.

    `x` is an array of any shape and real dtype; so is the result, of floating dtype.

    Gradient (`hard_swish_bwd`): `dx = (relu6(x + 3) + x [-3 < x < 3]) / 6 dy`.

    >>> jax.grad(lambda x: hard_swish(x).sum())(jnp.array([-4.0, 0.0, 4.0]))
    Array([0. , 0.5, 1. ], dtype=float32)
    """
    return _jitted_hard_swish(_check.inexact("hard_swish", x=x))


def leaky_relu(x: ArrayLike, negative_slope: ArrayLike = 1e-2) -> Array:
    """`x` where `x >= 0`, else `negative_slope x`: `jax.nn.leaky_relu`, gradient derived by hand.

    `x` is an array of any shape and real dtype; so is the result, of floating dtype.
    `negative_slope` broadcasts with it, and has a gradient too.

    Gradient (`leaky_relu_bwd`): `dx = dy` where `x >= 0`, else `negative_slope dy`, and 1 at the
    kink; `dnegative_slope = sum of x dy where x < 0`.

    >>> jax.grad(lambda x: leaky_relu(x, 0.1).sum())(jnp.array([-2.0, 0.0, 2.0]))
    Array([0.1, 1. , 1. ], dtype=float32)
    >>> jax.grad(lambda slope: leaky_relu(jnp.array([-2.0, 0.0, 2.0]), slope).sum())(0.1)
    Array(-2., dtype=float32, weak_type=True)
    """
    return _jitted_leaky_relu(*_check.promoted("leaky_relu", x=x, negative_slope=negative_slope))


def elu(x: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    """`x` where `x > 0`, else `alpha (exp(x) - 1)`: `jax.nn.elu`, gradient derived by hand.

    `x` is an array of any shape and real dtype; so is the result, of floating dtype. `alpha`
    broadcasts with it, and has a gradient too.

    Gradient (`elu_bwd`): `dx = dy` where `x > 0`, else `alpha exp(x) dy`, at the kink too;
    `dalpha = sum of (exp(x) - 1) dy where x <= 0`.

    >>> jax.grad(lambda x: elu(x, 0.5).sum())(jnp.array([0.0, 2.0]))
    Array([0.5, 1. ], dtype=float32)
    """
    return _jitted_elu(*_check.promoted("elu", x=x, alpha=alpha))


def selu(x: ArrayLike) -> Array:
    """`1.0507 elu(x, 1.6733)`: `jax.nn.selu` with a hand-derived gradient.

    `x` is an array of any shape and real dtype; so is the result, of floating dtype.

    Gradient (`selu_bwd`): that of `elu`, times 1.0507.

    >>> jax.grad(lambda x: selu(x).sum())(jnp.array([0.0, 2.0]))
    Array([1.7580993, 1.050701 ], dtype=float32)
    """
    return _jitted_selu(_check.inexact("selu", x=x))


# The rules: f' of two values ---------------------------------------------------------------------


@jax.custom_vjp
def _relu(x: Array) -> Array:
    return relu_fwd(x)[0]


def relu_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, and as the residual where `f'(x)` is 1."""
    # A `where`, so that the derivative of this line, in second order, is (1) at the kink, too; on
    # `x <= 0`, so that NaN goes through.
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x), x > 0


def relu_bwd(passes: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (1), from the residual of `relu_fwd` and the output's cotangent."""
    return (jnp.where(passes, dy, jnp.zeros((), dy.dtype)),)


_relu.defvjp(relu_fwd, relu_bwd)
_jitted_relu = jax.jit(_relu)


@jax.custom_vjp
def _relu6(x: Array) -> Array:
    return relu6_fwd(x)[0]


def relu6_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, and as the residual where `f'(x)` is 1."""
    passes = (x > 0) & (x < 6)
    return jnp.where(passes, x, jnp.clip(jax.lax.stop_gradient(x), 0, 6)), passes


def relu6_bwd(passes: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (1), from the residual of `relu6_fwd` and the output's cotangent."""
    return relu_bwd(passes, dy)


_relu6.defvjp(relu6_fwd, relu6_bwd)
_jitted_relu6 = jax.jit(_relu6)


@jax.custom_vjp
def _hard_tanh(x: Array) -> Array:
    return hard_tanh_fwd(x)[0]


def hard_tanh_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, and as the residual where `f'(x)` is 1."""
    one = jnp.ones((), x.dtype)
    y = jnp.where(x > 1, one, jnp.where(x < -1, -one, x))
    return y, ~((x > 1) | (x < -1))


def hard_tanh_bwd(passes: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (1), from the residual of `hard_tanh_fwd` and the output's cotangent."""
    return relu_bwd(passes, dy)


_hard_tanh.defvjp(hard_tanh_fwd, hard_tanh_bwd)
_jitted_hard_tanh = jax.jit(_hard_tanh)


@jax.custom_vjp
def _hard_sigmoid(x: Array) -> Array:
    return hard_sigmoid_fwd(x)[0]


def hard_sigmoid_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, and as the residual where `f'(x)` is 1/6."""
    y, passes = relu6_fwd(x + 3)
    return y / 6, passes


def hard_sigmoid_bwd(passes: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (1), from the residual of `hard_sigmoid_fwd` and the output's cotangent."""
    return relu6_bwd(passes, dy / 6)


_hard_sigmoid.defvjp(hard_sigmoid_fwd, hard_sigmoid_bwd)
_jitted_hard_sigmoid = jax.jit(_hard_sigmoid)


# The rules: f' of any value ----------------------------------------------------------------------


@jax.custom_vjp
def _hard_swish(x: Array) -> Array:
    return hard_swish_fwd(x)[0]


def hard_swish_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, and as the residual `x`."""
    return x * hard_sigmoid_fwd(x)[0], x


def hard_swish_bwd(x: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (1), from the residual of `hard_swish_fwd` and the output's cotangent."""
    gate, passes = hard_sigmoid_fwd(x)
    return (gate * dy + hard_sigmoid_bwd(passes, x * dy)[0],)


_hard_swish.defvjp(hard_swish_fwd, hard_swish_bwd)
_jitted_hard_swish = jax.jit(_hard_swish)


@jax.custom_vjp
def _leaky_relu(x: Array, slope: Array) -> Array:
    return leaky_relu_fwd(x, slope)[0]


def leaky_relu_fwd(x: Array, slope: Array) -> tuple[Array, tuple[Array, Array]]:
    """`y`, and the residuals `(x, slope)`."""
    return jnp.where(x >= 0, x, slope * x), (x, slope)


def leaky_relu_bwd(residuals: tuple[Array, Array], dy: Array) -> tuple[Array | None, Array | None]:
    """`(dx, dslope)` by (1) and (2), from the residuals and the output's cotangent."""
    x, slope = residuals
    dx = jnp.where(x >= 0, dy, slope * dy)
    dslope = jnp.where(x >= 0, jnp.zeros((), dy.dtype), x * dy)
    return _cotangent.match(dx, x), _cotangent.match(dslope, slope)


_leaky_relu.defvjp(leaky_relu_fwd, leaky_relu_bwd)
_jitted_leaky_relu = jax.jit(_leaky_relu)


@jax.custom_vjp
def _elu(x: Array, alpha: Array) -> Array:
    return elu_fwd(x, alpha)[0]


def elu_fwd(x: Array, alpha: Array) -> tuple[Array, tuple[Array, Array]]:
    """`y`, and the residuals `(x, alpha)`."""
    return jnp.where(x > 0, x, alpha * jnp.expm1(_negative(x))), (x, alpha)


def elu_bwd(residuals: tuple[Array, Array], dy: Array) -> tuple[Array | None, Array | None]:
    """`(dx, dalpha)` by (1) and (2), from the residuals and the output's cotangent."""
    x, alpha = residuals
    dx = jnp.where(x > 0, dy, alpha * jnp.exp(_negative(x)) * dy)
    dalpha = jnp.where(x > 0, jnp.zeros((), dy.dtype), jnp.expm1(_negative(x)) * dy)
    return _cotangent.match(dx, x), _cotangent.match(dalpha, alpha)


_elu.defvjp(elu_fwd, elu_bwd)
_jitted_elu = jax.jit(_elu)


def _negative(x: Array) -> Array:
    """`x`, with 0 where it is positive: the branch not taken must not overflow into 0 · inf."""
    return jnp.where(x > 0, jnp.zeros((), x.dtype), x)


@jax.custom_vjp
def _selu(x: Array) -> Array:
    return selu_fwd(x)[0]


def selu_fwd(x: Array) -> tuple[Array, Array]:
    """`y`, and as the residual `x`."""
    return SELU_SCALE * elu_fwd(x, jnp.array(SELU_ALPHA, x.dtype))[0], x


def selu_bwd(x: Array, dy: Array) -> tuple[Array | None]:
    """`(dx,)` by (1), from the residual of `selu_fwd` and the output's cotangent."""
    return elu_bwd((x, jnp.array(SELU_ALPHA, x.dtype)), SELU_SCALE * dy)[:1]


_selu.defvjp(selu_fwd, selu_bwd)
_jitted_selu = jax.jit(_selu)
