"""Convolution by small kernels with a third or a quarter of the multiplications.

Winograd's way to `m` outputs of a filter with `k` taps takes m + k - 1 multiplications, where the
sum takes m k: the filter and m + k - 1 elements, as polynomials, are evaluated at as many points,
multiplied there, and interpolated. As a correlation, along one axis:

    y = A^T ((G g) * (B^T d))        d: m + k - 1 elements, g: k taps, y: m outputs

There are 6 points here, so that m = 7 - k. Along two axes each transform is applied along one and
then the other: 3x3 taps make 36 products of 16 outputs, of 144; 5x5 taps 36 of 4, of 100. Over
channels the products are sums, so that for each of the 36 points there is one matrix
multiplication, of all tiles by channels with channels by features.

    forward    y  = A^T [ V · U ] A       V = B^T d B (tiles x C)    U = G g G^T (C x O)
    kernel     dg = G^T [ V^T · W ] G     W = A dy A^T (tiles x O)

The second line is the adjoint of the first in g. The images' gradient is a convolution of dy with
the turned kernel, and so a case of the first.

The points are 0, ±3/4, ±3/2 and infinity. With the usual 0, ±1, ±2 the error in float32 is four
times as large: what counts is how far the powers of the points are apart.

Sources: Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms
for convolutional neural networks", 2015; Barabasz et al., "Error analysis and improving the
accuracy of Winograd convolution for deep neural networks", 2018, for the points.
"""

import functools
import math
from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from jaxcnn._cpu.parts import (
    Finish,
    Tree,
    as_it_is,
    images_per_part,
    map_parts,
    once,
    side_by_side,
    sum_parts,
)
from jaxcnn._order import after
from jaxcnn._taps import pad
from jaxcnn._window import Sizes, Window

POINTS = (0, 3 / 4, -3 / 4, 3 / 2, -3 / 2)  # and infinity
SIX = len(POINTS) + 1
# Tiles in a part: for fewer, reading U takes longer than multiplying by it. Half as many where V, W
# and their products are in memory.
ROWS = 256
# Entries of V in a part, for each point: 4.5 MiB in float32 for all, and as much of products. Four
# times as much takes up to four times as long: the system hands out such memory anew each time.
PART = 2**15
# Channels that V · U sums over: from so many on, the library that XLA hands it to (YNNPACK, in
# jaxlib 0.10.2) divides each point's product between the cores; of fewer, only one of 2^17 entries
# and more. There a part is two halves, side by side: 1.1 to 1.4 times as fast, on two cores.
DIVIDED = 256
# Entries of a kernel's products for a point, up to which there are two halves as well: 1.05 to 1.4
# times as fast. Of 128 by 256 it was no gain, and of 256 by 256 twice the time.
ALONE = 2**14
# Entries of U, or of a kernel's products, for as many features as are worked out at once: 16 MiB in
# float32, and 32. The system hands out anew what is larger than 32 MiB, as one array or as what a
# program has; but for each block of features V is worked out anew, too.
BLOCK = 2**22
PRODUCTS = 2**23


def _evaluation(coefficients: int) -> np.ndarray:
    """Evaluates a polynomial at the points: their powers. Infinity picks the leading one."""
    powers = np.vander(POINTS, coefficients, increasing=True)
    return np.vstack([powers, np.eye(coefficients)[-1]])


def _others(point: float) -> list[float]:
    return [other for other in POINTS if other != point]


# By Toom and Cook, polynomials a and g multiply as E_6^-1 ((E_m a) * (E_k g)), E_n being the
# evaluation of n coefficients. That is linear in a; its adjoint is correlation,
#     E_m^T ((E_k g) * (E_6^-T d))
# The rows of E_6^-T are Lagrange's polynomials: prod (x - q) / (p - q) over the points q but p, and
# prod (x - q) over all for infinity. The denominators are moved to the kernel's side.
BT = np.array([[*np.poly(_others(point))[::-1], 0] for point in POINTS] + [np.poly(POINTS)[::-1]])
DENOMINATORS = np.array(
    [math.prod(point - other for other in _others(point)) for point in POINTS] + [1]
)
A = _evaluation


def G(taps: int) -> np.ndarray:  # noqa: N802
    """The kernel's transform."""
    return _evaluation(taps) / DENOMINATORS[:, None]


def forward(
    x: Array, kernel: Array, window: Window, finish: Finish = as_it_is, turned: bool = False
) -> Tree:
    """`finish(y)` with `y = A^T [ V · U ] A`: of elements; of whole images if `bands` is 1.

    By the turned kernel (`_taps.turned`) as well, `window` being that of this convolution. It is
    not written: U is that of the kernel mirrored, `(points, O, C)`, and summed over as it lies.
    """
    outputs, features = window.outputs, kernel.shape[-2 if turned else -1]
    pieces, window = _bands(x, features, window)
    tile, tiles = _tile(window), _tiles(window)
    both = _both(window, x.dtype)[:, :: -1 if turned else 1]
    by_tap = kernel.reshape(-1, math.prod(kernel.shape[-2:]))
    transformed = jnp.dot(both, by_tap, precision="highest")  # U
    transformed = transformed.reshape(SIX**2, *kernel.shape[-2:])
    summed = 2 if turned else 1  # the axis of U over which the products are summed
    ways = 2 if x.shape[-1] < DIVIDED else 1

    def multiplied(*pieces: Array) -> tuple[Array, list[Array]]:
        """V · U, point by point, and what it was worked out from."""
        by_row = _image_by_row(_joined(pieces), window)
        image = _image_by_both(by_row, window)
        products = lax.dot_general(image, transformed, (((2,), (summed,)), ((0,), (0,))))
        return products, [by_row, image]

    def along_rows(images: int, products: list[Array], kept: list[Array]) -> Array:
        """`(points, N, rows, m, columns, O)` of the products."""
        joined = after(jnp.concatenate(products, 1), *kept)
        split = joined.reshape(SIX, SIX, images, *tiles, features)
        return _combine(A(tile[0]).T, split, 0, 4)

    def part(*pieces: Array) -> Tree:
        images = len(pieces[0])
        rows = once(partial(along_rows, images), *side_by_side(multiplied, ways, *pieces))
        y = _combine(A(tile[1]).T, rows, 0, 5)
        y = y.reshape(images, tile[0] * tiles[0], tile[1] * tiles[1], features)
        return finish(y[:, : window.outputs[0], : window.outputs[1]])

    y = map_parts(part, _images(pieces[0], features, window, ROWS, ways), *pieces)
    return y if len(pieces) == 1 else y.reshape(len(x), *outputs, -1)


def forward_by_features(
    x: Array, kernel: Array, window: Window, finish: Finish = as_it_is, turned: bool = False
) -> Tree:
    """The same, of a few features after another: where U would be much larger than x and y."""
    axis = -2 if turned else -1
    blocks = _blocks(math.prod(kernel.shape[-2:]), kernel.shape[axis], BLOCK)

    some = partial(forward, x, window=window, turned=turned)
    return finish(_by_features(some, kernel, axis, blocks))


def kernel_grad(x: Array, dy: Array, window: Window) -> Array:
    """`dg = G^T [ V^T · W ] G`, of a few features after another where the products are large."""
    channels, features = x.shape[-1], dy.shape[-1]
    few = rows(len(x), window) < min(channels, features) / 2  # V costs little, even several times
    blocks = _blocks(channels * features, features, BLOCK if few else PRODUCTS)
    some = partial(_kernel_grad, x, window=window)
    return _by_features(some, dy, -1, blocks)


def _kernel_grad(x: Array, dy: Array, window: Window) -> Array:
    pieces, window = _bands(x, dy.shape[-1], window)
    dy = dy.reshape(-1, *window.outputs, dy.shape[-1])
    ways = 2 if x.shape[-1] * dy.shape[-1] <= ALONE else 1

    def multiplied(dy: Array, *pieces: Array) -> tuple[Array, list[Array]]:
        """V^T · W, point by point, and what it was worked out from."""
        image_by_row = _image_by_row(_joined(pieces), window)
        cotangent_by_row = _cotangent_by_row(dy, window)
        image = _image_by_both(image_by_row, window)
        cotangent = _cotangent_by_both(cotangent_by_row, window)
        products = lax.dot_general(image, cotangent, (((1,), (1,)), ((0,), (0,))))
        return products, [image_by_row, cotangent_by_row, image, cotangent]

    def part(dy: Array, *pieces: Array) -> Array:
        products, kept = side_by_side(multiplied, ways, dy, *pieces)
        return after(functools.reduce(jnp.add, products), *kept)

    # Two parts are one: then there is no loop, and V, where it is halved in both passes or neither,
    # is that of the forward pass, compiled once.
    images = len(pieces[0])
    if rows(images, window) > ROWS:
        images = _images(pieces[0], dy.shape[-1], window, ROWS // 2, ways)
    products = sum_parts(part, images, dy, *pieces)
    by_tap = jnp.dot(_both(window, x.dtype).T, products.reshape(SIX**2, -1), precision="highest")
    return by_tap.reshape(*window.taps, *products.shape[1:])


def _blocks(entries: int, features: int, most: int) -> int:
    """How many blocks of features, each of about `most` entries; 1 where no such number divides.

    There are `entries` for each point.
    """
    wanted = -(-(SIX**2) * entries // most)
    return next((n for n in range(wanted, 2 * wanted + 1) if features % n == 0), 1)


def _by_features(f: Callable[[Array], Array], array: Array, axis: int, blocks: int) -> Array:
    """`f` of an array with the features along an axis, as they are along the last of the result."""
    if blocks == 1:
        return f(array)
    at = array.ndim + axis
    split = array.reshape(*array.shape[:at], blocks, -1, *array.shape[at + 1 :])
    found = lax.map(
        lambda number: f(
            lax.dynamic_index_in_dim(
                split, number, at, keepdims=False, allow_negative_indices=False
            )
        ),
        jnp.arange(blocks),
    )
    return jnp.moveaxis(found, 0, -2).reshape(*found.shape[1:-1], array.shape[at])


def _bands(x: Array, features: int, window: Window) -> tuple[tuple[Array, ...], Window]:
    """Images too large for a part as bands of rows: the rows before each, those of it, and behind.

    The bands are no copy, as one with the rows that two of them meet would be.
    """
    (before, behind), height = window.pads[0], window.size[0]
    number = bands(window, max(x.shape[-1], features))
    if number == 1:
        return (x,), window
    rows = height // number
    split = x.reshape(len(x), number, rows, *x.shape[2:])
    none, zero = (0, 0, 0), jnp.zeros((), x.dtype)

    def moved(rows: Array, by: int) -> Array:
        """To the next band, or to that before; zeros at the image's edge."""
        return lax.pad(rows, zero, [none, (by, -by, 0), none, none, none])

    pieces = moved(split[:, :, rows - before :], 1), split, moved(split[:, :, :behind], -1)
    size, pads = (before + rows + behind, window.size[1]), ((0, 0), window.pads[1])
    return (
        tuple(piece.reshape(-1, *piece.shape[2:]) for piece in pieces if piece.size),
        window._replace(size=size, pads=pads),
    )


def bands(window: Window, width: int) -> int:
    """How many bands of whole tiles an image is in: 1 where its outputs have not as many rows."""
    height, tile = window.size[0], _tile(window)[0]
    if height != window.outputs[0] or min(window.pads[0]) < 0:
        return 1
    halves = 2 if width < DIVIDED else 1  # of a part, to be side by side in the forward pass
    wanted = -(-math.prod(_tiles(window)) * halves // max(ROWS, PART // width))
    most = min(4 * wanted, height // max(window.pads[0]))  # for the next band has the rows behind
    suited = [n for n in range(1, most + 1) if height % (n * tile) == 0]
    return next((n for n in suited if n >= wanted), suited[-1] if suited else 1)


def _joined(pieces: tuple[Array, ...]) -> Array:
    """A band, or a whole image."""
    return pieces[0] if len(pieces) == 1 else jnp.concatenate(pieces, 1)


def _both(window: Window, dtype: DTypeLike) -> Array:
    """G along both axes at once: `(points, taps)`."""
    return jnp.asarray(np.kron(*map(G, window.taps)), dtype)


def _image_by_row(x: Array, window: Window) -> Array:
    """`B^T d`, `(points, N, rows, columns, C)`: V's first pass, with columns to whole tiles."""
    tile, tiles = _tile(window), _tiles(window)
    pads = tuple(  # to whole tiles, and as many more as the last one's six elements reach into
        (low, m * (n + -(-SIX // m) - 1) - low - size)
        for (low, _), m, n, size in zip(window.pads, tile, tiles, window.size, strict=True)
    )

    def along_rows(x: Array) -> Array:
        return _combine(BT, _elements(x, 1, tile[0], tiles[0]), 2, 0)

    # Written: as one loop with the second pass, the first would be worked out six times.
    return once(along_rows, pad(x, pads, 0))


def _image_by_both(by_row: Array, window: Window) -> Array:
    """V, of its first pass: `(points, tiles, C)`. As a step: compiled once, wherever it occurs."""
    tile, tiles = _tile(window), _tiles(window)

    def along_columns(by_row: Array) -> Array:
        by_both = _combine(BT, _elements(by_row, 3, tile[1], tiles[1]), 4, 1)
        return by_both.reshape(SIX**2, -1, by_row.shape[-1])

    return once(along_columns, by_row)


def _elements(x: Array, axis: int, tile: int, tiles: int) -> Array:
    """The tiles along the axis, and along one behind it each one's six elements.

    They are those of the tile itself and, up to six, the first of the tiles behind it.
    """
    by_tile = x.reshape(*x.shape[:axis], -1, tile, *x.shape[axis + 1 :])

    def from_tile(first: int, count: int) -> Array:
        start, limit = [0] * by_tile.ndim, list(by_tile.shape)
        start[axis], limit[axis : axis + 2] = first, (first + tiles, count)
        return lax.slice(by_tile, start, limit)

    met = [from_tile(at // tile, min(tile, SIX - at)) for at in range(0, SIX, tile)]
    return jnp.concatenate(met, axis + 1)


def _cotangent_by_row(dy: Array, window: Window) -> Array:
    """`A dy`, `(points, N, rows, columns, O)`: W's first pass, with columns to whole tiles."""
    tile, tiles = _tile(window), _tiles(window)
    pads = tuple((0, m * n - size) for m, n, size in zip(tile, tiles, window.outputs, strict=True))
    features, padded = dy.shape[-1], pad(dy, pads, 0)

    def along_rows(dy: Array) -> Array:
        tiled = dy.reshape(len(dy), tiles[0], tile[0], -1, features)
        return _combine(A(tile[0]), tiled, 2, 0)

    if padded is dy:  # flat: a copy of four axes, the last one short, takes longer to compile
        padded = dy.reshape(len(dy), -1)
    return once(along_rows, padded)


def _cotangent_by_both(by_row: Array, window: Window) -> Array:
    """W, of its first pass: `(points, tiles, O)`."""
    tile, features = _tile(window)[1], by_row.shape[-1]

    def along_columns(by_row: Array) -> Array:
        tiled = by_row.reshape(*by_row.shape[:3], -1, tile, features)
        return _combine(A(tile), tiled, 4, 1).reshape(SIX**2, -1, features)

    return once(along_columns, by_row)


def _combine(matrix: np.ndarray, x: Array, axis: int, row: int) -> Array:
    """The matrix times what is along an axis, which goes; its rows are along an axis that comes.

    `axis` is one of `x`; `row` is counted with that one still there.

    One short loop over all entries, zeros as well. Row by row it would read less, which saves time
    for very few channels alone, and take four times as long to compile; term by term it would be
    four times as many operations, of which a network has thousands here. The sum is b - (-a), which
    LLVM knows to be a + b: what XLA:CPU knows to be a sum it hands to a library, with the product,
    in five times the time.
    """
    shape = [*x.shape[:row], len(matrix), *x.shape[row:]]
    others = [at for at in range(len(shape)) if at != row]
    axis = others[axis]
    entries = jnp.asarray(matrix if row < axis else matrix.T, x.dtype)
    terms = lax.broadcast_in_dim(x, shape, others)
    terms *= lax.broadcast_in_dim(entries, shape, sorted((row, axis)))
    return lax.reduce(terms, jnp.zeros((), x.dtype), lambda a, b: b - (-a), (axis,))


def _tile(window: Window) -> Sizes:
    return tuple(SIX + 1 - taps for taps in window.taps)


def _tiles(window: Window) -> Sizes:
    return tuple(-(-n // m) for n, m in zip(window.outputs, _tile(window), strict=True))


def _images(x: Array, features: int, window: Window, least: int, ways: int) -> int:
    """Images a part, a multiple of `ways`; but one where that alone is a part."""
    tiles = max(least, PART // max(x.shape[-1], features))
    wanted = -(-tiles // math.prod(_tiles(window)))
    return images_per_part(len(x), wanted, ways if wanted > 1 else 1)


def saving(window: Window) -> float:
    """How many times fewer multiplications than the sum, with those of the last tiles' surplus."""
    per_axis = zip(_tiles(window), window.outputs, window.taps, strict=True)
    return math.prod(outputs * taps / (SIX * tiles) for tiles, outputs, taps in per_axis)


def rows(images: int, window: Window) -> int:
    """The rows of V: tiles of all images. U is of use to each of them."""
    return images * math.prod(_tiles(window))
