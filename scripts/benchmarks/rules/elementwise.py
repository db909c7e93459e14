"""Functions of one element by hand, and bugs in them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.rules.case import (
    FLIPPED,
    KINK,
    MEAN,
    NOT_FINITE,
    NOT_LINEAR,
    SIGN,
    TRANSPOSED,
    ZERO,
    Case,
    Draw,
    normal,
    positive,
    rule,
)

FACTOR = (
    "elementwise",
    "element by element",
    "factor that",
    "as a factor",
    "once more",
    "where x",
    "where `x",
)


def relu(x: Array) -> Array:
    return jnp.maximum(x, 0)


def leaky_relu(x: Array) -> Array:
    return jnp.where(x > 0, x, x / 8)


def gelu(x: Array) -> Array:
    """x Phi(x), of the normal distribution."""
    return x * (1 + lax.erf(x / np.sqrt(2).astype(x.dtype))) / 2


def phi(x: Array) -> Array:
    return (1 + lax.erf(x / np.sqrt(2).astype(x.dtype))) / 2


def sinc(x: Array) -> Array:
    """sin(x) / x, and 1 at 0."""
    return jnp.where(x == 0, 1 - x * x / 6, jnp.sin(x) / jnp.where(x == 0, 1, x))


def on_host(args: tuple, y: Array, dy: Array) -> tuple:
    """The derivative of sin by NumPy, which is called for one array and not for many."""
    (x,) = args
    cos = jax.pure_callback(lambda x: np.cos(x, dtype=x.dtype), jax.typeof(x), x)
    return (cos * dy,)


def by_its_value(args: tuple, y: Array, dy: Array) -> tuple:
    """tanh' where any of it is not 0: a value that a compiled function does not have."""
    if bool((abs(args[0]) < 20).any()):
        return ((1 - y * y) * dy,)
    return (jnp.zeros_like(dy),)


def in_numpy(args: tuple, y: Array, dy: Array) -> tuple:
    """exp' by NumPy, which has no arrays without a value."""
    return (jnp.asarray(np.asarray(y) * np.asarray(dy)),)


def bug(
    name: str,
    f: Callable[..., Any],
    derivative: Callable[..., Any],
    *says: str,
    args: Draw = normal((4, 5)),  # noqa: B008
) -> Case:
    """A function whose gradient is `derivative(x, y, dy)`."""
    return Case(name, rule(f, lambda args, y, dy: (derivative(*args, y, dy),)), args, says)


NEGATIVE = ("negative", "below 0", "masked", *FACTOR)
LARGE = normal((4, 5), scale=8)

BUGS = [
    bug("relu: no mask", relu, lambda x, y, dy: dy, *NEGATIVE),
    bug("relu: mask of dy", relu, lambda x, y, dy: jnp.where(dy > 0, dy, 0), *NOT_LINEAR),
    bug(
        "relu: 2 at the kink",
        relu,
        lambda x, y, dy: jnp.where(x > 0, dy, jnp.where(x == 0, 2 * dy, 0)),
        *KINK,
    ),
    bug(
        "leaky relu: slope forgotten",
        leaky_relu,
        lambda x, y, dy: jnp.where(x > 0, dy, 0),
        *NEGATIVE,
        *ZERO,
    ),
    bug(
        "relu6: no upper bound",
        lambda x: jnp.clip(x, 0, 6),
        lambda x, y, dy: jnp.where(x > 0, dy, 0),
        "above",
        "upper",
        "nonzero at",
        *FACTOR,
        args=LARGE,
    ),
    bug("abs: no sign", jnp.abs, lambda x, y, dy: dy, *SIGN, *NEGATIVE, "passed on"),
    bug(
        "abs: integers",
        jnp.abs,
        lambda x, y, dy: (jnp.sign(x) * dy).astype(jnp.int32),
        "int32",
        "integer",
    ),
    bug("sigmoid: y for y (1 - y)", jax.nn.sigmoid, lambda x, y, dy: y * dy, *FACTOR),
    bug(
        "sigmoid: y is constant in second order",
        jax.nn.sigmoid,
        lambda x, y, dy: lax.stop_gradient(y * (1 - y)) * dy,
        "second",
    ),
    bug("tanh: 1 - y", jnp.tanh, lambda x, y, dy: (1 - y) * dy, *FACTOR),
    Case(
        "tanh: by its value",
        rule(jnp.tanh, by_its_value),
        normal((4, 5)),
        ("jit", "concrete", "traced", "compiled"),
    ),
    Case(
        "exp: in NumPy",
        rule(jnp.exp, in_numpy),
        normal((4, 5)),
        ("jit", "concrete", "traced", "compiled"),
    ),
    Case("sin: not for vmap", rule(jnp.sin, on_host), normal((4, 5)), ("vmap",)),
    bug("gelu: second term forgotten", gelu, lambda x, y, dy: phi(x) * dy, *FACTOR),
    bug(
        "silu: second term forgotten", jax.nn.silu, lambda x, y, dy: jax.nn.sigmoid(x) * dy, *FACTOR
    ),
    bug(
        "softplus: sign of x",
        jax.nn.softplus,
        lambda x, y, dy: jax.nn.sigmoid(-x) * dy,
        *SIGN,
        *FACTOR,
    ),
    bug(
        "softplus: overflow",
        jax.nn.softplus,
        lambda x, y, dy: jnp.exp(x) / (1 + jnp.exp(x)) * dy,
        *NOT_FINITE,
    ),
    bug(
        "tanh: passes all where saturated",
        jnp.tanh,
        lambda x, y, dy: jnp.where(abs(x) > 30, dy, (1 - y * y) * dy),
        "large",
        *FACTOR,
    ),
    bug(
        "elu: exp(-x)",
        jax.nn.elu,
        lambda x, y, dy: jnp.where(x > 0, dy, jnp.exp(-x) * dy),
        *NEGATIVE,
    ),
    bug("sqrt: y / 2", jnp.sqrt, lambda x, y, dy: y / 2 * dy, *FACTOR, args=positive((4, 5))),
    bug("sinc: 0 / 0", sinc, lambda x, y, dy: (jnp.cos(x) - jnp.sin(x) / x) / x * dy, *NOT_FINITE),
    bug(
        "identity: dy clipped",
        lambda x: x * 1,
        lambda x, y, dy: jnp.clip(dy, -0.5, 0.5),
        *NOT_LINEAR,
        "clip",
    ),
    bug(
        "sin: weight decay added",
        jnp.sin,
        lambda x, y, dy: jnp.cos(x) * dy + x / 8,
        *NOT_LINEAR,
        "vanish",
        "cotangent of zero",
    ),
    bug(
        "cos: mean of dy",
        jnp.cos,
        lambda x, y, dy: -jnp.sin(x) * dy.mean(),
        *MEAN,
        "its own mean",
    ),
    bug(
        "square: dy forgotten",
        jnp.square,
        lambda x, y, dy: 2 * x,
        *NOT_LINEAR,
        "ignore",
        "cotangent were",
    ),
    bug(
        "cumsum: forwards",
        lambda x: x.cumsum(0),
        lambda x, y, dy: dy.cumsum(0),
        *TRANSPOSED,
        *FLIPPED,
    ),
    bug(
        "half: first sample missing",
        lambda x: x / 2,
        lambda x, y, dy: (dy / 2).at[0].set(0),
        *ZERO,
        "first",
    ),
]
