"""A convolution of few channels, relu and a max pool: images fill the registers.

Few channels, as the fastest axis, leave the registers half empty. Here the images of a batch are
that axis, from x to what the pool leaves, and what is done to single elements is done to whole
registers of them.

Where the pool's windows, of P elements a side, lie beside each other, its output j meets z at P j +
p, for p in 0 ... P - 1. By (1) of `convolution.py`, with a convolution's strides s, z there is

    z[P j + p] = sum_t x[s P j + s p + t - pad] kernel[t] = sum_t x[s P j + t - pad] kernel_p[t]

where kernel_p is the kernel, moved on by s p. So the outputs that compete in one window of the pool
are features of one convolution with strides s P; each is an array of its own, and the largest is
found by comparing whole arrays. With remainders of x by the strides as channels (`cuts.py`) it has
no strides and few taps q. What a window meets is a column:

    row (q,c), column (j,n)    x'[c, j + q, n]

    forward    z = matrix · columns          y = max_p z_p where that is > 0, else 0
                                             w = which p where y > 0, else none
    kernel     dmatrix = dz · columnsᵀ       dz_p = dy where w = p, else 0
    input      dcolumns = matrixᵀ · dz       dx'[i] = sum_q dcolumns_q[i - q]

The zeros around the kernels make more multiplications: (k + s (P - 1))² instead of k², for 5x5 taps
and a pool of 2x2 1.44 times as many. But the last sum has 9 terms instead of 25.
"""

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxcnn._cpu import cuts
from jaxcnn._cpu.parts import images_per_part, map_parts, once, sum_parts
from jaxcnn._order import after
from jaxcnn._taps import largest, pad
from jaxcnn._window import Sizes, Window, span

Finish = Callable[[Array, Array], tuple[Array, Array]]
COLUMNS = 2**20  # elements of the columns of a part: 4 MiB in float32
IMAGES = 16  # that fill the registers


def joint(window: Window, pool: Window) -> Window:
    """That of the convolution whose features are the outputs which compete."""
    axes = zip(window.taps, window.dilation, window.strides, pool.taps, strict=True)
    return window._replace(
        taps=tuple(span(k, d) + s * (p - 1) for k, d, s, p in axes),
        strides=tuple(s * p for s, p in zip(window.strides, pool.taps, strict=True)),
        dilation=(1,) * len(window.taps),
    )


def forward(
    x: Array, kernel: Array, bias: Array | None, finish: Finish, window: Window, pool: Window
) -> tuple[Array, Array]:
    """`finish(u, w)`: of the maxima and which they are, each `(N, *windows of the pool, O)`."""
    matrix = _matrix(kernel, window, pool)

    def competed(counts: Sizes, z: Array) -> tuple[Array, Array]:
        z = z.reshape(-1, kernel.shape[-1], *counts)
        if bias is not None:
            z = z + bias.reshape(-1, *(1 for _ in z.shape[2:]))
        return finish(*largest(z, jnp.zeros((), jnp.int8)))

    def part(x: Array) -> tuple[Array, Array]:
        columns = _columns(x, window, pool)
        z = lax.dot(matrix.T, columns.reshape(len(matrix), -1))
        y, winner = once(partial(competed, columns.shape[1:]), z)
        return _images_first(y), _images_first(winner)

    return map_parts(part, _images(x, window, pool), x)


def grads(
    x: Array, kernel: Array, winner: Array, dy: Array, window: Window, pool: Window
) -> tuple[Array, Array, Array]:
    """`dx`, `dkernel` and `dbias`."""
    images = _images(x, window, pool)
    dx = map_parts(partial(_input_grad, kernel, window, pool), images, winner, dy)
    sums = sum_parts(partial(_kernel_grad, window, pool), images, x, winner, dy)
    return dx, *sums


def _kernel_grad(
    window: Window, pool: Window, x: Array, winner: Array, dy: Array
) -> tuple[Array, Array]:
    """`dmatrix = dz · columnsᵀ`, as the kernels in it; and the sum of `dy` over the windows."""
    x = after(x, dy)  # or else the columns would be kept since the forward pass
    columns, dz = _columns(x, window, pool), _spread(winner, dy, pool)
    dz, columns = dz.reshape(-1, columns[0].size), columns.reshape(len(columns), -1)
    dmatrix = lax.dot_general(dz, columns, (((1,), (1,)), ((), ())))
    passed = jnp.where(_images_last(winner) >= 0, _images_last(dy), 0)
    return _kernel_of_matrix(dmatrix.T, window, pool), passed.sum(range(1, passed.ndim))


def _input_grad(kernel: Array, window: Window, pool: Window, winner: Array, dy: Array) -> Array:
    """`dx'[i] = sum_q dcolumns_q[i - q]` of `dcolumns = matrixᵀ · dz`."""
    cut = cuts.by_strides(joint(window, pool))
    shifts, counts = cut.window.taps, cut.window.size
    dz = _spread(winner, dy, pool)
    dcolumns = lax.dot(_matrix(kernel, window, pool), dz.reshape(-1, dz[0, 0].size))

    def added(dcolumns: Array) -> Array:
        dcolumns = dcolumns.reshape(math.prod(shifts), -1, *dz.shape[2:])
        terms = (
            pad(at_q, tuple((q, k - 1 - q) for q, k in zip(shift, shifts, strict=True)), 0)
            for at_q, shift in zip(dcolumns, cut.window.offsets(), strict=True)
        )
        dx = functools.reduce(operator.add, terms)  # (r · C, g, *i, n)
        as_images = jnp.moveaxis(dx, 0, -2).reshape(dx.shape[1], *counts, -1)
        whole = cut.image_grad(as_images)  # of channels (C, n)
        whole = whole.reshape(*whole.shape[:-1], kernel.shape[-2], -1)
        return lax.optimization_barrier(jnp.moveaxis(whole, -2, 0))

    return _images_first(once(added, dcolumns))


# The matrix --------------------------------------------------------------------------------------


def _moved(window: Window, pool: Window) -> Iterator[list[tuple[int, int, int]]]:
    """The zeros before, behind and between the taps of each kernel_p."""
    for p in itertools.product(*map(range, pool.taps)):
        axes = zip(p, window.strides, pool.taps, window.dilation, strict=True)
        yield [(s * at, s * (n - 1 - at), d - 1) for at, s, n, d in axes]


def _matrix(kernel: Array, window: Window, pool: Window) -> Array:
    """`(q · c, p · O)`."""
    zero, channels = jnp.zeros((), kernel.dtype), [(0, 0, 0)] * 2
    kernels = [lax.pad(kernel, zero, [*zeros, *channels]) for zeros in _moved(window, pool)]
    together = cuts.by_strides(joint(window, pool)).kernel(jnp.concatenate(kernels, -1))
    return together.reshape(-1, together.shape[-1])


def _kernel_of_matrix(dmatrix: Array, window: Window, pool: Window) -> Array:
    """The adjoint of `_matrix`."""
    cut = cuts.by_strides(joint(window, pool))
    together = cut.kernel_grad(dmatrix.reshape(*cut.window.taps, -1, dmatrix.shape[-1]))
    kernels = jnp.split(together, math.prod(pool.taps), -1)
    taps = (
        tuple(slice(low, -high or None, between + 1) for low, high, between in zeros)
        for zeros in _moved(window, pool)
    )
    return functools.reduce(operator.add, (k[at] for k, at in zip(kernels, taps, strict=True)))


# Images as the fastest axis ----------------------------------------------------------------------
# In as many runs g as there are devices, over which they may be sharded: N = (g, n).


def _images_last(x: Array) -> Array:
    """`(C, g, *spatial, n)` of `(N, *spatial, C)`."""
    runs = x.reshape(_runs(len(x)), -1, *x.shape[1:])
    axes = range(2, x.ndim)
    return runs.transpose(x.ndim, 0, *axes, 1)


def _images_first(x: Array) -> Array:
    """The inverse of `_images_last`."""
    runs = x.transpose(1, -1 % x.ndim, *range(2, x.ndim - 1), 0)
    return runs.reshape(-1, *runs.shape[2:])


def _columns(x: Array, window: Window, pool: Window) -> Array:
    """`(q · c, g, *windows of the pool, n)`."""
    cut = cuts.by_strides(joint(window, pool))
    last = lax.optimization_barrier(_images_last(x))
    runs = jnp.moveaxis(last, 0, -2)  # (g, *spatial, C, n): as images of C · n channels
    images = cut.image(runs.reshape(*runs.shape[:-2], -1))
    images = images.reshape(*images.shape[:-1], -1, last.shape[-1])
    columns = lax.optimization_barrier(jnp.moveaxis(images, -2, 0))  # (r · C, g, *spatial, n)
    # One axis after another: XLA:CPU has no single loop for what is joined of more than 8 arrays.
    axes = enumerate(zip(cut.window.taps, cut.window.outputs, strict=True), 2)
    for axis, (taps, count) in reversed(list(axes)):
        shifted = [lax.slice_in_dim(columns, q, q + count, axis=axis) for q in range(taps)]
        columns = jnp.concatenate(shifted)
    return columns


def _spread(winner: Array, dy: Array, pool: Window) -> Array:
    """`dz`: `(p, O, g, *windows of the pool, n)`."""
    winner, dy = _images_last(winner), _images_last(dy)
    places = jnp.arange(math.prod(pool.taps), dtype=winner.dtype)
    places = places.reshape(-1, *(1 for _ in winner.shape))
    return lax.optimization_barrier(jnp.where(winner == places, dy, jnp.zeros((), dy.dtype)))


def _runs(images: int) -> int:
    devices = jax.device_count()
    return 1 if images % devices else devices


def _images(x: Array, window: Window, pool: Window) -> int:
    """So many images that their columns fit the cache."""
    both = joint(window, pool)
    columns = math.prod(both.outputs) * math.prod(both.taps) * x.shape[-1]
    return images_per_part(len(x), max(COLUMNS // columns, IMAGES * _runs(len(x))))
