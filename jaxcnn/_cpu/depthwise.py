"""Depthwise convolution: shift, multiply, add.

Each channel meets its own taps alone, so that there is no matrix to multiply. XLA:CPU runs a naive
loop over every output. Here each tap is one product of two arrays, and XLA makes a single loop of
them all, over channels, which are next to each other and fill the vector registers.

The kernel's gradient has a sum of such products for each tap. One `lax.reduce` of several arrays
is one loop of XLA's with all their sums, of which it keeps those over few rows of an image in
registers, and reads an element of x or dy once for the taps that meet it. So rows are summed by
eights, and then these sums by eights.
"""

import functools
import operator
from functools import partial

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
from jaxcnn._taps import gather, pad, read
from jaxcnn._window import Sizes, Window

# Elements of padded images at once: 32 MiB in float32. By parts what pads them would not be one
# loop with what made them, nor would its results be where they stay: twice the time, within a
# program. But the system hands out anew what is larger.
WHOLE = 2**23
ROWS = 8  # summed in one loop,
TERMS = 72  # of so many products: LLVM does not write out the loop over rows if there are more
SMALL = 4  # rows of images, for which copies and sums of sums cost more than they save


def forward(x: Array, kernel: Array, window: Window, finish: Finish = as_it_is) -> Tree:
    """`finish(y)` with `y[o] = sum_t x_t[o] kernel[t]`."""
    by_tap = kernel.reshape(-1, kernel.shape[-1])

    def part(x: Array) -> Tree:
        # The barrier: or else each of the products would ask for every element if it is padding.
        padded = lax.optimization_barrier(pad(x, window.pads, 0))
        terms = (
            read(padded, offset, window) * taps
            for offset, taps in zip(window.offsets(), by_tap, strict=True)
        )
        return finish(functools.reduce(operator.add, terms))

    size = jax.eval_shape(lambda x: pad(x, window.pads, 0), x).size
    return map_parts(part, len(x) if size <= WHOLE else images_in_cache(x), x)


def input_grad(dy: Array, kernel: Array, window: Window) -> Array:
    """`dx = sum_t adjoint_t(dy kernel[t])`, gathered."""
    by_tap = kernel.reshape(-1, kernel.shape[-1])

    def written(tap: np.ndarray, dy: Array) -> Array:
        channel = np.arange(dy.shape[-1]) % kernel.shape[-1]
        return dy * jnp.where(tap >= 0, by_tap[np.maximum(tap, 0), channel], 0)

    return gather(window, (dy,), (0,), written)


def kernel_grad(x: Array, dy: Array, window: Window) -> Array:
    """`dkernel[t] = sum_{n,o} x_t[n,o] dy[n,o]`."""
    by_rows = window.outputs[_axis_of_rows(window)] > SMALL
    by_tap = (_sums_by_rows if by_rows else _sums_by_images)(x, dy, window)
    sums = [x.sum(range(x.ndim - 1)) for x in by_tap]
    return jnp.stack(sums).reshape(*window.taps, 1, x.shape[-1])


def _sums_by_images(x: Array, dy: Array, window: Window) -> list[Array]:
    """For each tap sums over images: of shape `(1, *windows, C)`, or more than one."""

    def part(x: Array, dy: Array) -> list[Array]:
        padded = pad(x, window.pads, 0)
        return [read(padded, offset, window) * dy for offset in window.offsets()]

    return sum_parts(part, images_per_part(len(x), 1), x, dy, at_once=2)


# Sums over rows ----------------------------------------------------------------------------------


def _sums_by_rows(x: Array, dy: Array, window: Window) -> list[Array]:
    """For each tap sums of sums over rows: `(images, some, C)`."""
    axis, channels, image = _axis_of_rows(window), x.shape[-1], x.shape[1:]
    rows, dy, window = _divided(dy, window, axis)
    outputs = dy.shape[axis + 2 :]
    if outputs[:-1] and window.strides[-1] == 1:
        outputs, image = _beside(outputs), _beside(image)
        window = _window_beside(window, channels)
    offsets = list(window.offsets())
    taps = min(TERMS // rows, len(offsets))
    entries = x[0].size + taps * dy[0].size // rows  # of an image and of its sums
    images = images_per_part(len(x), max(CACHE // entries, 1))
    by_row = (images, -1, rows, *outputs)

    def padded(x: Array) -> Array:
        # Beside, as always here: loops over few channels alone LLVM writes out, one by one.
        (low, high), last = window.pads[-1], image[-1]
        pads = (*window.pads[:-1], (low * last, high * last))
        wide = pad(x.reshape(images, *_beside(image)), pads, 0)
        return wide.reshape(*wide.shape[:-2], -1, last)

    def sums(padded: Array, dy: Array, some: list[Sizes]) -> list[Array]:
        dy = dy.reshape(by_row)
        return _sums([read(padded, offset, window).reshape(by_row) * dy for offset in some])

    def sums_of_sums(*sums: Array) -> list[Array]:
        count = sums[0].shape[1]
        some = max(n for n in range(1, ROWS + 1) if count % n == 0)
        return _sums([x.reshape(images, count // some, some, channels) for x in sums])

    def part(x: Array, dy: Array) -> list[Array]:
        x, by_tap = once(padded, x), []
        for first in range(0, len(offsets), taps):
            found = once(partial(sums, some=offsets[first : first + taps]), x, dy)
            by_tap += once(sums_of_sums, *(x.reshape(images, -1, channels) for x in found))
        return by_tap

    return sum_parts(part, images, x, dy, of_image=lambda x: _beside(x.shape[1:])[:-1])


def _axis_of_rows(window: Window) -> int:
    """The last but one, if there are two."""
    return max(len(window.taps) - 2, 0)


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


def _divided(dy: Array, window: Window, axis: int) -> tuple[int, Array, Window]:
    """How many rows one loop sums; dy and the window, made longer where these do not divide."""
    size = window.outputs[axis]
    most = min(size, ROWS)
    rows = min(range(most, most // 2, -1), key=lambda rows: -size % rows)
    if more := -size % rows:
        pads = list(window.pads)
        pads[axis] = pads[axis][0], pads[axis][1] + more * window.strides[axis]
        window = window._replace(pads=tuple(pads))
        dy = pad(dy, tuple((0, more * (a == axis)) for a in range(len(pads))), 0)
    return rows, dy, window


def _sums(arrays: list[Array]) -> list[Array]:
    """Of each its sums along the third axis, all in one loop."""
    zero = jnp.zeros((), arrays[0].dtype)

    def add(a: tuple[Array, ...], b: tuple[Array, ...]) -> list[Array]:
        return list(map(operator.add, a, b))

    return lax.reduce(arrays, [zero] * len(arrays), add, (2,))
