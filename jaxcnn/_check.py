"""Checks of arguments, in one style: function, argument in backticks, its value, what is wrong.

They run while tracing, on what is static (shapes, dtypes, geometry), and return the canonical form:
a tuple where a list or a single integer was given, pads where a string was.
"""

import operator
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from jaxcnn._window import Pads, Window, same_pad

Padding = str | int | Sequence[int | Sequence[int]]


def array(function: str, **given: Any) -> Array:
    """The one argument given, as a JAX array; lists are refused, as jax.numpy does."""
    ((name, value),) = given.items()
    if not hasattr(value, "dtype") and not isinstance(value, int | float | complex):
        raise TypeError(f"{function}: `{name}` must be an array, got {type(value).__name__}")
    return jnp.asarray(value)


def inexact(function: str, **given: Any) -> Array:
    """The one argument given, as a JAX array of floating or complex dtype."""
    x = array(function, **given)
    return x.astype(jnp.result_type(x, float))


def promoted(function: str, **given: Any) -> list[Array]:
    """The arguments as JAX arrays of the one inexact dtype that they promote to."""
    arrays = [array(function, **{name: value}) for name, value in given.items()]
    dtype = jnp.result_type(*arrays, float)
    return [x.astype(dtype) for x in arrays]


def floating(function: str, **arrays: Array | None) -> None:
    """All are arrays of real floating dtype, or None."""
    _kind(function, jnp.floating, "a floating dtype", arrays)


def integer(function: str, **arrays: Array | None) -> None:
    """All are arrays of integer dtype, or None."""
    _kind(function, jnp.integer, "an integer dtype", arrays)


def boolean(function: str, **arrays: Array | None) -> None:
    """All are arrays of booleans, or None."""
    _kind(function, jnp.bool_, "dtype bool", arrays)


def same_dtype(function: str, **arrays: Array | None) -> None:
    """All have the first one's dtype, as lax asks: nothing is promoted in silence."""
    given = _dtypes(function, arrays)
    if len(set(given.values())) > 1:
        found = ", ".join(f"`{name}` {dtype}" for name, dtype in given.items())
        raise TypeError(f"{function}: dtypes must be equal, got {found}")


def _kind(function: str, kind: Any, wanted: str, arrays: dict[str, Array | None]) -> None:
    for name, dtype in _dtypes(function, arrays).items():
        if not jnp.issubdtype(dtype, kind):
            raise TypeError(f"{function}: `{name}` must have {wanted}, got {dtype}")


def _dtypes(function: str, arrays: dict[str, Array | None]) -> dict[str, np.dtype]:
    """The dtypes of those that are not None, by name."""
    given = {name: array for name, array in arrays.items() if array is not None}
    for name, array in given.items():
        if not hasattr(array, "dtype"):
            raise TypeError(f"{function}: `{name}` must be an array, got {type(array).__name__}")
    return {name: array.dtype for name, array in given.items()}


def labels(function: str, labels: Any, **predictions: Array) -> Array:
    """The labels, when the predictions are floating and the shapes broadcast."""
    floating(function, **predictions)
    ((name, prediction),) = predictions.items()
    labels = jnp.asarray(labels)
    try:
        jnp.broadcast_shapes(prediction.shape, labels.shape)
    except ValueError:
        raise ValueError(
            f"{function}: `labels` of shape {labels.shape} do not broadcast with `{name}` of shape "
            f"{prediction.shape}"
        ) from None
    return labels


def dtype(function: str, preferred_element_type: DTypeLike | None) -> np.dtype | None:
    """The dtype that is meant, hashable."""
    try:
        return None if preferred_element_type is None else np.dtype(preferred_element_type)
    except TypeError:
        raise TypeError(
            f"{function}: `preferred_element_type` must be a dtype, got {preferred_element_type!r}"
        ) from None


def per_axis(
    function: str, name: str, value: int | Sequence[int], rank: int, *, least: int = 1
) -> tuple[int, ...]:
    """One integer an axis, `least` or more; a single integer stands for all of them."""
    try:
        values = (operator.index(value),) * rank  # type: ignore[arg-type]
    except TypeError:
        try:
            values = tuple(operator.index(entry) for entry in value)  # type: ignore[union-attr]
        except TypeError:
            raise TypeError(f"{function}: `{name}` must hold integers, got {value!r}") from None
    if len(values) != rank:
        raise ValueError(f"{function}: `{name}` {value!r} must have {rank} entries, one an axis")
    if any(entry < least for entry in values):
        raise ValueError(f"{function}: `{name}` {value!r} must be at least {least}")
    return values


def window(
    function: str,
    size: Sequence[int],
    taps: Sequence[int],
    strides: int | Sequence[int],
    padding: Padding,
    dilation: int | Sequence[int] = 1,
    input_dilation: int | Sequence[int] = 1,
    *,
    names: tuple[str, str, str] = ("strides", "window_dilation", ""),
) -> Window:
    """The geometry, canonical: an entry an axis in each field.

    `names` are those of strides and dilations in the function's signature.

    `padding` is "SAME", "SAME_LOWER" or "VALID" (in any case, as in lax), one integer for all
    sides, or an entry an axis: an integer or a pair. Negative pads crop.
    """
    steps, dilations, spread = (
        per_axis(function, name, value, len(size))
        for name, value in zip(names, (strides, dilation, input_dilation), strict=True)
    )
    if isinstance(padding, str) and set(spread) - {1}:
        raise ValueError(
            f"{function}: `padding` {padding!r} must be pads where `{names[2]}` is not 1"
        )
    pads = _pads(function, padding, size, taps, steps, dilations)
    return Window(tuple(size), tuple(taps), steps, pads, dilations, spread)


def _pads(
    function: str,
    padding: Padding,
    size: Sequence[int],
    taps: Sequence[int],
    strides: Sequence[int],
    dilation: Sequence[int],
) -> Pads:
    if isinstance(padding, str):
        mode = padding.upper()
        if mode == "VALID":
            return ((0, 0),) * len(size)
        if mode in ("SAME", "SAME_LOWER"):
            lower = mode == "SAME_LOWER"
            axes = zip(size, taps, strides, dilation, strict=True)
            return tuple(same_pad(*axis, lower=lower) for axis in axes)
        raise ValueError(
            f"{function}: `padding` {padding!r} must be 'SAME', 'SAME_LOWER', 'VALID' or pads"
        )
    try:
        entries = [padding] * len(size) if isinstance(padding, int) else list(padding)
        pairs = tuple(_pair(entry) for entry in entries)
    except (TypeError, ValueError):
        raise TypeError(
            f"{function}: `padding` {padding!r} must be a string, an integer, or integers or "
            "(low, high) pairs of them, one an axis"
        ) from None
    if len(pairs) != len(size):
        raise ValueError(
            f"{function}: `padding` {padding!r} must have {len(size)} entries, one an axis"
        )
    return pairs


def _pair(entry: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(entry, Sequence):
        low, high = entry
        return operator.index(low), operator.index(high)
    return operator.index(entry), operator.index(entry)
