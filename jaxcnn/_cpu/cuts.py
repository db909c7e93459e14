"""One convolution as another: without strides, without dilation, or with an axis less.

By strides s, elements of x with different remainders by s meet different taps. Cut by remainders,
they are channels of their own, and so are the taps (`_taps.py`, (2)):

    i + p = s·j + r, d·t = s·q + r       y[o] = sum_{q,r,c} x'[o + q, (r,c)] kernel'[q, (r,c)]

Dilated by d, outputs of one remainder by d meet elements of one remainder alone. Cut so, they are
images of their own:

    o = d·a + r                          y'[r][a] = sum_{t,c} x'[r][a + t, c] kernel[t, c]

The outputs of one place u along the first axis meet as many slices of a volume as the kernel has
taps t along it. What they meet are channels of images, of which there are as many as places:

    x'[u][i, (t,c)] = x[s·u + d·t - p, i, c]        kernel'[q, (t,c)] = kernel[t, q, c]
    y[u] = x'[u] convolved with kernel'             dx[a] = sum of dx'[u][t] for s·u + d·t - p = a

for all that is behind the first axis: i in an image, q in a kernel of one axis less. The sum is
gathered from the taps: each one's slices, with s - 1 of zeros between, moved by d·t - p.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from jaxcnn._taps import pad
from jaxcnn._window import Sizes, Window, span


class Cut(NamedTuple):
    """A convolution under `window` between what these functions make: the same one."""

    window: Window
    image: Callable[[Array], Array]  # of x
    kernel: Callable[[Array], Array]  # of the kernel
    output: Callable[[Array], Array]  # of dy
    joined_output: Callable[[Array], Array]  # gives y
    kernel_grad: Callable[[Array], Array]  # gives dkernel
    image_grad: Callable[[Array], Array]  # gives dx
    images: int = 1  # for each of the batch
    channels: int = 1  # for each of x


def by_strides(window: Window) -> Cut:
    """Remainders by the strides are channels."""
    reach = tuple(map(span, window.taps, window.dilation))
    shifts = tuple(-(-k // s) for k, s in zip(reach, window.strides, strict=True))
    counts = tuple(o + q - 1 for o, q in zip(window.outputs, shifts, strict=True))
    axes = len(shifts)

    def kernel_by_shift(kernel: Array) -> Array:
        high = (q * s - k for q, s, k in zip(shifts, window.strides, reach, strict=True))
        spatial = [(0, more, d - 1) for more, d in zip(high, window.dilation, strict=True)]
        whole = lax.pad(kernel, jnp.zeros((), kernel.dtype), [*spatial, (0, 0, 0), (0, 0, 0)])
        split = _split(whole[None], shifts, window.strides)
        return split.reshape(*shifts, -1, kernel.shape[-1])

    def kernel_grad(dkernel: Array) -> Array:
        split = dkernel.reshape(1, *shifts, *window.strides, -1, dkernel.shape[-1])
        whole = _joined(split, axes)[0]
        slices = (slice(0, k, d) for k, d in zip(reach, window.dilation, strict=True))
        return whole[tuple(slices)]

    def image(x: Array) -> Array:
        split = _split(_padded(x, window, counts, window.strides), counts, window.strides)
        return split.reshape(len(x), *counts, -1)

    def image_grad(dx: Array) -> Array:
        split = dx.reshape(len(dx), *counts, *window.strides, -1)
        return _cropped(_joined(split, axes), window)

    smaller = Window(counts, shifts, *_plain(axes))
    times = math.prod(window.strides)
    return Cut(
        smaller, image, kernel_by_shift, _same, _same, kernel_grad, image_grad, channels=times
    )


def by_dilation(window: Window) -> Cut:
    """Remainders by the dilation are images. The strides are 1."""
    outputs = tuple(-(-o // d) for o, d in zip(window.outputs, window.dilation, strict=True))
    counts = tuple(o + k - 1 for o, k in zip(outputs, window.taps, strict=True))
    axes = len(outputs)

    def images(x: Array, counts: Sizes) -> Array:
        split = _split(x, counts, window.dilation)
        order = (0, *range(axes + 1, 2 * axes + 1), *range(1, axes + 1), 2 * axes + 1)
        return split.transpose(order).reshape(-1, *counts, x.shape[-1])

    def image(x: Array) -> Array:
        padded = _padded(x, window, counts, window.dilation)
        return images(padded, counts)

    def output(dy: Array) -> Array:
        whole = zip(outputs, window.dilation, window.outputs, strict=True)
        padded = pad(dy, tuple((0, n * d - o) for n, d, o in whole), 0)
        return images(padded, outputs)

    def joined(x: Array, counts: Sizes) -> Array:
        split = x.reshape(-1, *window.dilation, *counts, x.shape[-1])
        order = (0, *range(axes + 1, 2 * axes + 1), *range(1, axes + 1), 2 * axes + 1)
        return _joined(split.transpose(order), axes)

    def joined_output(y: Array) -> Array:
        whole = joined(y, outputs)
        return whole[(slice(None), *(slice(0, o) for o in window.outputs))]

    def image_grad(dx: Array) -> Array:
        return _cropped(joined(dx, counts), window)

    smaller = Window(counts, window.taps, *_plain(axes))
    times = math.prod(window.dilation)
    return Cut(smaller, image, _same, output, joined_output, _same, image_grad, images=times)


def by_first_axis(window: Window) -> Cut:
    """Places along the first axis are images, the taps that meet there channels."""
    size, taps, stride, (low, _), dilation, _ = next(zip(*window, strict=True))
    places = window.outputs[0]
    reach = stride * (places - 1) + span(taps, dilation)

    def image(x: Array) -> Array:
        behind = [(0, 0, 0)] * (x.ndim - 2)
        edges = [(0, 0, 0), (low, reach - low - size, 0), *behind]
        padded = lax.pad(x, jnp.zeros((), x.dtype), edges)
        slices = [
            lax.slice_in_dim(padded, at, at + stride * (places - 1) + 1, stride, 1)
            for at in range(0, taps * dilation, dilation)
        ]
        return jnp.concatenate(slices, -1).reshape(-1, *x.shape[2:-1], taps * x.shape[-1])

    def kernel_by_slice(kernel: Array) -> Array:
        last = jnp.moveaxis(kernel, 0, -3)
        return last.reshape(*kernel.shape[1:-2], -1, kernel.shape[-1])

    def kernel_grad(dkernel: Array) -> Array:
        split = dkernel.reshape(*window.taps[1:], taps, -1, dkernel.shape[-1])
        return jnp.moveaxis(split, -3, 0)

    def output(dy: Array) -> Array:
        return dy.reshape(-1, *dy.shape[2:])

    def joined_output(y: Array) -> Array:
        return y.reshape(-1, places, *y.shape[1:])

    def image_grad(dx: Array) -> Array:
        behind = [(0, 0, 0)] * (dx.ndim - 1)
        terms = []
        for tap, slices in enumerate(jnp.split(joined_output(dx), taps, -1)):
            first = dilation * tap - low
            after_last = size - first - span(places, stride)
            edges = [(0, 0, 0), (first, after_last, stride - 1), *behind]
            terms.append(lax.pad(slices, jnp.zeros((), dx.dtype), edges))
        return functools.reduce(operator.add, terms)

    smaller = Window._make(along[1:] for along in window)
    return Cut(
        smaller,
        image,
        kernel_by_slice,
        output,
        joined_output,
        kernel_grad,
        image_grad,
        images=places,
        channels=taps,
    )


def _same(x: Array) -> Array:
    return x


def _plain(axes: int) -> tuple[Sizes, tuple[tuple[int, int], ...], Sizes, Sizes]:
    """Strides, pads, dilation and input dilation of a window that has none."""
    ones = (1,) * axes
    return ones, ((0, 0),) * axes, ones, ones


def _padded(x: Array, window: Window, counts: Sizes, steps: Sizes) -> Array:
    """Padded before, and behind to `counts` times `steps`."""
    axes = zip(window.pads, window.size, counts, steps, strict=True)
    return pad(x, tuple((low, n * step - low - size) for (low, _), size, n, step in axes), 0)


def _cropped(x: Array, window: Window) -> Array:
    """The inverse of `_padded`."""
    axes = zip(window.pads, window.size, x.shape[1:-1], strict=True)
    return pad(x, tuple((-low, low + size - whole) for (low, _), size, whole in axes), 0)


def _split(x: Array, counts: Sizes, steps: Sizes) -> Array:
    """`(N, *counts, *steps, ...)`, of spatial axes of counts times steps."""
    axes = len(counts)
    both = (n for pair in zip(counts, steps, strict=True) for n in pair)
    x = x.reshape(len(x), *both, *x.shape[1 + axes :])
    order = (0, *range(1, 2 * axes, 2), *range(2, 2 * axes + 1, 2))
    return x.transpose(*order, *range(2 * axes + 1, x.ndim))


def _joined(x: Array, axes: int) -> Array:
    """The inverse of `_split`."""
    order = (n for axis in range(axes) for n in (1 + axis, 1 + axes + axis))
    whole = (x.shape[1 + axis] * x.shape[1 + axes + axis] for axis in range(axes))
    return x.transpose(0, *order, *range(2 * axes + 1, x.ndim)).reshape(
        len(x), *whole, *x.shape[2 * axes + 1 :]
    )
