"""What a case is, and how a rule and its bug are written: one small backward function each.

A backward function has the arguments `(args, y, dy)`, what went in, what came out and the output's
cotangent, and returns a cotangent for each argument. All of the primal functions are plain JAX.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Backward = Callable[[tuple, Any, Any], tuple]
Draw = Callable[[np.random.Generator, Any], tuple]

DTYPES = ("float32", "float64", "bfloat16")


class Case(NamedTuple):
    """A function with a rule inside, and arguments for it."""

    name: str
    f: Callable[..., Any]
    args: Draw  # of a random generator and a dtype
    says: tuple[str, ...] = ()  # () is a correct rule; a right diagnosis of a bug has one of these
    dtypes: tuple[str, ...] = DTYPES  # those in which the bug is one


def rule(primal: Callable[..., Any], backward: Backward) -> Callable[..., Any]:
    """`primal` with a hand-written gradient, whose residuals are the arguments and the output."""

    def forward(*args: Any) -> tuple[Any, Any]:
        y = primal(*args)
        return y, (args, y)

    bare = partial(primal)  # else what has a default would be an argument, too
    f = jax.custom_vjp(bare)
    f.defvjp(forward, lambda kept, dy: backward(kept[0], kept[1], dy))
    return f


def changed(backward: Backward, position: int, change: Callable[[Any], Any]) -> Backward:
    """`backward` with the cotangent at `position` changed by a function of it."""

    def wrong(args: tuple, y: Any, dy: Any) -> tuple:
        cotangents = list(backward(args, y, dy))
        cotangents[position] = change(cotangents[position])
        return tuple(cotangents)

    return wrong


def of_another(backward: Backward, position: int, change: Callable[[Any], Any]) -> Backward:
    """`backward` as if the argument at `position` had been a function of it."""

    def wrong(args: tuple, y: Any, dy: Any) -> tuple:
        return backward((*args[:position], change(args[position]), *args[position + 1 :]), y, dy)

    return wrong


def with_cotangent(backward: Backward, change: Callable[[Any], Any]) -> Backward:
    """`backward` of a function of the output's cotangent."""
    return lambda args, y, dy: backward(args, y, change(dy))


def normal(*shapes: tuple[int, ...], scale: float = 1) -> Draw:
    """Arguments of these shapes, from the normal distribution of deviation `scale`."""

    def draw(rng: np.random.Generator, dtype: Any) -> tuple:
        return tuple(jnp.asarray(scale * rng.standard_normal(shape), dtype) for shape in shapes)

    return draw


def positive(*shapes: tuple[int, ...]) -> Draw:
    """Arguments of these shapes, from 0.5 to 2."""

    def draw(rng: np.random.Generator, dtype: Any) -> tuple:
        return tuple(jnp.asarray(rng.uniform(0.5, 2, shape), dtype) for shape in shapes)

    return draw


def sum_to(cotangent: Array, like: Array) -> Array:
    """The cotangent of an argument that was broadcast: summed over the axes that it lacked."""
    extra = cotangent.ndim - like.ndim
    axes = [*range(extra)]
    axes += [extra + i for i, n in enumerate(like.shape) if n == 1 != cotangent.shape[extra + i]]
    return cotangent.sum(axes).reshape(like.shape)


# What a right diagnosis may say, where many bugs have it in common: beginnings of words.
SIGN = ("sign is", "sign of", "wrong sign", "negated", "factor -1", "factor of -1")
TWICE = ("twice", "doubled", "factor 2", "factor of 2")
MEAN = ("mean where", "mean for", "mean instead", "average", "constant factor", "sum where")
ZERO = ("all zero", "is zero", "are zero", "were zero", "never computed", "missing")
FLIPPED = ("flip", "revers", "turned", "mirror", "rotated")
TRANSPOSED = ("transpos", "swap", "exchanged", "interchanged")
SHIFTED = ("shift", "moved", "displaced", "off by one", "rolled", "offset")
ORDER = ("revers", "order along", "another order", "permut")
NOT_LINEAR = ("not linear", "linear in", "proportional")
NOT_FINITE = ("nan at", "not finite", "non-finite", "infinite", "overflow")
KINK = ("kink", "tie", "subgradient")
FORGOTTEN = (
    "term",
    "missing",
    "inner product",
    "held constant",
    "jacobian",
    "diagonal",
    "sum over",
    "constant over",
)
