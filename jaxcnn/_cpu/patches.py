"""Convolution as matrix multiplication: what a window meets is a row, the kernel is a matrix.

    row (n,o), column (t,c)    x[n, s·o + d·t - p, c]

    forward        y = rows · matrix
    kernel         dmatrix = rowsᵀ · dy
    input          drows = dy · matrixᵀ
                   dx[n,i] = sum of drows[(n,o), t] for s·o + d·t - p = i

The rows of a whole batch would be as many times as large as the images as the kernel has taps. They
are made and consumed by parts of the batch that fit the cache; of images of which not even one
does, by bands of an image. XLA:CPU evaluates a kernel's gradient by a loop that is not blocked for
the cache at all, and has memory for all of drows. Here those of one part are added up without being
scattered: elements of x with one remainder by the strides have the same taps to add (`_taps.py`,
(2)).

For the kernel's gradient a window's taps may also be divided between rows of x and rows of dy, each
with as many as there are along one axis, not with their product (its strides are 1):

    dkernel[t,u] = sum_i x[i, · + u] dy[i - t, ·]

Where there are few channels out, a matrix of so few columns would not fill the registers. So a row
is what `block` windows, next to each other along the last axis, meet together, and the matrix has a
column for each of them: the kernel, moved down by a stride from one to the next, with zeros around
it. The zeros cost less than the rows, fewer by as much, save. (But Inf and NaN times zero is NaN.)

Where fewer channels go out than come in, it costs less to multiply first, every element by the
kernel's whole matrix, and to add what belongs to one window after that:

    z = x · kernel (each element by each tap's matrix)       y[o] = sum_t z_t[o + d·t - p]

Source: Chellapilla et al., "High performance convolutional neural networks for document
processing", 2006, for the rows.
"""

import functools
import math
import operator
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn._cpu.parts import Finish, Tree, as_it_is, images_per_part, map_parts, once, sum_parts
from jaxcnn._taps import merge, pad, read, read_all, writers
from jaxcnn._window import Pads, Sizes, Window, span

PART = 2**20  # elements of the rows of one part: 4 MiB in float32
FEW_PARTS = 3  # or fewer are one: a loop over them takes as long as they save
PRODUCTS = 2**23  # elements of z of one part: that it fits no cache costs less than parts would
WHOLE = 2**21  # elements of drows of a batch that is not cut: 8 MiB in float32
TERMS = 4  # of drows for an element: more are padded before they are added
LEAST = 256  # rows in a part: for fewer, reading the matrix takes longer than multiplying by it
COLUMNS = 32  # that fill the registers
BLOCK = 4  # windows at most
# A product with so many entries, with so many rows and so many columns at least, and summed over so
# many times as many rows of x and dy as the larger of these: each core sums half of them.
HALVED = range(2**12 + 1, 2**17 + 1)
SHORT = 40
TALL = 24


def forward(
    x: Array,
    kernel: Array,
    window: Window,
    groups: int = 1,
    blocks: bool = True,
    finish: Finish = as_it_is,
) -> Tree:
    """`finish(y)` with `y = rows · matrix`, by blocks of windows where there are few channels."""
    if groups > 1:
        return _forward_by_group(x, kernel, window, groups, finish)
    features = kernel.shape[-1]
    band = _band(window, math.prod(window.taps) * x.shape[-1])
    block = _block(band, features) if blocks else 1
    matrix = _matrix(kernel, band, block)

    def of_band(x: Array) -> Array:
        y = _rows(x, band, block) @ matrix  # (N, *windows, blocks, block · O)
        y = y.reshape(*y.shape[:-2], -1, features)
        return y[..., : band.outputs[-1], :]

    def part(x: Array) -> Tree:
        if band == window:
            return finish(of_band(x))
        numbered = _numbered(x, window, band)
        bands = jnp.arange(window.outputs[0] // band.outputs[0])
        y = map_parts(lambda number: of_band(numbered(number))[None], 1, bands)
        return finish(lax.collapse(jnp.moveaxis(y, 0, 1), 1, 3))

    return map_parts(part, _images(x, window), x)


def forward_to_few(x: Array, kernel: Array, window: Window, finish: Finish = as_it_is) -> Tree:
    """`finish(y)`, `y[o] = sum_t z_t[o + d·t - p]` with `z = x · kernel`. The strides are 1."""
    channels, features = kernel.shape[-2:]
    matrix = kernel.reshape(-1, channels, features).swapaxes(0, 1).reshape(channels, -1)

    def part(x: Array) -> Tree:
        by_tap = jnp.split(x @ matrix, matrix.shape[1] // features, -1)
        terms = (
            read(pad(z_t, window.pads, 0), offset, window)
            for z_t, offset in zip(by_tap, window.offsets(), strict=True)
        )
        return finish(functools.reduce(operator.add, terms))

    products = math.prod(x.shape[1:-1]) * matrix.shape[1]
    images = images_per_part(len(x), max(PRODUCTS // products, 1))
    return map_parts(part, images, x)


def kernel_grad(x: Array, dy: Array, window: Window, groups: int = 1) -> Array:
    """`dmatrix = rowsᵀ · dy`, by blocks of windows where there are few channels."""
    if groups > 1:
        return _kernel_grad_by_group(x, dy, window, groups)
    channels, features = x.shape[-1], dy.shape[-1]
    if math.prod(window.taps) == 1:
        dmatrix = _product(_rows(x, window, 1), dy)
        if channels > features:
            dmatrix = _turned(dmatrix)
        return dmatrix.reshape(*window.taps, channels, features)
    band = _band(window, math.prod(window.taps) * channels)
    block = _block(band, features)
    blocks = -(-band.outputs[-1] // block)

    def of_band(x: Array, dy: Array) -> Array:
        rows = _rows(x, band, block)
        short = (0, blocks * block - band.outputs[-1])
        whole = pad(dy, ((0, 0),) * (len(band.taps) - 1) + (short,), 0)
        return _product(rows, whole.reshape(-1, block * features))

    def part(x: Array, dy: Array) -> Array:
        if band == window:
            return of_band(x, dy)
        numbered, outputs = _numbered(x, window, band), band.outputs[0]

        def of_number(number: Array) -> Array:
            its = lax.dynamic_slice_in_dim(dy, number[0] * outputs, outputs, 1)
            return of_band(numbered(number), its)

        return sum_parts(of_number, 1, jnp.arange(window.outputs[0] // outputs))

    total = sum_parts(part, _images(x, window), x, dy)
    if block == 1:
        if len(total) == math.prod(window.taps) * channels:  # as `_product` has it, not turned
            return total.reshape(*window.taps, channels, features)
        return jnp.moveaxis(total.reshape(features, *window.taps, channels), 0, -1)
    total = _by_column(total, block * features)
    outer = math.prod(window.taps[:-1])
    by_place = total.reshape(block, features, outer, -1, channels)
    places = _places(window, block)  # [place, window of the block]: the tap, or -1
    cotangents = [
        sum(by_place[b, :, :, np.flatnonzero(places[:, b] == t)[0]] for b in range(block))
        for t in range(window.taps[-1])
    ]  # for each tap (O, outer, C)
    return jnp.stack(cotangents, 2).transpose(1, 2, 3, 0).reshape(*window.taps, channels, features)


def kernel_grad_of_both(x: Array, dy: Array, window: Window) -> Array:
    """The same, the taps along the first axis in rows of dy, the others in rows of x.

    The strides along the first axis are 1.
    """
    first, channels, features = window.taps[0], x.shape[-1], dy.shape[-1]
    low, reach = window.pads[0][0], (first - 1) * window.dilation[0]
    others = window._replace(taps=(1, *window.taps[1:]), pads=((0, 0), *window.pads[1:]))
    width = math.prod(others.taps) * channels + first * features
    band = _band(others, width)
    height = band.size[0]

    def of_band(x: Array, dy: Array) -> Array:
        rows = read_all(pad(x, band.pads, 0), band)
        starts = range(reach, -1, -window.dilation[0])
        columns = jnp.concatenate([lax.slice_in_dim(dy, a, a + height, 1, 1) for a in starts], -1)
        return _product(rows, columns)

    def part(x: Array, dy: Array) -> Array:
        behind = window.size[0] + low - window.outputs[0]
        dy = pad(dy, ((reach - low, behind), *((0, 0),) * (len(window.taps) - 1)), 0)
        if band == others:
            return of_band(x, dy)
        numbered = _numbered(x, others, band)

        def of_number(number: Array) -> Array:
            its = lax.dynamic_slice_in_dim(dy, number[0] * height, height + reach, 1)
            return of_band(numbered(number), its)

        return sum_parts(of_number, 1, jnp.arange(window.size[0] // height))

    fit = max(PART // (math.prod(others.outputs) * width), 1)
    total = sum_parts(part, images_per_part(len(x), fit), x, dy)
    by_tap = _by_column(total, first * features).reshape(first, features, -1, channels)
    return by_tap.transpose(0, 2, 3, 1).reshape(*window.taps, channels, features)


def input_grad_of_one_tap(dy: Array, kernel: Array, window: Window) -> Array:
    """`dy · matrixᵀ`, and zeros where no window was."""
    matrix = kernel.reshape(kernel.shape[-2:])
    found = _by_transpose(dy, matrix)
    around = [(0, 0, 0)]
    for n, s, (low, _), outputs in zip(
        window.size, window.strides, window.pads, window.outputs, strict=True
    ):
        around.append((-low, n + low - span(outputs, s), s - 1))
    return lax.pad(found, jnp.zeros((), found.dtype), [*around, (0, 0, 0)])


def input_grad(dy: Array, kernel: Array, window: Window, groups: int = 1) -> Array:
    """What is an element's of `drows = dy · matrixᵀ`, added up."""
    _, counts, pads = writers(window)
    channels, features = kernel.shape[-2:]
    by_tap = _by_group(kernel.reshape(-1, channels, features), groups)
    width = math.prod(window.taps) * channels * groups
    height = _height(counts, width)
    bands = -(-counts[0] // max(height, 1))

    def drows(dy: Array) -> Array:
        """`(groups, N, *windows, taps · C / groups)`."""
        if groups == 1:  # the kernel's transpose is never written
            return _by_transpose(dy[0], kernel.reshape(-1, features))[None]
        found = jnp.einsum("g...o,gtco->g...tc", dy, by_tap)
        return found.reshape(*dy.shape[:-1], -1)

    def part(dy: Array) -> Array:
        dy = _by_group(dy, groups)
        if height == counts[0]:
            return _together(merge(_added(drows(dy), pads, counts, window), window))
        (low, high), *others = pads
        dy = pad(dy, ((low, high + bands * height - counts[0]), *others), 0)
        rows = dy.shape[2] - (bands - 1) * height

        def band(number: Array) -> Array:
            some = lax.dynamic_slice_in_dim(dy, number[0] * height, rows, 2)
            return _added(drows(some), ((0, 0),) * len(pads), (height, *counts[1:]), window)[None]

        dx = jnp.moveaxis(map_parts(band, 1, jnp.arange(bands)), 0, 2)
        return _together(merge(lax.collapse(dx, 2, 4), window))

    size = math.prod(window.outputs) * width
    images = images_per_part(len(dy), max(PART // size, 1))
    return map_parts(part, len(dy) if len(dy) * size <= WHOLE else images, dy)


def _added(drows: Array, pads: Pads, counts: Sizes, window: Window) -> Array:
    """`(groups, N, j, r, j, r, C / groups)`, for `merge`, of drows still to be padded: (2) of
    `_taps.py`.

    Of a few terms each is padded as it is added, in the same loop: those that are not shifted, most
    of them, need no padding.
    """
    tables, *_ = writers(window)
    axes, channels = len(tables), drows.shape[-1] // math.prod(window.taps)
    remainders, rows = zip(*((table.shape[1], len(table)) for table in tables), strict=True)
    if not 1 < math.prod(rows) <= TERMS:
        drows, pads = pad(drows, pads, 0), ((0, 0),) * axes
    where = range(3, 3 + 2 * axes, 2)
    if set(rows) == {1} and remainders == window.taps:  # side by side: nothing to add
        by_tap = drows.reshape(*drows.shape[:2], *counts, *window.taps, channels)
        return jnp.moveaxis(by_tap, range(2 + axes, 2 + 2 * axes), where)
    found = []
    for r in np.ndindex(remainders):
        terms = []
        for row in np.ndindex(rows):
            tap = [int(table[a, b]) for table, a, b in zip(tables, row, r, strict=True)]
            if min(tap) < 0:
                continue
            first = channels * int(np.ravel_multi_index(tap, window.taps))
            of_tap = drows[..., first : first + channels]
            start = [n - 1 - at - low for n, at, (low, _) in zip(rows, row, pads, strict=True)]
            sizes = zip(start, counts, drows.shape[2:-1], strict=True)
            terms.append(pad(of_tap, tuple((-at, at + n - size) for at, n, size in sizes), 0))
        none = jnp.zeros((*drows.shape[:2], *counts, channels), drows.dtype)
        found.append(functools.reduce(operator.add, terms) if terms else none)
    by_remainder = jnp.stack(found).reshape(*remainders, *found[0].shape)
    return jnp.moveaxis(by_remainder, range(axes), where)


# Products of rows, and bands of images -----------------------------------------------------------


def _product(rows: Array, columns: Array) -> Array:
    """`rowsᵀ · columns`, or its transpose if that is wider: in 0.2 to 0.7 of the time."""
    k, o = rows.shape[-1], columns.shape[-1]
    rows, columns = rows.reshape(-1, k), columns.reshape(-1, o)
    if _in_halves(len(rows), k, o):
        order = "hrk,hro->hok" if k > o else "hrk,hro->hko"
        return jnp.einsum(order, rows.reshape(2, -1, k), columns.reshape(2, -1, o)).sum(0)
    return jnp.einsum("rk,ro->ok" if k > o else "rk,ro->ko", rows, columns)


def _by_transpose(dy: Array, matrix: Array) -> Array:
    """`dy · matrixᵀ`, of a transpose that is never written."""
    return lax.dot_general(dy, matrix, (((dy.ndim - 1,), (1,)), ((), ())))


def _in_halves(rows: int, k: int, o: int) -> bool:
    """Whether a sum over so many rows is better that of two products, one for each core.

    XLA divides each product between the cores, which for one of few entries and many rows takes up
    to 1.2 times as long on two; on more it was not measured. On several devices the rows are
    divided already.
    """
    few = k * o in HALVED and min(k, o) >= SHORT and rows >= TALL * max(k, o)
    return few and rows % 2 == 0 and jax.device_count() == 1


def _by_column(product: Array, columns: int) -> Array:
    """`columnsᵀ · rows`, of a sum of what `_product` gives."""
    return product if len(product) == columns < product.shape[1] else _turned(product)


def _turned(product: Array) -> Array:
    """The transpose of a product, and not the product of transposes, which XLA makes of it."""
    return once(jnp.transpose, product)


def _height(outputs: Sizes, width: int) -> int:
    """Of a band, along the first axis: of all outputs, where their rows, each so wide, are few."""
    elements = math.prod(outputs) * width
    return outputs[0] if elements <= 2 * PART else max(PART * outputs[0] // elements, 1)


def _band(window: Window, width: int) -> Window:
    """The window of one band: of as many outputs as each other, and padded already if not all."""
    outputs = window.outputs[0]
    wanted = _height(window.outputs, width)
    height = max(n for n in range(1, wanted + 1) if outputs % n == 0)
    if height == outputs or 2 * height < wanted:
        return window
    size = window.strides[0] * (height - 1) + span(window.taps[0], window.dilation[0])
    return window._replace(size=(size, *window.size[1:]), pads=((0, 0), *window.pads[1:]))


def _numbered(x: Array, window: Window, band: Window) -> Callable[[Array], Array]:
    """What gives the band of a number, which is an array of one."""
    padded = pad(x, (window.pads[0], *((0, 0),) * (len(window.taps) - 1)), 0)
    step = band.outputs[0] * band.strides[0]
    return lambda number: lax.dynamic_slice_in_dim(padded, number[0] * step, band.size[0], 1)


# Rows of one group, by blocks of windows ---------------------------------------------------------


def _block(window: Window, features: int) -> int:
    if window.dilation[-1] > 1:
        return 1
    most = max(min(COLUMNS // features, BLOCK), 1)
    blocks = -(-window.outputs[-1] // most)
    return -(-window.outputs[-1] // blocks)


def _places(window: Window, block: int) -> np.ndarray:
    """For each place that a block meets along the last axis, and each of its windows: the tap."""
    taps, stride, dilation = window.taps[-1], window.strides[-1], window.dilation[-1]
    if block == 1:
        return np.arange(taps)[:, None]
    met = np.arange(stride * (block - 1) + span(taps, dilation))
    tap = met[:, None] - stride * np.arange(block)
    return np.where((tap >= 0) & (tap < taps), tap, -1)


def _rows(x: Array, window: Window, block: int) -> Array:
    """`(N, *windows but the last, blocks, outer taps · places · C)`."""
    one = block == math.prod(window.taps) == 1
    if one and max(window.strides) > 1:  # written in one shape, as for dkernel: compiled once
        return once(lambda x: read_all(pad(x, window.pads, 0), window), x)
    if one or window.dilation[-1] > 1:
        return read_all(pad(x, window.pads, 0), window)
    step, places = window.strides[-1] * block, len(_places(window, block))
    blocks, pieces = -(-window.outputs[-1] // block), -(-places // step)
    low, size = window.pads[-1][0], window.size[-1]
    pads = (*window.pads[:-1], (low, (blocks + pieces - 1) * step - low - size))
    padded = pad(x, pads, 0)
    # The last axis cut into steps: what a block meets is a step, and the next, and so on.
    by_step = padded.reshape(*padded.shape[:-2], -1, step, x.shape[-1])
    met = [
        lax.slice_in_dim(by_step, piece, piece + blocks, axis=-3)[..., : places - piece * step, :]
        for piece in range(pieces)
    ]
    x = lax.collapse(jnp.concatenate(met, -2), -2)
    return read_all(x, window, range(len(window.taps) - 1))


def _matrix(kernel: Array, window: Window, block: int) -> Array:
    """`(outer taps · places · C, block · O)`: the kernel for each window of a block, and zeros."""
    *_, channels, features = kernel.shape
    if block == 1:
        return kernel.reshape(-1, features)
    by_tap = kernel.reshape(-1, window.taps[-1], channels, features)
    places = _places(window, block)
    placed = by_tap[:, np.maximum(places, 0)]  # outer, place, window of the block, C, O
    placed = jnp.where((places >= 0)[..., None, None], placed, 0)
    return placed.swapaxes(2, 3).reshape(-1, block * features)


# Groups, each with rows and a matrix of its own --------------------------------------------------


def _forward_by_group(x: Array, kernel: Array, window: Window, groups: int, finish: Finish) -> Tree:
    matrix = _by_group(kernel.reshape(-1, kernel.shape[-1]), groups)

    def part(x: Array) -> Tree:
        rows = _rows_by_group(x, window, groups)
        return finish(_together(jnp.einsum("g...k,gko->g...o", rows, matrix)))

    return map_parts(part, _images(x, window), x)


def _kernel_grad_by_group(x: Array, dy: Array, window: Window, groups: int) -> Array:
    def part(x: Array, dy: Array) -> Array:
        rows = _rows_by_group(x, window, groups)
        return jnp.einsum("g...k,g...o->gok", rows, _by_group(dy, groups))

    total = sum_parts(part, _images(x, window), x, dy)
    channels, features = x.shape[-1] // groups, dy.shape[-1] // groups
    by_tap = jnp.moveaxis(total.reshape(groups, features, -1, channels), (2, 3), (0, 1))
    return by_tap.reshape(*window.taps, channels, groups * features)


def _rows_by_group(x: Array, window: Window, groups: int) -> Array:
    """`(groups, N, *windows, taps · C / groups)`."""
    return read_all(pad(_by_group(x, groups), window.pads, 0), window)


def _by_group(x: Array, groups: int) -> Array:
    """`(groups, ..., C / groups)` of `(..., C)`."""
    return jnp.moveaxis(x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups), -2, 0)


def _together(x: Array) -> Array:
    """The inverse of `_by_group`."""
    apart = jnp.moveaxis(x, 0, -2)
    return apart.reshape(*apart.shape[:-2], x.shape[0] * x.shape[-1])


def _images(x: Array, window: Window) -> int:
    """Of `x` or `dy`: so many that their rows fit the cache, and are not too few.

    All of them where a row is what one tap reads, no more numbers than there are; and where the
    parts would be few.
    """
    entries = _entries(x, window)
    if math.prod(window.taps) == 1 or len(x) * entries <= FEW_PARTS * PART:
        return len(x)
    return images_per_part(len(x), max(PART // entries, -(-LEAST // math.prod(window.outputs))))


def _entries(x: Array, window: Window) -> int:
    """Of the rows of one image."""
    return math.prod((*window.outputs, *window.taps, x.shape[-1]))
