"""Convolution with the signatures of `jax.lax`: any layout, on the rule of `convolution.py`.

There is no calculus here. A layout is brought to channels last and back by a transposition, which
moves numbers and changes none. A convolution in groups of the batch becomes one in groups of the
channels: with B groups, each of n images and o output channels,

    y[i, :, b·o + m] = sum_{t,c} x[b·n + i, t, c] · kernel[t, c, b·o + m]

the b-th part of the batch meets the b-th part of the kernel alone; and so do the channels of group
b, where image b·n + i becomes channels b·C + c of an image i.

A transposed convolution is one whose input is dilated. It is not the adjoint of another with these
arguments unless `transpose_kernel` is set, and then it is (3) of `convolution.py`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from jaxcnn import _check
from jaxcnn._window import Window, span
from jaxcnn.convolution import Precision, jitted_conv

DimensionNumbers = lax.ConvDimensionNumbers | tuple[str, str, str] | None
LAX_NAMES = ("window_strides", "rhs_dilation", "lhs_dilation")


def conv_general_dilated(
    lhs: Array,
    rhs: Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: DimensionNumbers = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    precision: Precision = None,
    preferred_element_type: DTypeLike | None = None,
    out_sharding: Any = None,
) -> Array:
    """`jax.lax.conv_general_dilated` with a hand-derived gradient.

    Args:
        lhs: the images, of rank n + 2, with axes in the order that `dimension_numbers` says.
        rhs: the kernel, of rank n + 2 and the same dtype.
        window_strides: n steps of the window, in elements.
        padding: "SAME", "SAME_LOWER", "VALID", or n pairs (low, high); negative pads crop.
        lhs_dilation, rhs_dilation: n distances each, that the elements of `lhs` are moved apart to
            and that the kernel's taps have. None is 1 for all.
        dimension_numbers: a `jax.lax.ConvDimensionNumbers`, three strings such as ("NHWC", "HWIO",
            "NHWC"), or None for batch and channels first.
        feature_group_count, batch_group_count: numbers of groups that the channels, or the batch,
            are cut into; one of them is 1.
        precision, preferred_element_type: as in lax.
        out_sharding: the result's sharding, on a mesh with explicit axes.

    Returns:
        The result, in the layout that `dimension_numbers` says and in the dtype of `lhs` or
        `preferred_element_type`. Integers are convolved, and have no gradient.

    Raises:
        TypeError: the dtypes are not the same, or the geometry is not integer.
        ValueError: the shapes, groups or geometry do not fit, or the dimension numbers are none.

    Gradient: that of `jaxcnn.conv`, moved to the layout; see `convolution.py`.

    >>> x, kernel = jnp.ones((1, 3, 8, 8)), jnp.ones((6, 1, 3, 3))
    >>> conv_general_dilated(x, kernel, (2, 2), "SAME", feature_group_count=3).shape
    (1, 6, 4, 4)
    """
    function = "conv_general_dilated"
    _check.same_dtype(function, lhs=lhs, rhs=rhs)
    layout = _layout(function, lhs, rhs, dimension_numbers)
    size = tuple(lhs.shape[axis] for axis in layout.lhs_spec[2:])
    taps = tuple(rhs.shape[axis] for axis in layout.rhs_spec[2:])
    _check_groups(function, lhs, rhs, layout, feature_group_count, batch_group_count)
    window = _check.window(
        function,
        size,
        taps,
        window_strides,
        padding,
        1 if rhs_dilation is None else rhs_dilation,
        1 if lhs_dilation is None else lhs_dilation,
        names=LAX_NAMES,
    )
    y = _convolved(
        lhs,
        rhs,
        window,
        layout,
        feature_group_count,
        batch_group_count,
        tuple(precision) if isinstance(precision, list) else precision,
        _check.dtype(function, preferred_element_type),
    )
    return y if out_sharding is None else jax.reshard(y, out_sharding)


def conv_transpose(
    lhs: Array,
    rhs: Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: DimensionNumbers = None,
    transpose_kernel: bool = False,
    precision: Precision = None,
    preferred_element_type: DTypeLike | None = None,
    use_consistent_padding: bool = False,
) -> Array:
    """`jax.lax.conv_transpose` with a hand-derived gradient: `lhs` dilated by `strides`, convolved.

    Args:
        lhs: the images, of rank n + 2; channels last, unless `dimension_numbers` says otherwise.
        rhs: the kernel, of rank n + 2 and the same dtype.
        strides: n distances that the elements of `lhs` are moved apart to.
        padding: "SAME" (a result of `size · strides`) or "VALID" (all that a window touches); or n
            pairs (low, high) of the dilated input's padding.
        rhs_dilation: n distances of the kernel's taps; None is 1 for all.
        dimension_numbers: as in `conv_general_dilated`; None is channels last.
        transpose_kernel: turn the kernel by 180 degrees and swap its channels: the adjoint of a
            convolution with that kernel.
        precision, preferred_element_type: as in lax.
        use_consistent_padding: pairs are the pads of the convolution that it is the adjoint of.

    Returns:
        The result, in the layout of `lhs`.

    Raises:
        TypeError, ValueError: as `conv_general_dilated`.

    Gradient: that of `jaxcnn.conv`; see `convolution.py`.

    >>> conv_transpose(jnp.ones((1, 4, 4, 3)), jnp.ones((2, 2, 3, 5)), (2, 2), "SAME").shape
    (1, 8, 8, 5)
    """
    function = "conv_transpose"
    if dimension_numbers is None:
        spatial = "XYZUVW"[: jnp.ndim(lhs) - 2]
        dimension_numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    _check.same_dtype(function, lhs=lhs, rhs=rhs)
    layout = _layout(function, lhs, rhs, dimension_numbers)
    taps = [rhs.shape[axis] for axis in layout.rhs_spec[2:]]
    steps = _check.per_axis(function, "strides", strides, len(taps))
    distance = 1 if rhs_dilation is None else rhs_dilation
    dilation = _check.per_axis(function, "rhs_dilation", distance, len(taps))
    spans = list(map(span, taps, dilation))
    pads: Any = padding
    if isinstance(padding, str):
        pads = [
            _transposed_pad(function, *axis, padding) for axis in zip(spans, steps, strict=True)
        ]
    elif use_consistent_padding:
        pads = [(k - 1 - low, k - 1 - high) for k, (low, high) in zip(spans, padding, strict=True)]
    if transpose_kernel:
        out, into, *axes = layout.rhs_spec
        rhs = jnp.flip(rhs, axes).swapaxes(out, into)
    return conv_general_dilated(
        lhs,
        rhs,
        (1,) * len(taps),
        pads,
        steps,
        dilation,
        layout,
        precision=precision,
        preferred_element_type=preferred_element_type,
    )


# Layouts -----------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=(2, 3, 4, 5, 6, 7))
def _convolved(
    lhs: Array,
    rhs: Array,
    window: Window,
    layout: lax.ConvDimensionNumbers,
    feature_groups: int,
    batch_groups: int,
    precision: Precision,
    dtype: DTypeLike | None,
) -> Array:
    """The result in its layout, from arrays in theirs."""
    (batch, channels, *axes), (out, into, *taps), result = layout
    x = lhs.transpose(batch, *axes, channels)
    kernel = rhs.transpose(*taps, into, out)
    if batch_groups > 1:
        x = x.reshape(batch_groups, x.shape[0] // batch_groups, *x.shape[1:])
        x = jnp.moveaxis(x, 0, -2)
        x = x.reshape(*x.shape[:-2], batch_groups * x.shape[-1])
    y = jitted_conv(x, kernel, None, window, feature_groups * batch_groups, precision, dtype)
    return y.transpose(np.argsort((result[0], *result[2:], result[1])))


def _layout(
    function: str, lhs: Array, rhs: Array, dimension_numbers: DimensionNumbers
) -> lax.ConvDimensionNumbers:
    if lhs.ndim != rhs.ndim or lhs.ndim < 2:
        raise ValueError(
            f"{function}: `lhs` and `rhs` must have the same rank, 2 or more, got shapes "
            f"{lhs.shape} and {rhs.shape}"
        )
    try:
        layout = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"{function}: `dimension_numbers` {dimension_numbers!r}: {error}"
        ) from None
    # Lists are unhashable, and flax passes them.
    return lax.ConvDimensionNumbers(*(tuple(map(int, spec)) for spec in layout))


def _check_groups(
    function: str,
    lhs: Array,
    rhs: Array,
    layout: lax.ConvDimensionNumbers,
    feature_groups: int,
    batch_groups: int,
) -> None:
    batch, channels = lhs.shape[layout.lhs_spec[0]], lhs.shape[layout.lhs_spec[1]]
    outputs, inputs = rhs.shape[layout.rhs_spec[0]], rhs.shape[layout.rhs_spec[1]]
    for name, groups in (
        ("feature_group_count", feature_groups),
        ("batch_group_count", batch_groups),
    ):
        if groups < 1 or outputs % groups:
            raise ValueError(
                f"{function}: `{name}` {groups} must be positive and divide the {outputs} output "
                f"channels of `rhs` of shape {rhs.shape}"
            )
    if feature_groups > 1 and batch_groups > 1:
        raise ValueError(
            f"{function}: one of `feature_group_count` {feature_groups} and `batch_group_count` "
            f"{batch_groups} must be 1"
        )
    if batch_groups > 1 and batch % batch_groups:
        raise ValueError(
            f"{function}: `batch_group_count` {batch_groups} must divide the batch of {batch}"
        )
    if channels != inputs * feature_groups:
        raise ValueError(
            f"{function}: `rhs` of shape {rhs.shape} has {inputs} input channels, but `lhs` of "
            f"shape {lhs.shape} has {channels} in {feature_groups} "
            f"group{'s' * (feature_groups > 1)}"
        )


def _transposed_pad(function: str, k: int, stride: int, padding: str) -> tuple[int, int]:
    """The pads of the dilated input, for a window that spans `k` elements."""
    match padding:
        case "VALID":  # every place that a window touches
            return k - 1, k - 1 + max(stride - k, 0)
        case "SAME":  # size · stride outputs, and an odd element before
            total = k + stride - 2
            low = k - 1 if stride > k - 1 else -(-total // 2)
            return low, total - low
    raise ValueError(f"{function}: `padding` {padding!r} must be 'SAME', 'VALID' or pads")
