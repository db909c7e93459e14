"""Convolutions by hand, and bugs in them."""

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from benchmarks.rules.case import (
    FLIPPED,
    MEAN,
    NOT_FINITE,
    NOT_LINEAR,
    ORDER,
    SHIFTED,
    SIGN,
    TRANSPOSED,
    TWICE,
    ZERO,
    Backward,
    Case,
    changed,
    normal,
    rule,
    with_cotangent,
)

IMAGES = ("NHWC", "HWIO", "NHWC")


def conv(
    x: Array, kernel: Array, bias: Array, strides: int = 1, pad: int = 1, dilation: int = 1
) -> Array:
    """y[o] = b + sum over t of x[strides o + dilation t - pad] kernel[t]."""
    y = lax.conv_general_dilated(
        x,
        kernel,
        (strides, strides),
        [(pad, pad)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=IMAGES,
    )
    return y + bias


def input_grad(
    x: Array, kernel: Array, dy: Array, strides: int = 1, pad: int = 1, dilation: int = 1
) -> Array:
    """dy, strides - 1 zeros between, convolved with the turned kernel."""
    pads = []
    for axis in (1, 2):
        low = dilation * (kernel.shape[axis - 1] - 1) - pad
        pads.append((low, x.shape[axis] - 1 - strides * (dy.shape[axis] - 1) + pad))
    return lax.conv_general_dilated(
        dy,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        pads,
        lhs_dilation=(strides, strides),
        rhs_dilation=(dilation, dilation),
        dimension_numbers=IMAGES,
    )


def kernel_grad(
    x: Array, kernel: Array, dy: Array, strides: int = 1, pad: int = 1, dilation: int = 1
) -> Array:
    """x convolved with dy: dk[t] = sum over n and o of x[strides o + dilation t - pad] dy[o]."""
    pads = []
    for axis in (1, 2):
        reach = dilation * (kernel.shape[axis - 1] - 1) + strides * (dy.shape[axis] - 1) + 1
        pads.append((pad, reach - x.shape[axis] - pad))
    return lax.conv_general_dilated(
        x,
        dy,
        (dilation, dilation),
        pads,
        rhs_dilation=(strides, strides),
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
    )


def conv_backward(args: tuple, y: Array, dy: Array, **geometry: int) -> tuple:
    """(dx, dkernel, dbias)."""
    x, kernel, _ = args
    dx = input_grad(x, kernel, dy, **geometry)
    return dx, kernel_grad(x, kernel, dy, **geometry), dy.sum((0, 1, 2))


def grouped(x: Array, kernel: Array) -> Array:
    """A convolution of two groups of channels, with a kernel of its own each."""
    return lax.conv_general_dilated(
        x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=IMAGES, feature_group_count=2
    )


def grouped_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """Each group's gradients, one behind another."""
    x, kernel = args
    parts = [
        (input_grad(a, k, d), kernel_grad(a, k, d))
        for a, k, d in zip(*(jnp.split(z, 2, -1) for z in (x, kernel, dy)), strict=True)
    ]
    dx, dkernel = (jnp.concatenate(halves, -1) for halves in zip(*parts, strict=True))
    return dx, dkernel


def with_dx(change: Any) -> Backward:
    """`conv_backward` with another function in place of `input_grad`."""
    return lambda args, y, dy: (change(*args[:2], dy), *conv_backward(args, y, dy)[1:])


def remainder_in_front(args: tuple, y: Array, dy: Array) -> tuple:
    """The rows that no window reads are taken to be the first, where they are the last."""
    x, kernel, _ = args
    read = [2 * (n - 1) + 3 for n in dy.shape[1:3]]
    dx = input_grad(x[:, : read[0], : read[1]], kernel, dy, strides=2, pad=0)
    unread = [(n - r, 0) for n, r in zip(x.shape[1:3], read, strict=True)]
    dx = jnp.pad(dx, [(0, 0), *unread, (0, 0)])
    return dx, *conv_backward(args, y, dy, strides=2, pad=0)[1:]


def one_down(d: Array) -> Array:
    return jnp.pad(d, [(0, 0), (1, 0), (0, 0), (0, 0)])[:, :-1]


def through_bfloat16(d: Array) -> Array:
    return d.astype(jnp.bfloat16).astype(d.dtype)


def bug(name: str, backward: Backward, *says: str, **geometry: Any) -> Case:
    """A wrong convolution of 6 x 6 images from 3 to 3 channels."""
    f = rule(partial(conv, **geometry), backward)
    return Case(name, f, normal((2, 6, 6, 3), (3, 3, 3, 3), (3,)), says)


def of_x(change: Any) -> Backward:
    return changed(conv_backward, 0, change)


def of_kernel(change: Any) -> Backward:
    return changed(conv_backward, 1, change)


def of_bias(change: Any) -> Backward:
    return changed(conv_backward, 2, change)


BUGS = [
    bug("conv, dkernel: flipped", of_kernel(lambda d: d[::-1, ::-1]), *FLIPPED),
    bug("conv, dkernel: channels transposed", of_kernel(lambda d: d.swapaxes(2, 3)), *TRANSPOSED),
    bug(
        "conv, dkernel: divided by the batch",
        of_kernel(lambda d: d / 2),
        *MEAN,
        "factor 0.5",
        "half",
    ),
    bug("conv, dkernel: twice", of_kernel(lambda d: 2 * d), *TWICE),
    bug(
        "conv, dkernel: first tap missing",
        of_kernel(lambda d: d.at[0, 0].set(0)),
        *ZERO,
        "index 0",
        "first",
    ),
    bug(
        "conv, dkernel: float16",
        of_kernel(lambda d: d.astype(jnp.float16)),
        "float16",
        "dtype",
    ),
    bug(
        "conv, dkernel: samples in another order",
        lambda args, y, dy: (
            conv_backward(args, y, dy)[0],
            kernel_grad(args[0][::-1], args[1], dy),
            dy.sum((0, 1, 2)),
        ),
        *ORDER,
    ),
    bug(
        "dilated conv, dkernel: dilation ignored",
        lambda args, y, dy: (
            input_grad(args[0], args[1], dy, pad=2, dilation=2),
            kernel_grad(args[0], args[1], dy, pad=2),
            dy.sum((0, 1, 2)),
        ),
        "dilat",
        *SHIFTED,
        pad=2,
        dilation=2,
    ),
    bug("conv, dx: sign", of_x(jnp.negative), *SIGN),
    bug("conv, dx: one row down", of_x(one_down), *SHIFTED),
    bug("conv, dx: last row missing", of_x(lambda d: d.at[:, -1].set(0)), *ZERO, "last", "border"),
    bug("conv, dx: rows for columns", of_x(lambda d: d.swapaxes(1, 2)), *TRANSPOSED),
    bug("conv, dx: channels reversed", of_x(lambda d: d[..., ::-1]), *ORDER, "flip"),
    bug(
        "conv, dx: the first image's for all",
        of_x(lambda d: jnp.broadcast_to(d[:1], d.shape)),
        "first",
        "same for all",
    ),
    bug("conv, dx: NaN in a corner", of_x(lambda d: d.at[0, 0, 0, 0].set(jnp.nan)), *NOT_FINITE),
    bug("conv, dx: of norm 1", of_x(lambda d: d / jnp.sqrt((d * d).sum())), *NOT_LINEAR),
    bug(
        "conv, dx: kernel not turned",
        with_dx(lambda x, kernel, dy: input_grad(x, kernel[::-1, ::-1], dy)),
        *FLIPPED,
    ),
    bug(
        "conv, dx: kernel's channels not transposed",
        with_dx(lambda x, kernel, dy: input_grad(x, kernel.swapaxes(2, 3), dy)),
        *TRANSPOSED,
    ),
    bug(
        "conv, dx: kernel + 1",
        with_dx(lambda x, kernel, dy: input_grad(x, kernel + 1, dy)),
        "larger by 1",
        "plus 1",
        "+ 1",
    ),
    bug(
        "conv, dx: the kernel's own gradient is forgotten",
        with_dx(lambda x, kernel, dy: input_grad(x, lax.stop_gradient(kernel), dy)),
        "second",
    ),
    bug(
        "strided conv, dx: the unread rows in front",
        remainder_in_front,
        *SHIFTED,
        strides=2,
        pad=0,
    ),
    bug("conv, dbias: zero", of_bias(jnp.zeros_like), *ZERO),
    bug(
        "conv, dbias: mean for a sum",
        lambda args, y, dy: (*conv_backward(args, y, dy)[:2], dy.mean((0, 1, 2))),
        *MEAN,
    ),
    bug(
        "conv, dbias: over the batch alone",
        lambda args, y, dy: (*conv_backward(args, y, dy)[:2], dy.sum(0)[0, 0]),
        "first",
        "not summed",
        "part of the sum",
    ),
    bug(
        "conv, dbias: a shape too large",
        lambda args, y, dy: (*conv_backward(args, y, dy)[:2], dy.sum(0)),
        "shape",
        "output of type",
        "same type",
    ),
    bug(
        "conv: dy clipped at 1",
        with_cotangent(conv_backward, partial(jnp.clip, min=-1, max=1)),
        *NOT_LINEAR,
        "clip",
    ),
    bug("conv: dy squared", with_cotangent(conv_backward, jnp.square), *NOT_LINEAR),
    bug(
        "conv, dx: through bfloat16", of_x(through_bfloat16), "precision", "precise", "bfloat16"
    )._replace(dtypes=("float32", "float64")),
    Case(
        "grouped conv, dkernel: the groups swapped",
        rule(grouped, changed(grouped_backward, 1, lambda d: jnp.roll(d, d.shape[-1] // 2, -1))),
        normal((2, 5, 5, 4), (3, 3, 2, 4)),
        (*TRANSPOSED, *SHIFTED, *ORDER),
    ),
]
