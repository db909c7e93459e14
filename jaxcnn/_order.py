"""When something is worked out, not before it is needed; and on which devices it differs.

XLA:CPU runs what is ready as early as it can. What a backward pass makes of parameters and
residuals alone (a turned kernel, x - mean) would be made during the forward pass, for all layers,
and wait in memory. `lax.optimization_barrier` does not prevent it: it is gone when the order is
chosen.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def after(x: Array, *causes: Array) -> Array:
    """`x`, in such a way that it is not known before all of `causes`, floating arrays.

    >>> after(jnp.array([1.0, 2.0]), jnp.array([jnp.nan]))
    Array([1., 2.], dtype=float32)
    """
    first = [cause[(0,) * cause.ndim] for cause in causes if 0 not in cause.shape]
    if not first:
        return x
    never = functools.reduce(jnp.maximum, first) > jnp.inf
    return x + never.astype(x.dtype)  # XLA learns that it is 0 from the elements alone


def varying(x: Array | jax.ShapeDtypeStruct) -> frozenset[str]:
    """The mesh axes along which `x` differs from device to device, inside `jax.shard_map`."""
    kind: Any = jax.typeof(x)
    # JAX 0.10 moved the set from the type's `vma` into its `mat` (manual axis type).
    return kind.mat.varying if hasattr(kind, "mat") else kind.vma
