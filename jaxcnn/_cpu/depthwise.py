"""Depthwise convolution: shift, multiply, add.

Each channel meets its own taps alone, so that there is no matrix to multiply. XLA:CPU runs a naive
loop over every output. Here each tap is one product of two arrays, and XLA makes a single loop of
them all, over channels, which are next to each other and fill the vector registers.

In groups of g channels, to as many, a channel also meets those up to g - 1 before and behind it. So
images are shifted along their channels, too, by s, and a kernel has zeros where that leads out of a
group: with x_{s,t}[c] = x_t[c + s],

    y[o,c] = sum_{s,t} x_{s,t}[o,c] kernel[s,t,c]      kernel[s,t,c] = kernel[t, c mod g + s, c]

which is 2 g - 1 products where g count, and Inf and NaN times zero is NaN. One channel a group has
the shift 0 alone.

The kernel's gradient is what multiplies kernel[t,i,c] in the sum of dy y, i being c mod g + s:

    dkernel[t,i,c] = sum_{n,o} x_{s,t}[n,o,c] dy[n,o,c]      s = i - c mod g

It has a sum of products for each shift and tap. One `lax.reduce` of several arrays is one loop of
XLA's with all their sums, of which it keeps those over few rows of an image in registers, and reads
an element of x or dy once for the taps that meet it. So up to eight rows are summed, and then up to
eight of these sums.
"""

import functools
import itertools
import math
import operator
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn._cpu.parts import (
    CACHE,
    Finish,
    Tree,
    as_it_is,
    images_in_cache,
    images_per_part,
    map_parts,
    once,
    sum_parts,
)
from jaxcnn._taps import gather, pad, read, read_all, take
from jaxcnn._window import Pads, Sizes, Window

# Elements of images that are padded at once: 16 MiB in float32, or 32 MiB where the results are as
# large; what is larger the system hands out anew. By parts what pads them would not be one loop
# with what made them, nor would its results be where they stay: twice the time, within a program.
WHOLE = 2**22
ROWS = 8  # summed in one loop,
TERMS = 72  # of so many products: LLVM does not write out the loop over rows if there are more
WIDE = 128  # channels: loops over fewer, if short, LLVM writes out and does not vectorise
SMALL = 4  # rows of images, for which copies and sums of sums cost more than they save


def forward(x: Array, kernel: Array, window: Window, finish: Finish = as_it_is) -> Tree:
    """`finish(y)` with `y[o] = sum_{s,t} x_{s,t}[o] kernel[s,t]`."""
    within, channels = kernel.shape[-2:]
    by_term = kernel.reshape(-1, channels) if within == 1 else once(_by_shift, kernel)

    def part(x: Array) -> Tree:
        # The barrier: or else each of the products would ask for every element if it is padding.
        padded = lax.optimization_barrier(_padded(x, window.pads, within - 1, within > 1))
        terms = (
            read(_shifted(padded, shift, within - 1, channels), offset, window) * taps
            for (shift, offset), taps in zip(_terms(within, window), by_term, strict=True)
        )
        return finish(functools.reduce(operator.add, terms))

    image = jax.eval_shape(lambda x: pad(x, window.pads, 0), x)
    whole = x.size <= WHOLE or (max(window.strides) == 1 and image.size <= 2 * WHOLE)
    return map_parts(part, len(x) if whole else images_in_cache(x), x)


def input_grad(dy: Array, kernel: Array, window: Window) -> Array:
    """`dx = sum_t adjoint_t(dy kernel[t])`, gathered."""
    by_tap = kernel.reshape(-1, kernel.shape[-1])

    def written(tap: np.ndarray, dy: Array) -> Array:
        channel = np.arange(dy.shape[-1]) % kernel.shape[-1]
        # Where there is no tap the last is read, and its product dropped: not the first, for XLA
        # compiles an index of zeros alone once more.
        return dy * jnp.where(tap >= 0, by_tap[tap % len(by_tap), channel], 0)

    return gather(window, (dy,), (0,), written)


def kernel_grad(x: Array, dy: Array, window: Window, within: int = 1, exact: bool = False) -> Array:
    """`dkernel[s,t] = sum_{n,o} x_{s,t}[n,o] dy[n,o]`, `within` being the channels of a group.

    `exact` is to multiply by no zeros but those of padding.
    """
    if within == 1 and has_few_rows(window):
        by_term = _by_images(x, dy, window)
    else:
        sums = _sums_by_rows(x, dy, window, within, exact)
        by_term = jnp.stack([x.sum(range(x.ndim - 1)) for x in sums])
    return _by_channel(by_term, within).reshape(*window.taps, within, x.shape[-1])


def _by_images(x: Array, dy: Array, window: Window) -> Array:
    """`(taps, C)`: over images first, by a sum for all taps along the last axis at a time.

    One for each tap would be faster by a fifth, and three times as many loops to compile.
    """
    last, channels = len(window.taps) - 1, x.shape[-1]
    outer = window._replace(taps=(*window.taps[:-1], 1))

    def part(x: Array, dy: Array) -> list[Array]:
        # Written: or else each of the sums would work it out again.
        by_last = once(lambda x: read_all(pad(x, window.pads, 0), window, (last,)), x)
        met = (
            take(by_last, offset, window.outputs, (*window.strides[:-1], 1))
            for offset in outer.offsets()
        )
        return [x.reshape(*dy.shape[:-1], -1, channels) * dy[..., None, :] for x in met]

    sums = sum_parts(part, images_per_part(len(x), 1), x, dy, at_once=2)
    return jnp.concatenate([x.sum(range(x.ndim - 2)) for x in sums])


# Sums over rows ----------------------------------------------------------------------------------


def has_few_rows(window: Window) -> bool:
    """So few that the sums over them take longer than other ways."""
    return window.outputs[_axis_of_rows(window)] <= SMALL


def _sums_by_rows(x: Array, dy: Array, window: Window, within: int, exact: bool) -> list[Array]:
    """For each shift and tap sums of sums over rows: `(images, some, C)`."""
    axis, channels, image = _axis_of_rows(window), x.shape[-1], x.shape[1:]
    rows, dy, window = _divided(dy, window, axis, exact)
    pads, outputs = window.pads, dy.shape[axis + 2 :]
    beside = within > 1 or channels < WIDE
    if beside and outputs[:-1] and window.strides[-1] == 1:
        outputs, window = _beside(outputs), _window_beside(window, channels)
    terms = list(_terms(within, window))
    most = min(TERMS // rows, len(terms))
    entries = math.prod(x.shape[1:]) + most * math.prod(dy.shape[1:]) // rows  # with its sums
    images = images_per_part(len(x), max(CACHE // entries, 1))
    by_row = (images, -1, rows, *outputs)

    def pad_images(x: Array) -> Array:
        return _padded(x.reshape(images, *image), pads, within - 1, beside)

    def sum_rows(padded: Array, dy: Array, some: list[tuple[int, Sizes]]) -> list[Array]:
        dy = dy.reshape(by_row)
        met = (
            read(_shifted(padded, shift, within - 1, outputs[-1]), offset, window)
            for shift, offset in some
        )
        return _sums([x.reshape(by_row) * dy for x in met])

    def sum_sums(*sums: Array) -> list[Array]:
        count = sums[0].shape[1]
        some = max(n for n in range(1, ROWS + 1) if count % n == 0)
        return _sums([x.reshape(images, count // some, some, channels) for x in sums])

    def part(x: Array, dy: Array) -> list[Array]:
        # Beside, the fastest axis is padded, too, and a loop that does so as it reads from where a
        # part begins is not vectorised: the part is copied first. Without padding there it is not.
        padded = once(pad_images, x) if beside else pad_images(x)
        by_term: list[Array] = []
        for first in range(0, len(terms), most):
            found = sum_rows(padded, dy, terms[first : first + most])
            by_term += once(sum_sums, *(x.reshape(images, -1, channels) for x in found))
        return by_term

    def of_image(x: Array) -> Sizes:
        return _beside(x.shape[1:])[:-1] if beside else x.shape[1:]

    return sum_parts(part, images, x, dy, of_image=of_image)


def _axis_of_rows(window: Window) -> int:
    """The last but one, if there are two."""
    return max(len(window.taps) - 2, 0)


def _divided(dy: Array, window: Window, axis: int, exact: bool) -> tuple[int, Array, Window]:
    """How many rows one loop sums; dy and the window, made longer where these do not divide."""
    size = window.outputs[axis]
    most = min(size, ROWS)
    least = 0 if exact else most // 2  # exactly: one row, which divides, at worst
    rows = min(range(most, least, -1), key=lambda rows: -size % rows)
    if more := -size % rows:
        pads = list(window.pads)
        pads[axis] = pads[axis][0], pads[axis][1] + more * window.strides[axis]
        window = window._replace(pads=tuple(pads))
        dy = pad(dy, tuple((0, more * (a == axis)) for a in range(len(pads))), 0)
    return rows, dy, window


def _sums(arrays: list[Array]) -> list[Array]:
    """Of each its sums along the third axis, all in one loop."""
    zero = jnp.zeros((), arrays[0].dtype)
    return lax.reduce(arrays, [zero] * len(arrays), _add, (2,))


def _add(a: list[Array], b: list[Array]) -> list[Array]:
    return list(map(operator.add, a, b))


# Beside: the last axis and the channels in one ---------------------------------------------------


def _beside(shape: Sizes) -> Sizes:
    """With the last axis and the channels in one, which has one channel."""
    return (*shape[:-2], shape[-2] * shape[-1], 1)


def _window_beside(window: Window, channels: int) -> Window:
    """The same window over what is beside: the last stride is 1."""
    *sizes, size = window.size
    *pads, (low, high) = window.pads
    return window._replace(
        size=(*sizes, size * channels),
        pads=(*pads, (low * channels, high * channels)),
        dilation=(*window.dilation[:-1], window.dilation[-1] * channels),
    )


def _padded(x: Array, pads: Pads, reach: int, beside: bool) -> Array:
    """Padded; beside, with `reach` more at both ends: `(..., reach + size · C + reach, 1)`.

    What is more meets the zeros of kernels; of the kernel's gradient, what has no place there.
    """
    if not beside:
        return pad(x, pads, 0)
    channels, (low, high) = x.shape[-1], pads[-1]
    ends = (low * channels + reach, high * channels + reach)
    return pad(x.reshape(*_beside(x.shape)), (*pads[:-1], ends), 0)


def _shifted(padded: Array, shift: int, reach: int, channels: int) -> Array:
    """What is padded, each channel in the place of that `shift` before it."""
    if padded.shape[-1] == channels:
        return lax.slice_in_dim(padded, reach + shift, padded.shape[-2] - reach + shift, axis=-2)
    moved = _shifted(padded, shift, reach, 1)
    return moved.reshape(*moved.shape[:-2], -1, channels)


# Groups of a few channels ------------------------------------------------------------------------


def _terms(within: int, window: Window) -> Iterator[tuple[int, Sizes]]:
    """Each shift along the channels, with each tap."""
    return itertools.product(range(1 - within, within), window.offsets())


def _by_shift(kernel: Array) -> Array:
    """`(shifts · taps, C)`: zero where a shift leads out of the group."""
    within, channels = kernel.shape[-2:]
    by_tap, channel = kernel.reshape(-1, within, channels), np.arange(channels)
    shifted = []
    for shift in range(1 - within, within):
        met = channel % within + shift  # in the group
        inside = (met >= 0) & (met < within)
        shifted.append(jnp.where(inside, by_tap[:, np.where(inside, met, 0), channel], 0))
    return jnp.concatenate(shifted)


def _by_channel(by_term: Array, within: int) -> Array:
    """`(taps, channels of a group, C)` of `(shifts · taps, C)`: each channel i by s = i - c mod g.

    What shifts out of the group have found is left out.
    """
    channel = np.arange(by_term.shape[-1])
    by_tap = by_term.reshape(2 * within - 1, -1, len(channel)).swapaxes(0, 1)
    met = (by_tap[:, i - channel % within + within - 1, channel] for i in range(within))
    return jnp.stack(list(met), 1)
