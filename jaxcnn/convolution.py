"""Convolution. The forward pass is a convolution; the backward passes are convolutions too.

Shapes, for two spatial axes (one and three go the same way, and every sum runs over all of them):

    x       (N, H, W, C)     images
    kernel  (K, L, C, O)     taps along H and W, channels in, channels out
    bias    (O,)
    y       (N, P, Q, O)     output, and dy its cotangent dL/dy

Forward. With strides s, kernel dilation d and low pads p,

    y[n,o,m] = bias[m] + sum_{t,c} x[n, s·o + d·t - p, c] · kernel[t,c,m]                      (1)

where o = (row, column) of the output, t = (row, column) of the kernel, and x = 0 outside the image.
(Machine learning's convolution is a cross-correlation: the kernel is not flipped. The notes' sum
runs from 0 to 3; over a 3x3 filter it is from 0 to 2.)

Backward. The differential of (1), in the inner product with the output's cotangent:

    <dy, dy'> = sum_{n,o,m} dy[n,o,m] · (   sum_{t,c} x'[n, s·o + d·t - p, c] · kernel[t,c,m]
                                          + sum_{t,c} x[n, s·o + d·t - p, c] · kernel'[t,c,m]
                                          + bias'[m] )

(a prime marks a perturbation). Collect what multiplies each perturbation:

    dkernel[t,c,m] = sum_{n,o} x[n, s·o + d·t - p, c] · dy[n,o,m]                              (2)
    dx[n,i,c]      = sum_{o,t,m : s·o + d·t - p = i} dy[n,o,m] · kernel[t,c,m]                 (3)
    dbias[m]       = sum_{n,o} dy[n,o,m]                                                       (4)

(2) is (1) with dy as the kernel: it slides over x, s and d in each other's places, and the sum runs
over the batch where it ran over the channels. In the notes' letters,

    dL/dFilter(x,y) = sum_ij dL/dOut(i,j) · Image(i+x, j+y)

(3) is (1) with dy as the image: s - 1 zeros between its elements, the kernel turned by 180 degrees
with its channels in and out in each other's places, and the stride 1. That is why both backward
passes below call the same `_correlate` as the forward pass.

Two generalisations change no formula. Input dilation e puts e - 1 zeros between the elements of x:
they have no gradient, so that (3) is evaluated at the others alone, by a stride e. And in groups,
the channels in and out are cut into as many parts, and each part of y is (1) of one part of x.

Residuals: x and the kernel, which the caller holds anyway, and the bias for its type. Autodiff
keeps the same. Nothing here has a kink. For complex arrays the formulas hold as they stand: JAX's
cotangents are linear, with no conjugate.

Source: the notes this project grew from; Dumoulin and Visin, "A guide to convolution arithmetic for
deep learning", 2016, for the geometry, which `_window.py` derives.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding
from jax.typing import DTypeLike

from jaxcnn import _check, _cotangent
from jaxcnn._cpu import choice
from jaxcnn._cpu.parts import Finish, Tree, as_it_is
from jaxcnn._taps import turned
from jaxcnn._window import Pads, Sizes, Window

Residuals = tuple[Array, Array, Array | None]
Precision = lax.PrecisionLike
NAMES = ("strides", "kernel_dilation", "input_dilation")


def conv(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    strides: int | Sequence[int] = 1,
    padding: _check.Padding = "SAME",
    input_dilation: int | Sequence[int] = 1,
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
    precision: Precision = None,
    preferred_element_type: DTypeLike | None = None,
) -> Array:
    """Convolution of images, channels last, with a hand-derived gradient.

    `y[n,o,m] = bias[m] + sum_{t,c} x[n, strides·o + kernel_dilation·t - pad, c] · kernel[t,c,m]`

    Args:
        x: `(N, *spatial, C)`, with as many spatial axes (1, 2, 3, ...) as the kernel has.
        kernel: `(*taps, C / feature_group_count, O)`, of the same dtype.
        bias: `(O,)`, of the same dtype, or None.
        strides: step of the window in elements, one for all axes or one each.
        padding: "SAME" (as many windows as `ceil(size / stride)`), "SAME_LOWER", "VALID" (none), or
            elements of zeros: one integer, or an integer or a (low, high) pair an axis.
        input_dilation: distance that the elements of `x` are moved apart to, for all axes or each.
        kernel_dilation: distance between the kernel's taps in elements, for all axes or each.
        feature_group_count: number of groups that the channels are cut into; as many as channels
            is a depthwise convolution.
        precision, preferred_element_type: as in `jax.lax.conv_general_dilated`.

    Returns:
        `(N, *windows, O)`, of the same dtype, or of `preferred_element_type`. On a CPU, in float32
        and with no precision asked for, several outputs may be worked out together: then Inf and
        NaN reach not only the windows that hold them but up to four outputs further, and in the
        kernel's gradient also taps that do not meet them; where groups have 2 to 4 channels, also
        the groups and windows beside. The same holds for the gradient of `x`.

    Raises:
        TypeError: the dtypes are not the same, or the geometry is not integer.
        ValueError: ranks, channels or groups do not fit, or strides or dilations are not positive.

    Gradient (`conv_bwd`): `dx` is `conv_input_grad`, `dkernel` is `conv_kernel_grad`, and
    `dbias[m] = sum_{n,o} dy[n,o,m]`; derived at the top of this module.

    An image with 25 in the middle, under a kernel with 1 in the middle. What the middle output's
    gradient with respect to the kernel shows is the image:

    >>> image = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1, 0].set(25.0)
    >>> kernel = jnp.zeros((3, 3, 1, 1)).at[1, 1, 0, 0].set(1.0)
    >>> conv(image, kernel)[0, :, :, 0]
    Array([[ 0.,  0.,  0.],
           [ 0., 25.,  0.],
           [ 0.,  0.,  0.]], dtype=float32)
    >>> jax.grad(lambda kernel: conv(image, kernel)[0, 1, 1, 0])(kernel)[:, :, 0, 0]
    Array([[ 0.,  0.,  0.],
           [ 0., 25.,  0.],
           [ 0.,  0.,  0.]], dtype=float32)
    """
    window = check_conv(
        "conv",
        x,
        kernel,
        bias,
        strides,
        padding,
        input_dilation,
        kernel_dilation,
        feature_group_count,
    )
    dtype = _check.dtype("conv", preferred_element_type)
    return jitted_conv(x, kernel, bias, window, feature_group_count, precision, dtype)


# The rule ----------------------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5, 6))
def _conv(
    x: Array,
    kernel: Array,
    bias: Array | None,
    window: Window,
    groups: int,
    precision: Precision,
    dtype: DTypeLike | None,
) -> Array:
    return conv_fwd(x, kernel, bias, window, groups, precision, dtype)[0]


def conv_fwd(
    x: Array,
    kernel: Array,
    bias: Array | None,
    window: Window,
    groups: int = 1,
    precision: Precision = None,
    dtype: DTypeLike | None = None,
) -> tuple[Array, Residuals]:
    """`y` by (1), and the residuals `(x, kernel, bias)`."""
    y = forward(x, kernel, bias, window, groups, precision, dtype)
    return y, (x, kernel, bias)


def conv_bwd(
    window: Window,
    groups: int,
    precision: Precision,
    dtype: DTypeLike | None,
    residuals: Residuals,
    dy: Array,
) -> tuple[Array | None, Array | None, Array | None]:
    """`(dx, dkernel, dbias)` from the residuals of `conv_fwd` and the output's cotangent."""
    x, kernel, bias = residuals
    dbias = None if bias is None else _cotangent.match(dy.sum(range(dy.ndim - 1)), bias)  # (4)
    if dtype is not None:  # the sums are made as wide as the wider of input and output
        wide = jnp.promote_types(x.dtype, dtype)
        x_wide, kernel_wide, dy = x.astype(wide), kernel.astype(wide), dy.astype(wide)
    else:
        x_wide, kernel_wide = x, kernel
    sharding = _cotangent.sharding(kernel)
    dkernel = kernel_grad(x_wide, dy, window, groups, precision, sharding)  # (2)
    dx = input_grad(dy, kernel_wide, window, groups, precision)  # (3)
    return _cotangent.match(dx, x), _cotangent.match(dkernel, kernel), dbias


_conv.defvjp(conv_fwd, conv_bwd)
jitted_conv = jax.jit(_conv, static_argnums=(3, 4, 5, 6))


# The three sums: each one a convolution ----------------------------------------------------------


def forward(
    x: Array,
    kernel: Array,
    bias: Array | None,
    window: Window,
    groups: int,
    precision: Precision,
    dtype: DTypeLike | None = None,
    finish: Finish = as_it_is,
    of_elements: bool = True,
) -> Tree:
    """`finish(y)`, of (1) and a function of elements or of images: together, where that pays."""
    _, _, strides, pads, dilation, input_dilation = window

    def as_convolution(x: Array, kernel: Array) -> Array:
        return _correlate(
            x,
            kernel,
            strides,
            pads,
            input_dilation,
            dilation,
            feature_group_count=groups,
            precision=precision,
            preferred_element_type=dtype,
        )

    def finished(y: Array) -> Tree:
        if bias is not None:
            y = y + jnp.expand_dims(bias.astype(y.dtype), range(y.ndim - 1))
        return finish(y)

    if dtype is not None and dtype != x.dtype:
        return finished(as_convolution(x, kernel))
    return choice.forward(
        x, kernel, window, groups, precision, as_convolution, finished, of_elements
    )


def kernel_grad(
    x: Array,
    dy: Array,
    window: Window,
    groups: int,
    precision: Precision,
    sharding: NamedSharding | None = None,
) -> Array:
    """(2): `dy` is the kernel, the batch is summed over, strides and dilation change places."""
    _, taps, strides, _, dilation, input_dilation = window
    if 0 in window.outputs:  # no window fits: a sum of nothing, which XLA takes for an error
        return jnp.zeros((*taps, x.shape[-1] // groups, dy.shape[-1]), x.dtype)

    def as_convolution(x: Array, dy: Array) -> Array:
        return _correlate(
            x,
            dy,
            dilation,
            window.kernel_grad_pads,
            input_dilation,
            strides,
            layout=("C{}N", "I{}O", "{}NC"),
            batch_group_count=groups,
            precision=precision,
            out_sharding=sharding,
        )

    return choice.kernel_grad(x, dy, window, groups, precision, as_convolution)


def input_grad(
    dy: Array, kernel: Array, window: Window, groups: int, precision: Precision
) -> Array:
    """(3): `dy` with zeros between is the image, the kernel is turned, x's dilation the stride."""
    _, _, strides, _, dilation, input_dilation = window

    def as_convolution(dy: Array, kernel: Array) -> Array:
        return _correlate(
            dy,
            turned(kernel, groups),
            input_dilation,
            window.input_grad_pads,
            strides,
            dilation,
            feature_group_count=groups,
            precision=precision,
        )

    return choice.input_grad(dy, kernel, window, groups, precision, as_convolution)


def _correlate(
    x: Array,
    kernel: Array,
    strides: Sizes,
    pads: Pads,
    input_dilation: Sizes,
    kernel_dilation: Sizes,
    layout: tuple[str, str, str] = ("N{}C", "{}IO", "N{}C"),
    **settings: Any,
) -> Array:
    """The sum in (1), whichever arrays stand for `x` and `kernel`.

    `layout` says what the axes of `x`, `kernel` and the result are to that sum: N the batch, C the
    channels, I and O the kernel's channels in and out; {} stands for the spatial axes.
    """
    spatial = "XYZUVW"[: len(strides)]
    lhs, rhs, out = (axes.format(spatial) for axes in layout)

    def convolved(x: Array, kernel: Array, dilation: Sizes | None = input_dilation) -> Array:
        return lax.conv_general_dilated(
            x,
            kernel,
            window_strides=strides,
            padding=pads,
            lhs_dilation=dilation,
            rhs_dilation=kernel_dilation,
            dimension_numbers=(lhs, rhs, out),
            **settings,
        )

    def zeros_written_out(x: Array, kernel: Array) -> Array:
        between = [(0, 0, distance - 1) for distance in input_dilation]
        x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *between, (0, 0, 0)])
        return convolved(lax.optimization_barrier(x), kernel, None)

    if set(input_dilation) <= {1}:
        return convolved(x, kernel)
    # XLA:CPU aborts the process on some `lhs_dilation`; and, without the barrier, folds the zeros
    # back into one.
    return lax.platform_dependent(x, kernel, cpu=zeros_written_out, default=convolved)


# The backward pass in parts, each of use alone ---------------------------------------------------


def conv_input_grad(
    dy: Array,
    kernel: Array,
    input_size: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: _check.Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
) -> Array:
    """The cotangent of a convolution's input: a convolution of `dy` with the flipped kernel.

    `dx[n,i,c] = sum_{o,t,m : strides·o + kernel_dilation·t - pad = i} dy[n,o,m] · kernel[t,c,m]`

    Args:
        dy: cotangent of the output, `(N, *windows, O)`.
        kernel: `(*taps, C / feature_group_count, O)`.
        input_size: the spatial size of the input, which the output's does not settle alone: with
            a stride, inputs of several sizes have outputs of one.
        strides, padding, kernel_dilation, feature_group_count: those of the forward convolution;
            see `conv`.

    Returns:
        `dx`, `(N, *input_size, C)`.

    Raises:
        TypeError, ValueError: as `conv`; and where `dy` does not have the shape of that output.

    The counterpart of `torch.nn.grad.conv2d_input`; (3) at the top of this module.

    >>> dy, kernel = jnp.ones((1, 4, 4, 8)), jnp.ones((3, 3, 2, 8))
    >>> conv_input_grad(dy, kernel, (8, 8), strides=2).shape
    (1, 8, 8, 2)
    """
    function = "conv_input_grad"
    _check.same_dtype(function, dy=dy, kernel=kernel)
    _check_kernel(function, kernel, feature_group_count)
    size = _check.per_axis(function, "input_size", input_size, kernel.ndim - 2, least=0)
    taps = kernel.shape[:-2]
    window = _check.window(function, size, taps, strides, padding, kernel_dilation, names=NAMES)
    expected = (*window.outputs, kernel.shape[-1])
    if dy.shape[1:] != expected:
        raise ValueError(f"{function}: `dy` must have shape {('N', *expected)}, got {dy.shape}")
    return _jitted_input_grad(dy, kernel, window, feature_group_count, None)


def conv_kernel_grad(
    x: Array,
    dy: Array,
    kernel_size: Sequence[int],
    *,
    strides: int | Sequence[int] = 1,
    padding: _check.Padding = "SAME",
    kernel_dilation: int | Sequence[int] = 1,
    feature_group_count: int = 1,
) -> Array:
    """The cotangent of a convolution's kernel: a convolution of `x` with `dy` as the kernel.

    `dkernel[t,c,m] = sum_{n,o} x[n, strides·o + kernel_dilation·t - pad, c] · dy[n,o,m]`

    Args:
        x: the input, `(N, *spatial, C)`.
        dy: cotangent of the output, `(N, *windows, O)`.
        kernel_size: the kernel's taps along each spatial axis.
        strides, padding, kernel_dilation, feature_group_count: those of the forward convolution;
            see `conv`.

    Returns:
        `dkernel`, `(*kernel_size, C / feature_group_count, O)`.

    Raises:
        TypeError, ValueError: as `conv`; and where `dy` does not have the shape of that output.

    The counterpart of `torch.nn.grad.conv2d_weight`; (2) at the top of this module.

    >>> x, dy = jnp.ones((1, 8, 8, 2)), jnp.ones((1, 4, 4, 8))
    >>> conv_kernel_grad(x, dy, (3, 3), strides=2).shape
    (3, 3, 2, 8)
    """
    function = "conv_kernel_grad"
    _check.same_dtype(function, x=x, dy=dy)
    taps = _check.per_axis(function, "kernel_size", kernel_size, x.ndim - 2)
    size = x.shape[1:-1]
    window = _check.window(function, size, taps, strides, padding, kernel_dilation, names=NAMES)
    expected = (x.shape[0], *window.outputs)
    if dy.shape[:-1] != expected:
        raise ValueError(f"{function}: `dy` must have shape {(*expected, 'O')}, got {dy.shape}")
    return _jitted_kernel_grad(x, dy, window, feature_group_count, None)


_jitted_input_grad = jax.jit(input_grad, static_argnums=(2, 3, 4))
_jitted_kernel_grad = jax.jit(kernel_grad, static_argnums=(2, 3, 4))


# Checks ------------------------------------------------------------------------------------------


def check_conv(
    function: str,
    x: Array,
    kernel: Array,
    bias: Array | None,
    strides: int | Sequence[int],
    padding: _check.Padding,
    input_dilation: int | Sequence[int],
    kernel_dilation: int | Sequence[int],
    groups: int,
) -> Window:
    """The geometry of a convolution, when all arguments fit."""
    _check.same_dtype(function, x=x, kernel=kernel, bias=bias)
    _check_channels(function, x, kernel, groups)
    if bias is not None and bias.shape != kernel.shape[-1:]:
        raise ValueError(
            f"{function}: `bias` must have shape {kernel.shape[-1:]}, one entry for each output "
            f"channel of `kernel`, got {bias.shape}"
        )
    return _check.window(
        function,
        x.shape[1:-1],
        kernel.shape[:-2],
        strides,
        padding,
        kernel_dilation,
        input_dilation,
        names=NAMES,
    )


def _check_kernel(function: str, kernel: Array, groups: int) -> None:
    if kernel.ndim < 3 or 0 in kernel.shape[:-2]:
        raise ValueError(
            f"{function}: `kernel` must have shape (*taps, channels in, channels out) with one "
            f"spatial axis or more and a tap along each, got {kernel.shape}"
        )
    if groups < 1 or kernel.shape[-1] % groups:
        raise ValueError(
            f"{function}: `feature_group_count` {groups} must be positive and divide the "
            f"{kernel.shape[-1]} output channels of `kernel` of shape {kernel.shape}"
        )


def _check_channels(function: str, x: Array, kernel: Array, groups: int) -> None:
    _check_kernel(function, kernel, groups)
    if x.ndim != kernel.ndim:
        raise ValueError(
            f"{function}: `x` of shape {x.shape} must have {kernel.ndim} axes (batch, spatial, "
            f"channels), as `kernel` of shape {kernel.shape} has"
        )
    if x.shape[-1] != kernel.shape[-2] * groups:
        raise ValueError(
            f"{function}: `kernel` of shape {kernel.shape} has {kernel.shape[-2]} input channels, "
            f"but `x` of shape {x.shape} has {x.shape[-1]} in {groups} group{'s' * (groups > 1)}"
        )
