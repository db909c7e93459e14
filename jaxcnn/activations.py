"""Activations: one function of one element, applied to each.

Shape: x, y and the cotangent dy = dL/dy are all alike. With y = f(x) elementwise, the inner product

    <dy, f'(x) · x'> = <dy · f'(x), x'>        so that        dx = f'(x) · dy                  (1)

and all a rule needs to keep is what f'(x) can be worked out from.

ReLU: f(x) = max(x, 0), f'(x) = 1 where x > 0 and else 0, and 0 at the kink x = 0 as in `jax.nn` and
PyTorch (`jnp.maximum(x, 0)` would give 0.5). Residual: whether x > 0, one byte an element; autodiff
keeps the same. NaN goes through forward, and takes no gradient (NaN > 0 is false), as in `jax.nn`.

Source: Nair and Hinton, "Rectified linear units improve restricted Boltzmann machines", 2010.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxcnn import _check


def relu(x: Array) -> Array:
    """`max(x, 0)`: `jax.nn.relu` with a hand-derived gradient.

    Args:
        x: an array of any shape and floating dtype.

    Returns:
        An array like `x`.

    Raises:
        TypeError: `x` is not floating.

    Gradient (`relu_bwd`): `dx = dy` where `x > 0`, else 0; and 0 at the kink.

    >>> relu(jnp.array([-1.0, 0.0, 2.0]))
    Array([0., 0., 2.], dtype=float32)
    >>> jax.grad(lambda x: relu(x).sum())(jnp.array([-1.0, 0.0, 2.0]))
    Array([0., 0., 1.], dtype=float32)
    """
    _check.floating("relu", x=x)
    return _jitted_relu(x)


# The rules ---------------------------------------------------------------------------------------


@jax.custom_vjp
def _relu(x: Array) -> Array:
    return relu_fwd(x)[0]


def relu_fwd(x: Array) -> tuple[Array, Array]:
    """`y = max(x, 0)`, and as the residual where `x > 0`."""
    # A `where`, so that the derivative of this line, in second order, is (1) at the kink, too; on
    # `x <= 0`, so that NaN goes through.
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x), x > 0


def relu_bwd(positive: Array, dy: Array) -> tuple[Array]:
    """`(dx,)` by (1), from the residual of `relu_fwd` and the output's cotangent."""
    return (jnp.where(positive, dy, jnp.zeros((), dy.dtype)),)


_relu.defvjp(relu_fwd, relu_bwd)
_jitted_relu = jax.jit(_relu)
