"""How far two correct gradients may be apart, from their dtype and their number of operations."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def rounding_bound(operations: float, dtype: Any) -> float:
    """The largest error, relative to the largest entry, of entries of so many operations each.

    The sum of n terms t_i, each operation rounded to within u = eps / 2, is off by less than
    lambda u sum |t_i| with a probability of 1 - 2 exp(-lambda²/2) when the terms are random with
    zero mean, as those of a random cotangent are (Higham and Mary, "Sharper probabilistic backward
    error analysis for basic linear algebra kernels with random data", 2020), and sum |t_i| is at
    most sqrt(n) times the root of the sum of t_i², the size of such a sum. With lambda = 8 the
    chance of a false alarm is 1e-14 an entry, and the bound 4 sqrt(n) eps.

    In dtypes narrower than float32 a sum is to be made in float32; what is left is the rounding
    of the terms and of the result.

    >>> f"{rounding_bound(100, np.float32):.1e} {rounding_bound(100, jnp.bfloat16):.1e}"
    '5.2e-06 3.1e-02'
    """
    sums = jnp.promote_types(dtype, jnp.float32)
    return 4 * float(jnp.finfo(dtype).eps + math.sqrt(operations) * jnp.finfo(sums).eps)


def operations_per_entry(f: Callable[[Array, Any], Array], x: Array, cotangent: Any) -> float:
    """The floating point operations of `f(x, cotangent)`, by XLA's count, for each entry of it."""
    cost = jax.jit(f).lower(x, cotangent).cost_analysis() or {}
    return max(1.0, cost.get("flops", 0.0) / max(x.size, 1))


def composed_bound(bounds: list[float], dtype: Any) -> float:
    """The same, in norm, for the gradient through the calls that have these bounds.

    The calls' own errors are independent and add in squares. Below float64 there is a second part:
    the sign of a ReLU's input and the winner of a pool are decided on rounded values, and a
    fraction of eps of the decisions of each call comes out the other way. Each takes its part of
    the cotangent with it: an error of sqrt(eps) in norm. In float64 there are not enough
    activations for one to be so close to its kink.
    """
    eps = float(jnp.finfo(dtype).eps)
    flipped = 0.0 if np.dtype(dtype) == np.float64 else len(bounds) * eps
    return math.sqrt(sum(bound**2 for bound in bounds) + flipped)
