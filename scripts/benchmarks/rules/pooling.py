"""Pools by hand, and bugs in them."""

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
from jax import Array, lax

from benchmarks.rules.case import (
    FLIPPED,
    KINK,
    MEAN,
    SHIFTED,
    ZERO,
    Backward,
    Case,
    changed,
    normal,
    rule,
)


def max_pool(x: Array, size: int = 2, strides: int = 2) -> Array:
    """The largest element of each window; what is left over at the end is not read."""
    window, steps = (1, size, size, 1), (1, strides, strides, 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, steps, "VALID")


def avg_pool(x: Array, size: int = 2, strides: int = 2, pad: int = 0) -> Array:
    """The mean of each window's elements, of which padding is none."""
    return window_sum(x, size, strides, pad) / window_sum(jnp.ones_like(x), size, strides, pad)


def window_sum(x: Array, size: int, strides: int, pad: int) -> Array:
    window, steps = (1, size, size, 1), (1, strides, strides, 1)
    pads = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    return lax.reduce_window(x, 0.0, lax.add, window, steps, pads)


def taps(y: Array, size: int, strides: int) -> list[tuple[slice, ...]]:
    """For each place in a window, where all windows together read it."""
    rows, columns = (strides * (n - 1) + 1 for n in y.shape[1:3])
    return [
        (slice(None), slice(i, i + rows, strides), slice(j, j + columns, strides))
        for i in range(size)
        for j in range(size)
    ]


def to_first(x: Array, y: Array, places: list[tuple[slice, ...]]) -> list[Array]:
    """The share of each place: all is the first winner's."""
    left = jnp.ones_like(y)
    shares = []
    for place in places:
        shares.append(jnp.where(x[place] == y, left, 0))
        left = left - shares[-1]
    return shares


def to_last(x: Array, y: Array, places: list[tuple[slice, ...]]) -> list[Array]:
    """All is the last winner's."""
    return to_first(x, y, places[::-1])[::-1]


def to_each(x: Array, y: Array, places: list[tuple[slice, ...]]) -> list[Array]:
    """Each winner has all of it."""
    return [(x[place] == y).astype(y.dtype) for place in places]


def to_equals(x: Array, y: Array, places: list[tuple[slice, ...]], power: float = 1) -> list[Array]:
    """Winners have equal parts, which sum to 1 if the power is 1."""
    wins = to_each(x, y, places)
    return [win / sum(wins) ** power for win in wins]


def to_last_place(x: Array, y: Array, places: list[tuple[slice, ...]]) -> list[Array]:
    """All is the last element's, whichever has won."""
    return [jnp.zeros_like(y)] * (len(places) - 1) + [jnp.ones_like(y)]


def to_least(x: Array, y: Array, places: list[tuple[slice, ...]]) -> list[Array]:
    """All is the smallest element's."""
    return to_first(x, jnp.stack([x[place] for place in places]).min(0), places)


def to_positive(x: Array, y: Array, places: list[tuple[slice, ...]]) -> list[Array]:
    """The first winner's, and none's where the maximum is negative."""
    return [jnp.where(y > 0, share, 0) for share in to_first(x, y, places)]


def max_backward(shares: Callable = to_first, size: int = 2, strides: int = 2) -> Backward:
    """Each dy[o] to its window's elements, as `shares` says."""

    def backward(args: tuple, y: Array, dy: Array) -> tuple:
        (x,) = args
        dx = jnp.zeros_like(x)
        places = taps(y, size, strides)
        for place, share in zip(places, shares(x, y, places), strict=True):
            dx = dx.at[place].add(share * dy)
        return (dx,)

    return backward


def overwriting(args: tuple, y: Array, dy: Array) -> tuple:
    """Where windows overlap the last one has its gradient written."""
    (x,) = args
    dx = jnp.zeros_like(x)
    places = taps(y, 3, 1)
    for place, share in zip(places, to_first(x, y, places), strict=True):
        dx = dx.at[place].set(jnp.where(share > 0, dy, dx[place]))
    return (dx,)


def avg_backward(
    args: tuple, y: Array, dy: Array, size: int = 2, strides: int = 2, pad: int = 0
) -> tuple:
    """Each dy[o], divided by its window's count, to all of its elements."""
    (x,) = args
    return spread(x, dy / window_sum(jnp.ones_like(x), size, strides, pad), size, strides, pad)


def spread(x: Array, dy: Array, size: int, strides: int, pad: int) -> tuple:
    dx = jnp.pad(jnp.zeros_like(x), [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    for place in taps(dy, size, strides):
        dx = dx.at[place].add(dy)
    return (dx[:, pad : pad + x.shape[1], pad : pad + x.shape[2]],)


def repeated_to_the_end(args: tuple, y: Array, dy: Array) -> tuple:
    """What no window reads has its neighbour's gradient: seen where there are left-overs alone."""
    (x,) = args
    rows, columns = (jnp.minimum(jnp.arange(n) // 2, n // 2 - 1) for n in x.shape[1:3])
    return (dy[:, rows][:, :, columns] / 4,)


def global_mean(x: Array) -> Array:
    """The mean of each image's channels."""
    return x.mean((1, 2))


def max_bug(name: str, shares: Callable, *says: str) -> Case:
    f = rule(max_pool, max_backward(shares))
    return Case(f"max pool: {name}", f, normal((2, 6, 6, 2)), says)


OVERLAPPING = rule(
    partial(max_pool, size=3, strides=1),
    changed(max_backward(size=3, strides=1), 0, lambda d: d.at[:, -1].set(0)),
)

BUGS = [
    max_bug("each of the tied has all", to_each, *KINK),
    max_bug("shares of a tie are too small", partial(to_equals, power=2), *KINK),
    max_bug("to the last place", to_last_place, "place", "position", "winner", "element"),
    max_bug("to the least", to_least, "negated", "place", "position", "winner", "element"),
    max_bug("negative maxima pass nothing", to_positive, "negative", "x <", "below 0", "masked"),
    Case(
        "overlapping max pool: overwrites",
        rule(partial(max_pool, size=3, strides=1), overwriting),
        normal((2, 6, 6, 2)),
        ("overlap", "overwr", "several windows"),
    ),
    Case(
        "overlapping max pool: last row missing",
        OVERLAPPING,
        normal((2, 6, 6, 2)),
        ("last", "border", "edge", *ZERO),
    ),
    Case(
        "avg pool: not divided",
        rule(avg_pool, changed(avg_backward, 0, lambda d: 4 * d)),
        normal((2, 6, 6, 2)),
        MEAN,
    ),
    Case(
        "avg pool: upside down",
        rule(avg_pool, changed(avg_backward, 0, lambda d: d[:, ::-1])),
        normal((2, 6, 6, 2)),
        FLIPPED,
    ),
    Case(
        "avg pool: one column to the right",
        rule(avg_pool, changed(avg_backward, 0, lambda d: jnp.roll(d, 1, 2))),
        normal((2, 6, 6, 2)),
        SHIFTED,
    ),
    Case(
        "padded avg pool: padding is counted",
        rule(
            partial(avg_pool, size=3, strides=1, pad=1),
            lambda args, y, dy: spread(args[0], dy / 9, 3, 1, 1),
        ),
        normal((2, 6, 6, 2)),
        ("border", "edge", "corner"),
    ),
    Case(
        "avg pool: wrong at odd sizes",
        rule(avg_pool, repeated_to_the_end),
        normal((2, 6, 6, 2)),
        ("size", "shape", "odd"),
    ),
    Case(
        "global mean: divided by the rows alone",
        rule(
            global_mean,
            lambda args, y, dy: (
                jnp.broadcast_to(dy[:, None, None] / args[0].shape[1], args[0].shape),
            ),
        ),
        normal((2, 4, 4, 3)),
        MEAN,
    ),
]
