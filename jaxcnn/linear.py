"""The fully connected layer, and the flattening in front of it.

Shapes, with any number of batch axes in place of N:

    x       (N, I)      inputs
    kernel  (I, O)
    bias    (O,)
    y       (N, O)      outputs (the last layer's are the logits), and dy its cotangent dL/dy

Forward:

    y = x @ kernel + bias                                                                      (1)

Backward. The differential of (1) in the inner product with dy, a prime marking a perturbation:

    <dy, x' @ kernel + x @ kernel' + bias'>
        = <dy @ kernel^T, x'> + <x^T @ dy, kernel'> + <sum_n dy, bias'>

since <A, B C> = <A C^T, B> = <B^T A, C>. Read off what multiplies each perturbation:

    dx = dy @ kernel^T            dkernel = x^T @ dy            dbias = sum_n dy               (2)

Residuals: x and the kernel, which the caller holds anyway, and the bias for its type; autodiff
keeps the same. Flattening copies every element to one place, and its adjoint copies each back:

    y = reshape(x, (N, H·W·C))                                  dx = reshape(dy, (N, H, W, C)) (3)

Source: the notes this project grew from (whose update rule, w - eta dy/dw, means dL/dw).
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxcnn import _check, _cotangent

Residuals = tuple[Array, Array, Array | None]


def dense(x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """A fully connected layer with a hand-derived gradient: `x @ kernel + bias`.

    Args:
        x: `(*batch, I)`, with any number of batch axes, none included.
        kernel: `(I, O)`, of the same dtype.
        bias: `(O,)`, of the same dtype, or None.

    Returns:
        `(*batch, O)`, of the same dtype.

    Raises:
        TypeError: a dtype is not floating, or not the same for all.
        ValueError: the shapes do not fit.

    Gradient (`dense_bwd`): `dx = dy @ kernel.T`, `dkernel = x.T @ dy` and `dbias = dy.sum(0)`;
    derived at the top of this module.

    >>> x, kernel = jnp.array([[1.0, 2.0]]), jnp.array([[1.0, 0.0, 3.0], [0.0, 1.0, 1.0]])
    >>> dense(x, kernel, jnp.array([0.5, 0.5, 0.5]))
    Array([[1.5, 2.5, 5.5]], dtype=float32)
    >>> jax.grad(lambda kernel: dense(x, kernel)[0, 1])(kernel)
    Array([[0., 1., 0.],
           [0., 2., 0.]], dtype=float32)
    """
    _check.floating("dense", x=x, kernel=kernel, bias=bias)
    _check.same_dtype("dense", x=x, kernel=kernel, bias=bias)
    if kernel.ndim != 2:
        raise ValueError(f"dense: `kernel` must have shape (inputs, outputs), got {kernel.shape}")
    if x.ndim == 0 or x.shape[-1] != kernel.shape[0]:
        raise ValueError(
            f"dense: `kernel` of shape {kernel.shape} has {kernel.shape[0]} inputs, but `x` has "
            f"shape {x.shape}"
        )
    if bias is not None and bias.shape != kernel.shape[1:]:
        raise ValueError(
            f"dense: `bias` must have shape {kernel.shape[1:]}, one entry for each output of "
            f"`kernel`, got {bias.shape}"
        )
    return _jitted_dense(x, kernel, bias)


def flatten(x: Array) -> Array:
    """All axes but the first as one, with a hand-derived gradient: images to vectors.

    Args:
        x: `(N, ...)`, of any dtype.

    Returns:
        `(N, product of the others)`.

    Raises:
        ValueError: `x` is a scalar.

    Gradient (`flatten_bwd`): `dx` is `dy` in the shape of `x`.

    >>> flatten(jnp.zeros((2, 4, 4, 3))).shape
    (2, 48)
    """
    if x.ndim == 0:
        raise ValueError("flatten: `x` must have a batch axis, got a scalar")
    return _jitted_flatten(x, x.shape[1:])


# The rules ---------------------------------------------------------------------------------------


@jax.custom_vjp
def _dense(x: Array, kernel: Array, bias: Array | None) -> Array:
    return dense_fwd(x, kernel, bias)[0]


def dense_fwd(x: Array, kernel: Array, bias: Array | None) -> tuple[Array, Residuals]:
    """`y` by (1), and the residuals `(x, kernel, bias)`."""
    y = jnp.matmul(x, kernel)
    if bias is not None:
        y = y + jnp.expand_dims(bias, range(y.ndim - 1))
    return y, (x, kernel, bias)


def dense_bwd(residuals: Residuals, dy: Array) -> tuple[Array | None, Array | None, Array | None]:
    """`(dx, dkernel, dbias)` by (2), from the residuals and the output's cotangent."""
    x, kernel, bias = residuals
    batch = tuple(range(x.ndim - 1))
    dx = jnp.matmul(dy, kernel.T)
    rows = "abcdefgh"[: len(batch)]
    dkernel = jnp.einsum(f"{rows}i,{rows}o->io", x, dy, out_sharding=_cotangent.sharding(kernel))
    dbias = None if bias is None else _cotangent.match(dy.sum(batch), bias)
    return _cotangent.match(dx, x), _cotangent.match(dkernel, kernel), dbias


_dense.defvjp(dense_fwd, dense_bwd)
_jitted_dense = jax.jit(_dense)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _flatten(x: Array, image_shape: tuple[int, ...]) -> Array:
    return flatten_fwd(x, image_shape)[0]


def flatten_fwd(x: Array, image_shape: tuple[int, ...]) -> tuple[Array, None]:
    """`y` by (3). There is no residual: `image_shape`, all but the batch, is static."""
    return x.reshape(x.shape[0], math.prod(image_shape)), None


def flatten_bwd(image_shape: tuple[int, ...], _: None, dy: Array) -> tuple[Array]:
    """`(dx,)` by (3), from the output's cotangent."""
    return (dy.reshape(dy.shape[0], *image_shape),)


_flatten.defvjp(flatten_fwd, flatten_bwd)
_jitted_flatten = jax.jit(_flatten, static_argnums=1)
