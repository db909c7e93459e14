"""Correct rules that are hard to tell from wrong ones: kinks, cancellation, scale and long sums."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.rules.case import Case, Draw, normal, positive, rule, sum_to
from benchmarks.rules.linear import (
    dense,
    dense_backward,
    log_softmax_backward,
    logsumexp,
    softmax,
    softmax_backward,
)
from benchmarks.rules.normalization import norm, norm_backward, rms_norm, rms_norm_backward
from benchmarks.rules.pooling import max_backward, max_pool, to_equals, to_first, to_last

SINGLE_AND_DOUBLE = ("float32", "float64")


def integers(*shapes: tuple[int, ...]) -> Draw:
    """Integers from -2 to 2: on kinks, and tied."""

    def draw(rng: np.random.Generator, dtype: Any) -> tuple:
        return tuple(jnp.asarray(rng.integers(-2, 3, shape), dtype) for shape in shapes)

    return draw


def badly_scaled(rng: np.random.Generator, dtype: Any) -> tuple:
    """Columns from 1e-6 to 1e6 in size."""
    x = rng.standard_normal((4, 5)) * np.logspace(-6, 6, 5)
    return jnp.asarray(x, dtype), *normal((5, 5), (5,))(rng, dtype)


def far_from_0(rng: np.random.Generator, dtype: Any) -> tuple:
    """Images whose mean is 100 times their deviation."""
    x, scale, bias = normal((2, 3, 3, 3), (3,), (3,))(rng, dtype)
    return x + 100, scale, bias


def with_a_row_of_zeros(rng: np.random.Generator, dtype: Any) -> tuple:
    (x,) = normal((4, 5))(rng, dtype)
    return (x.at[1].set(0),)


def newton_sqrt(x: Array) -> Array:
    """By Newton's method from above until it stops falling, which autodiff has no gradient of."""

    def better(y: Array) -> Array:
        return jnp.minimum(y, (y + x / jnp.where(y == 0, 1, y)) / 2)

    y = lax.while_loop(lambda y: (better(y) < y).any(), better, jnp.maximum(x, 1))
    return jnp.where(x < 0, jnp.nan, y)


def largest(x: Array) -> Array:
    """The first largest of each row."""
    return jnp.take_along_axis(x, x.argmax(-1, keepdims=True), -1)[..., 0]


def to_the_largest(args: tuple, y: Array, dy: Array) -> tuple:
    """dy at the first largest of each row."""
    (x,) = args
    return (jax.nn.one_hot(x.argmax(-1), x.shape[-1], dtype=x.dtype) * dy[..., None],)


def huber(x: Array) -> Array:
    return jnp.where(abs(x) <= 1, x * x / 2, abs(x) - 0.5)


def sinc(x: Array) -> Array:
    """sin(x) / x, by its series near 0."""
    near = abs(x) < 0.25
    powers, square = jnp.ones_like(x), jnp.where(near, x, 0) ** 2
    series = jnp.zeros_like(x)
    for k in range(1, 8):
        series, powers = series + powers, -powers * square / (2 * k * (2 * k + 1))
    return jnp.where(near, series, jnp.sin(x) / jnp.where(near, 1, x))


def sinc_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """(cos(x) - y) / x, by the sum over k of (-1)^k 2k x^(2k - 1) / (2k + 1)! near 0."""
    (x,) = args
    near = abs(x) < 0.25
    small = jnp.where(near, x, 0)
    series, term = jnp.zeros_like(x), -small / 6
    for k in range(1, 8):
        series, term = series + 2 * k * term, -term * small * small / ((2 * k + 2) * (2 * k + 3))
    return (jnp.where(near, series, (jnp.cos(x) - y) / jnp.where(near, 1, x)) * dy,)


def length(x: Array) -> Array:
    """Each row's norm, whose derivative at 0 is taken to be 0."""
    squares = (x * x).sum(-1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def length_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """dx = x / y dy."""
    (x,) = args
    return (x * jnp.where(y > 0, dy / jnp.where(y > 0, y, 1), 0)[..., None],)


def unsort(args: tuple, y: Array, dy: Array) -> tuple:
    """Each dy to the place that it came from."""
    (x,) = args
    return (jnp.take_along_axis(dy, x.argsort(-1).argsort(-1), -1),)


def wide_softmax(x: Array) -> Array:
    """Softmax that is worked out in at least float32."""
    return jax.nn.softmax(x.astype(jnp.promote_types(x.dtype, jnp.float32))).astype(x.dtype)


def wide_softmax_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """The softmax's gradient in at least float32."""
    (x,) = args
    wide = jnp.promote_types(x.dtype, jnp.float32)
    (dx,) = softmax_backward(args, jax.nn.softmax(x.astype(wide)), dy.astype(wide))
    return (dx.astype(x.dtype),)


def scaled(x: Array, scale: Array) -> Array:
    return x * scale


def scaled_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """Each argument's gradient is summed over the axes along which it was repeated."""
    x, scale = args
    return sum_to(scale * dy, x), sum_to(x * dy, scale)


def of_one(name: str, f: Any, derivative: Any, args: Draw, dtypes: tuple | None = None) -> Case:
    """A function of one array whose gradient is `derivative(x, y, dy)`."""
    case = Case(name, rule(f, lambda args, y, dy: (derivative(*args, y, dy),)), args)
    return case._replace(dtypes=dtypes) if dtypes else case


def pool(name: str, shares: Any) -> Case:
    return Case(name, rule(max_pool, max_backward(shares)), integers((2, 6, 6, 2)))


KINKS = [
    of_one(
        "relu: 1 at the kink",
        lambda x: jnp.maximum(x, 0),
        lambda x, y, dy: jnp.where(x >= 0, dy, 0),
        integers((4, 5)),
    ),
    of_one(
        "relu: 0 at the kink",
        lambda x: jnp.maximum(x, 0),
        lambda x, y, dy: jnp.where(x > 0, dy, 0),
        integers((4, 5)),
    ),
    of_one("abs: 0 at the kink", jnp.abs, lambda x, y, dy: jnp.sign(x) * dy, integers((4, 5))),
    of_one(
        "abs: -1 at the kink", jnp.abs, lambda x, y, dy: jnp.where(x > 0, dy, -dy), integers((4, 5))
    ),
    of_one(
        "clip: passes at the bounds",
        lambda x: jnp.clip(x, -1, 1),
        lambda x, y, dy: jnp.where(abs(x) <= 1, dy, 0),
        integers((4, 5)),
    ),
    of_one(
        "clip: stops at the bounds",
        lambda x: jnp.clip(x, -1, 1),
        lambda x, y, dy: jnp.where(abs(x) < 1, dy, 0),
        integers((4, 5)),
    ),
    of_one(
        "huber, at its bounds", huber, lambda x, y, dy: jnp.clip(x, -1, 1) * dy, integers((4, 5))
    ),
    pool("tied max pool: to the first", to_first),
    pool("tied max pool: to the last", to_last),
    pool("tied max pool: in equal parts", to_equals),
    Case("tied largest: to the first", rule(largest, to_the_largest), integers((4, 5))),
    Case(
        "tied max: to the first", rule(partial(jnp.max, axis=-1), to_the_largest), integers((4, 5))
    ),
    Case(
        "tied maximum: to the first",
        rule(
            jnp.maximum,
            lambda args, y, dy: (
                jnp.where(args[0] >= args[1], dy, 0),
                jnp.where(args[0] < args[1], dy, 0),
            ),
        ),
        integers((4, 5), (4, 5)),
    ),
    Case(
        "tied minimum: to the second",
        rule(
            jnp.minimum,
            lambda args, y, dy: (
                jnp.where(args[0] < args[1], dy, 0),
                jnp.where(args[0] >= args[1], dy, 0),
            ),
        ),
        integers((4, 5), (4, 5)),
    ),
    Case("norm: 0 at 0", rule(length, length_backward), with_a_row_of_zeros),
    of_one("sign: nothing", jnp.sign, lambda x, y, dy: jnp.zeros_like(x), normal((4, 5))),
]

NUMERICS = [
    Case("dense, columns of 1e-6 to 1e6", rule(dense, dense_backward), badly_scaled),
    Case(
        "batch norm, mean of 100 deviations",
        rule(norm, norm_backward),
        far_from_0,
        dtypes=SINGLE_AND_DOUBLE,
    ),
    Case("rms norm", rule(rms_norm, rms_norm_backward), normal((4, 5), scale=3)),
    Case("softmax of logits of 50", rule(softmax, softmax_backward), normal((3, 6), scale=50)),
    Case("softmax, in float32 at least", rule(wide_softmax, wide_softmax_backward), normal((3, 6))),
    Case(
        "log softmax of logits of 50",
        rule(jax.nn.log_softmax, log_softmax_backward),
        normal((3, 6), scale=50),
    ),
    Case(
        "logsumexp of 1e4",
        rule(logsumexp, lambda args, y, dy: (jnp.exp(args[0] - y[..., None]) * dy[..., None],)),
        normal((3, 6), scale=1e4),
    )._replace(dtypes=SINGLE_AND_DOUBLE),
    of_one(
        "softplus of 40",
        jax.nn.softplus,
        lambda x, y, dy: jnp.exp(-jax.nn.softplus(-x)) * dy,
        normal((4, 5), scale=40),
    ),
    of_one(
        "sigmoid of 100",
        jax.nn.sigmoid,
        lambda x, y, dy: y * jax.nn.sigmoid(-x) * dy,
        normal((4, 5), scale=100),
    ),
    of_one("log1p", jnp.log1p, lambda x, y, dy: dy / (1 + x), positive((4, 5))),
    of_one("expm1", jnp.expm1, lambda x, y, dy: jnp.exp(x) * dy, normal((4, 5), scale=1e-3)),
    Case("sinc by its series", rule(sinc, sinc_backward), normal((4, 5))),
    of_one("square root by Newton", newton_sqrt, lambda x, y, dy: dy / (2 * y), positive((4, 5))),
    Case("sort", rule(jnp.sort, unsort), normal((4, 5))),
    of_one(
        "cumulative sum",
        lambda x: x.cumsum(-1),
        lambda x, y, dy: dy[:, ::-1].cumsum(-1)[:, ::-1],
        normal((4, 5)),
    ),
    of_one(
        "mean of 100,000 squares",
        lambda x: (x * x).mean(),
        lambda x, y, dy: x * (2 / x.size) * dy,
        normal((100_000,)),
    ),
    Case("one scale for 300,000", rule(scaled, scaled_backward), normal((300_000,), ())),
    Case("broadcast arguments", rule(scaled, scaled_backward), normal((4, 1, 3), (5, 1))),
]

CORRECT = KINKS + NUMERICS
