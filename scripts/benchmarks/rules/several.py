"""Functions of several arguments by hand, and bugs in them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.rules.case import (
    KINK,
    MEAN,
    TRANSPOSED,
    ZERO,
    Case,
    Draw,
    normal,
    positive,
    rule,
    sum_to,
)
from benchmarks.rules.elementwise import FACTOR


def dropout(key: Array, x: Array) -> Array:
    """A quarter of the elements set to 0, the others scaled up."""
    return jnp.where(jax.random.bernoulli(key, 0.75, x.shape), x / 0.75, 0)


def scaled(x: Array, scale: Array) -> Array:
    """Each channel by its scale."""
    return x * scale


def prelu(x: Array, slope: Array) -> Array:
    return jnp.where(x > 0, x, slope * x)


def key_and_normal(rng: np.random.Generator, dtype: Any) -> tuple:
    return jax.random.key(int(rng.integers(1 << 30))), *normal((4, 8))(rng, dtype)


def two(
    name: str,
    f: Callable[..., Any],
    derivatives: Callable[..., tuple],
    *says: str,
    args: Draw,
) -> Case:
    """A function of two arguments whose gradients are `derivatives(a, b, y, dy)`."""
    return Case(name, rule(f, lambda args, y, dy: derivatives(*args, y, dy)), args, says)


BUGS = [
    two(
        "dropout: not scaled",
        dropout,
        lambda key, x, y, dy: (None, jnp.where(jax.random.bernoulli(key, 0.75, x.shape), dy, 0)),
        *MEAN,
        args=key_and_normal,
    ),
    two(
        "dropout: another mask",
        dropout,
        lambda key, x, y, dy: (
            None,
            dropout(jax.random.fold_in(key, 1), dy),
        ),
        "mask",
        "places",
        args=key_and_normal,
    ),
    two(
        "scale: mean for a sum",
        scaled,
        lambda x, scale, y, dy: (scale * dy, (x * dy).mean(0)),
        *MEAN,
        args=normal((4, 3), (3,)),
    ),
    two(
        "prelu, dslope: positive x too",
        prelu,
        lambda x, slope, y, dy: (jnp.where(x > 0, dy, slope * dy), sum_to(x * dy, slope)),
        "positive",
        "mask",
        *FACTOR,
        args=normal((4, 3), (3,)),
    ),
    two(
        "power, dexponent: zero",
        jnp.power,
        lambda x, p, y, dy: (p * x ** (p - 1) * dy, jnp.zeros_like(p)),
        *ZERO,
        args=positive((4, 3), (4, 3)),
    ),
    two(
        "arctan2: arguments swapped",
        jnp.arctan2,
        lambda a, b, y, dy: (-a / (a * a + b * b) * dy, b / (a * a + b * b) * dy),
        *TRANSPOSED,
        "gradient of `",
        args=normal((4, 3), (4, 3)),
    ),
    two(
        "maximum: ties to both",
        jnp.maximum,
        lambda a, b, y, dy: (jnp.where(a >= b, dy, 0), jnp.where(b >= a, dy, 0)),
        *KINK,
        args=normal((4, 3), (4, 3)),
    ),
]
