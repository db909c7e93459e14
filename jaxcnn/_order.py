"""When something is worked out, not before it is needed; and on which devices it differs.

XLA:CPU runs what is ready as early as it can. What a backward pass makes of parameters and
residuals alone (a turned kernel, x - mean) would be made during the forward pass, for all layers,
and wait in memory. `lax.optimization_barrier` does not prevent it: it is gone when the order is
chosen.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def after(x: Array, cause: Array) -> Array:
    """`x`, in such a way that it is not known before `cause`, a floating array.

    >>> after(jnp.array([1.0, 2.0]), jnp.array([jnp.nan]))
    Array([1., 2.], dtype=float32)
    """
    if 0 in cause.shape:
        return x
    never = cause[(0,) * cause.ndim] > jnp.inf  # which XLA learns from the element alone
    return x + never.astype(x.dtype)


def varying(x: Array | jax.ShapeDtypeStruct) -> frozenset[str]:
    """The mesh axes along which `x` differs from device to device, inside `jax.shard_map`."""
    kind: Any = jax.typeof(x)
    # JAX 0.10 moved the set from the type's `vma` into its `mat` (manual axis type).
    return kind.mat.varying if hasattr(kind, "mat") else kind.vma
