"""Reading and writing images tap by tap, for every window at once.

    x   (..., H, W, C)     images, of the size that a window moves over
    v   (..., P, Q, C)     one value a window

With strides s, dilation d and low pads p, tap t of window o reads

    x_t[o] = x[s·o + d·t - p]                                                                  (1)

Its adjoint writes v back to where the tap read, and drops what it read of the padding. The sum of
what all taps write, v_t being written by tap t, is gathered: for each element of x, from the
windows that hold it. Of the places i, take by turns those with one remainder r of i + a by s,

    i + a = s·j + r    sum_t adjoint_t(v_t)[i] = sum_q v_t[j - q]  with  d·t = s·q + r + p - a (2)

For each q at most one tap fits: which, is a table of q and r. So there are as many terms as windows
that can hold one element (one, where windows do not overlap), none of them multiplied by zero, and
nothing is scattered; j and r are axes of their own, and their merging moves no memory. Any a from
0 on will do: it is 0, which has the fewest j, or else, where that saves a q, the remainder of p.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn._window import Pads, Sizes, Window, span

FEW = 16  # channels, which hardly fill the registers


def pad(x: Array, pads: Pads, value: float) -> Array:
    """The spatial axes padded with `value`; by less than nothing, cropped."""
    if not any(map(any, pads)):
        return x
    batch = [(0, 0, 0)] * (x.ndim - len(pads) - 1)
    spatial = [(low, high, 0) for low, high in pads]
    return lax.pad(x, jnp.array(value, x.dtype), [*batch, *spatial, (0, 0, 0)])


def read(padded: Array, offset: Sizes, window: Window) -> Array:
    """(1) of padded images, by the tap at `offset`, which is d·t."""
    return take(padded, offset, window.outputs, window.strides)


def read_all(padded: Array, window: Window, axes: Sequence[int] | None = None) -> Array:
    """(1) by all taps, or those along some axes, one axis after another: `(..., taps · C)`.

    XLA:CPU has a single loop for what is joined of at most 8 arrays, along any axis but the last;
    what else is joined it writes one by one.
    """
    x, spatial = padded, len(window.taps)
    for axis in reversed(range(spatial) if axes is None else axes):
        taps, dilation, stride = window.taps[axis], window.dilation[axis], window.strides[axis]
        at, reach = axis - spatial - 1, span(window.outputs[axis], stride)
        met = [
            lax.slice_in_dim(x, first, first + reach, stride, at)[..., None, :]
            for first in range(0, taps * dilation, dilation)
        ]
        x = lax.collapse(jnp.concatenate(met, -2), -2)
    return x


def take(x: Array, start: Sizes, count: Sizes, strides: Sizes) -> Array:
    """`count` elements along each spatial axis, from `start` on, `strides` apart."""
    batch = (0,) * (x.ndim - len(start) - 1)
    # Where no window fits nothing is read, from inside.
    first = tuple(map(min, start, x.shape[len(batch) : -1]))
    limit = tuple(at + span(n, s) for at, n, s in zip(first, count, strides, strict=True))
    return lax.slice(
        x,
        (*batch, *first, 0),
        (*x.shape[: len(batch)], *limit, x.shape[-1]),
        (*(1 for _ in batch), *strides, 1),
    )


def largest(candidates: Iterable[Array], winner: Array) -> tuple[Array, Array]:
    """The elementwise largest, a NaN before all others, and the number of the first that it is.

    `winner` is that number where the first candidate is the largest, and has the dtype.
    """
    first, *others = candidates
    y, winner = first, jnp.zeros(first.shape, winner.dtype) + winner
    for number, x in enumerate(others, 1):
        wins = ~(x <= y) & ~jnp.isnan(y)  # larger, or the first NaN
        y = jnp.where(wins, x, y)
        winner = jnp.where(wins, jnp.array(number, winner.dtype), winner)
    return y, winner


def gather(
    window: Window, arrays: Sequence[Array], fills: Sequence[float], term: Callable[..., Array]
) -> Array:
    """(2), in images of `window.size`.

    Args:
        window: the geometry.
        arrays: what `v_t` is made of, each `(..., P, Q, C)`.
        fills: what stands for each of them where there is no window: `v_t` is 0 of these.
        term: `term(tap, *arrays)` is `v_t`; `tap` has the numbers of the taps, or -1 for none,
            and broadcasts against the arrays. Channels are the last axis, or the end of it.
    """
    tables, counts, pads = writers(window)
    padded = [pad(array, pads, fill) for array, fill in zip(arrays, fills, strict=True)]
    *batch, channels = arrays[0].shape[: -len(counts) - 1] + arrays[0].shape[-1:]
    split = (*batch, *(size for count in counts for size in (count, 1)), channels)
    # Few channels do not fill the registers: then the last axis, its j and r, goes beside them.
    last = (counts[-1], tables[-1].shape[1], channels)
    beside = channels <= FEW and last[1] > 1
    total: Array | None = None
    for shift in itertools.product(*(range(len(table)) for table in tables)):
        tap = np.zeros((), int)
        for table, row, taps in zip(tables, shift, window.taps, strict=True):
            along = table[row][:, None]  # the axis of r, and room for that of j
            tap = tap[..., None, None]
            tap = np.where((tap < 0) | (along < 0), -1, tap * taps + along)
        if (tap < 0).all():  # by dilation, no window that far away
            continue
        start = tuple(len(table) - 1 - row for table, row in zip(tables, shift, strict=True))
        ones = (1,) * len(counts)
        shifted = [take(array, start, counts, ones).reshape(split) for array in padded]
        if beside:
            tap = _flat(np, np.broadcast_to(tap, (*tap.shape[:-3], *last)))
            shifted = [_flat(jnp, jnp.broadcast_to(x, (*split[:-3], *last))) for x in shifted]
        added = term(tap, *shifted)
        total = added if total is None else total + added
    assert total is not None
    return merge(total.reshape(*total.shape[:-1], *last) if beside else total, window)


def _flat(library: Any, x: Any) -> Any:
    return library.reshape(x, (*x.shape[:-3], math.prod(x.shape[-3:])))


def merge(x: Array, window: Window) -> Array:
    """Images of `window.size` from `(..., j, r, j, r, C)`, which are their elements by (2)."""
    first = x.ndim - 2 * len(window.size) - 1
    crop = []
    for axis, (size, (_, a)) in enumerate(zip(window.size, _steps(window), strict=True), first):
        # One at a time, which explicit sharding allows.
        x = lax.collapse(x, axis, axis + 2)
        crop.append((-a, size + a - x.shape[axis]))
    return pad(x, tuple(crop), 0)


def writers(window: Window) -> tuple[list[np.ndarray], Sizes, Pads]:
    """Along each axis: the tap by q and r of (2), -1 for none, with a row for each q from the least
    to the largest that has one; how many j there are; and the pads under which `v[j - q]` is to be
    read from `(number of rows) - 1 - row` on.

    >>> writers(Window((8,), (3,), (2,), ((1, 1),), (1,), (1,)))
    ([array([[-1,  0],
           [ 1,  2]])], (4,), ((0, 1),))
    """
    tables, counts, pads = [], [], []
    for n, k, (low, _), d, outputs, (s, a) in zip(
        window.size,
        window.taps,
        window.pads,
        window.dilation,
        window.outputs,
        _steps(window),
        strict=True,
    ):
        least, most = _shifts(span(k, d), s, low - a)
        reach = np.arange(least, most + 1)[:, None] * s + np.arange(s) + low - a
        met = (reach >= 0) & (reach < span(k, d)) & (reach % d == 0)
        tables.append(np.where(met, reach // d, -1))
        counts.append(-(-(n + a) // s))
        pads.append((most, counts[-1] - least - outputs))
    return tables, tuple(counts), tuple(pads)


def _steps(window: Window) -> list[tuple[int, int]]:
    """Along each axis, s and a of (2).

    A lone window is given steps of its own span, so that it meets every element with one q.
    """
    steps = []
    for k, s, (low, _), d, outputs in zip(
        window.taps, window.strides, window.pads, window.dilation, window.outputs, strict=True
    ):
        stride = span(k, d) if outputs == 1 else s
        steps.append((stride, _origin(span(k, d), stride, low)))
    return steps


def _origin(reach: int, stride: int, low: int) -> int:
    """The a of (2): 0, or where that has fewer q, the remainder of p by s."""

    def number(a: int) -> int:
        least, most = _shifts(reach, stride, low - a)
        return most - least

    return min(0, low % stride, key=number)


def _shifts(reach: int, stride: int, ahead: int) -> tuple[int, int]:
    """The least and the largest q of (2), of windows that reach so far; `ahead` is p - a."""
    return -((ahead + stride - 1) // stride), (reach - 1 - ahead) // stride


def turned(kernel: Array, groups: int) -> Array:
    """The kernel turned by 180 degrees, its channels in and out in each other's places.

    From `(*taps, C / groups, O)` to `(*taps, O / groups, C)`, and back.
    """
    *taps, inputs, outputs = kernel.shape
    by_group = jnp.flip(kernel, range(len(taps))).reshape(*taps, inputs, groups, outputs // groups)
    return by_group.swapaxes(-3, -1).reshape(*taps, outputs // groups, groups * inputs)
