"""Dropout: each element is left out at random, and what remains is scaled up.

Shapes: x, k and y are of any one shape, and dy is the cotangent dL/dy. k is 1 where an element is
kept and 0 where it is dropped: independent draws, 1 with probability 1 - rate.

Forward:

    y = k x / (1 - rate)                                                                       (1)

so that y is x on the average over k ("inverted" dropout: there is nothing to do at inference).

Backward. k does not depend on x, and (1) is linear in x and elementwise: its own adjoint.

    <dy, k x' / (1 - rate)> = <k dy / (1 - rate), x'>
    dx = k dy / (1 - rate)                                                                     (2)

Both pick, and do not multiply by k: Inf and NaN that are dropped are gone.

Residuals: k as booleans, one byte an element, as autodiff keeps (and x for its type, which compiled
code drops). The key would do, but to draw k again costs ten times what (2) does otherwise; where
memory is worth that, `jax.checkpoint` makes the choice.

Source: Srivastava et al., 2014.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn import _check, _cotangent
from jaxcnn.normalization import AxisName

Residuals = tuple[Array, Array]


def dropout(key: Array, x: Array, rate: float, *, axis_name: AxisName = None) -> Array:
    """Sets elements to 0 at random and scales up the others, with a hand-derived gradient.

    `y = x / (1 - rate)` with probability `1 - rate`, else 0: `flax.linen.Dropout` in training.

    Args:
        key: of `jax.random`, new style (`jax.random.key`) or raw `uint32`. It has no gradient.
        x: an array of any shape and floating dtype.
        rate: the probability of leaving an element out, a static number from 0 to 1. 0 leaves `x`
            as it is; 1 makes it zeros.
        axis_name: the name, or names, of the mapped axes (of `jax.shard_map` or `jax.vmap`) over
            which the first axis of `x` is divided. Each device then drops what one device alone
            would have dropped of the whole. With None, `key` must differ between them.

    Returns:
        An array like `x`.

    Raises:
        TypeError: `key` is no key, `x` not floating, or `rate` not a static number.
        ValueError: `key` is several, or `rate` not between 0 and 1.

    Gradient (`dropout_bwd`): `dx = dy / (1 - rate)` where `x` was kept, 0 where it was not; derived
    at the top of this module.

    >>> dropout(jax.random.key(0), jnp.ones(4), 0.5)
    Array([0., 0., 2., 2.], dtype=float32)
    >>> jax.grad(lambda x: dropout(jax.random.key(0), x, 0.5).sum())(jnp.ones(4))
    Array([0., 0., 2., 2.], dtype=float32)
    """
    _check_key(key)
    _check.floating("dropout", x=x)
    if not isinstance(rate, int | float):
        raise TypeError(f"dropout: `rate` must be a static number, got {rate!r}")
    if not 0 <= rate <= 1:
        raise ValueError(f"dropout: `rate` must be between 0 and 1, got {rate!r}")
    if rate == 0:
        return jnp.asarray(x)
    if axis_name is not None and x.ndim == 0:
        raise ValueError("dropout: a scalar `x` has no axis to divide over `axis_name`")
    if isinstance(axis_name, list):
        axis_name = tuple(axis_name)
    return _jitted_dropout(key, x, float(rate), axis_name)


def _check_key(key: Array) -> None:
    """A key of either style, and one alone."""
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    if not typed and dtype != jnp.uint32:
        raise TypeError(f"dropout: `key` must be a key of jax.random, got {dtype or type(key)}")
    if key.ndim != (0 if typed else 1):
        raise ValueError(f"dropout: `key` must be one key, got an array of shape {key.shape}")


# The rule ----------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _dropout(key: Array, x: Array, rate: float, axis_name: AxisName) -> Array:
    return dropout_fwd(key, x, rate, axis_name)[0]


def dropout_fwd(
    key: Array, x: Array, rate: float, axis_name: AxisName = None
) -> tuple[Array, Residuals]:
    """`y` by (1), and the residuals `(kept, x)`."""
    if axis_name is None:
        kept = jax.random.bernoulli(key, 1.0 - rate, x.shape)
    else:
        rows = len(x)
        whole = (rows * lax.axis_size(axis_name), *x.shape[1:])
        kept = jax.random.bernoulli(key, 1.0 - rate, whole)
        kept = lax.dynamic_slice_in_dim(kept, rows * lax.axis_index(axis_name), rows)
    return _pick(kept, x, rate), (kept, x)


def dropout_bwd(
    rate: float, axis_name: AxisName, residuals: Residuals, dy: Array
) -> tuple[None, Array | None]:
    """`(None, dx)` by (2), from the residuals and the output's cotangent; a key has none."""
    kept, x = residuals
    return None, _cotangent.match(_pick(kept, dy, rate), x)


def _pick(kept: Array, x: Array, rate: float) -> Array:
    """`x / (1 - rate)` where it is kept, else 0; zeros, and no 0 / 0, where the rate is 1."""
    return jnp.where(kept, x / (1.0 - rate), 0) if rate < 1 else jnp.zeros_like(x)


_dropout.defvjp(dropout_fwd, dropout_bwd)
_jitted_dropout = jax.jit(_dropout, static_argnums=(2, 3))
