"""Depthwise convolution: shift, multiply, add.

Each channel meets its own taps alone, so that there is no matrix to multiply. XLA:CPU runs a naive
loop over every output. Here each tap is one product of two arrays, and XLA makes a single loop of
them all, over channels, which are next to each other and fill the vector registers.
"""

import functools
import operator

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxcnn._cpu.parts import (
    Finish,
    Tree,
    as_it_is,
    images_in_cache,
    images_per_part,
    map_parts,
    sum_parts,
)
from jaxcnn._taps import gather, pad, read
from jaxcnn._window import Window

# Elements of images that are padded at once: 16 MiB in float32. By parts what pads them would not
# be one loop with what made them, nor would its results be where they stay: twice the time, within
# a program. But the system hands out anew what is larger than 32 MiB.
WHOLE = 2**22


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

    return map_parts(part, len(x) if x.size <= WHOLE else images_in_cache(x), x)


def input_grad(dy: Array, kernel: Array, window: Window) -> Array:
    """`dx = sum_t adjoint_t(dy kernel[t])`, gathered."""
    by_tap = kernel.reshape(-1, kernel.shape[-1])

    def written(tap: np.ndarray, dy: Array) -> Array:
        channel = np.arange(dy.shape[-1]) % kernel.shape[-1]
        return dy * jnp.where(tap >= 0, by_tap[np.maximum(tap, 0), channel], 0)

    return gather(window, (dy,), (0,), written)


def kernel_grad(x: Array, dy: Array, window: Window) -> Array:
    """`dkernel[t] = sum_{n,o} x_t[n,o] dy[n,o]`, summed over images first, and last over o.

    A sum over images is again a loop over products; one over positions, which XLA does not
    vectorise, is left for the end.
    """

    def part(x: Array, dy: Array) -> list[Array]:
        padded = pad(x, window.pads, 0)
        return [read(padded, offset, window) * dy for offset in window.offsets()]

    by_tap = sum_parts(part, images_per_part(len(x), 1), x, dy, at_once=2)
    sums = [products.sum(range(products.ndim - 1)) for products in by_tap]
    return jnp.stack(sums).reshape(*window.taps, 1, x.shape[-1])
