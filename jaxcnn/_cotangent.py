"""A cotangent has its primal's shape, dtype and device-varying type: the one place that sees to it.

`jax.custom_vjp` checks the shape alone. A rule that worked in a wider dtype, that broadcast a
primal, or that runs inside `jax.shard_map`, where a replicated parameter meets a device's own share
of the batch, must bring its result back to what the primal is.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AxisType, NamedSharding

from jaxcnn._order import varying


def match(cotangent: Array, primal: Array) -> Array | None:
    """`cotangent` as a cotangent of `primal`; None, where `primal` is integer and so has none.

    Broadcasting copies, and the adjoint of a copy is a sum: over the axes along which `primal` was
    broadcast, and over the mesh axes along which it was replicated and `cotangent` is not.
    """
    if not jnp.issubdtype(primal.dtype, jnp.inexact):
        return None
    leading = cotangent.ndim - primal.ndim
    stretched = tuple(range(leading)) + tuple(
        leading + axis
        for axis, size in enumerate(primal.shape)
        if size == 1 and cotangent.shape[leading + axis] != 1
    )
    if stretched:
        cotangent = cotangent.sum(stretched).reshape(primal.shape)
    replicated = varying(cotangent) - varying(primal)
    if replicated:
        cotangent = lax.psum(cotangent, tuple(replicated))
    return cotangent.astype(primal.dtype)


def sharding(primal: Array) -> NamedSharding | None:
    """What a contraction over a sharded batch is to be told its result's sharding is: `primal`'s.

    On a mesh with explicit axes it can't be guessed; elsewhere (None) the compiler chooses.
    """
    found = jax.typeof(primal).sharding
    return found if AxisType.Explicit in found.mesh.axis_types else None
