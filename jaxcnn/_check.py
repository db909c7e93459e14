"""Checks of arguments, in one style: function, argument in backticks, its value, what is wrong.

They run while tracing, on what is static (shapes, dtypes, geometry), and return the canonical form:
a tuple where a list or a single integer was given, pads where a string was.
"""

import operator
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from jaxcnn._window import Pads, Window, same_pad

Padding = str | int | Sequence[int | Sequence[int]]


def floating(function: str, **arrays: Array | None) -> None:
    """All are arrays of real floating dtype, or None."""
    _kind(function, jnp.floating, "a floating dtype", arrays)


def integer(function: str, **arrays: Array | None) -> None:
    """All are arrays of integer dtype, or None."""
    _kind(function, jnp.integer, "an integer dtype", arrays)


def boolean(function: str, **arrays: Array | None) -> None:
    """All are arrays of booleans, or None."""
    _kind(function, jnp.bool_, "dtype bool", arrays)


def _kind(function: str, kind: Any, wanted: str, arrays: dict[str, Array | None]) -> None:
    for name, array in arrays.items():
        if array is None:
            continue
        if not hasattr(array, "dtype"):
            raise TypeError(f"{function}: `{name}` must be an array, got {type(array).__name__}")
        if not jnp.issubdtype(array.dtype, kind):
            raise TypeError(f"{function}: `{name}` must have {wanted}, got {array.dtype}")


def same_dtype(function: str, **arrays: Array | None) -> None:
    """All have the first one's dtype, as lax asks: nothing is promoted in silence."""
    given = {name: array.dtype for name, array in arrays.items() if array is not None}
    if len(set(given.values())) > 1:
        found = ", ".join(f"`{name}` {dtype}" for name, dtype in given.items())
        raise TypeError(f"{function}: dtypes must be equal, got {found}")


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
    dilation: tuple[str, int | Sequence[int]] = ("dilation", 1),
) -> Window:
    """The geometry, canonical: an entry an axis in each field. `dilation` comes with its name.

    `padding` is "SAME", "SAME_LOWER" or "VALID" (in any case, as in lax), one integer for all
    sides, or an entry an axis: an integer or a pair. Negative pads crop.
    """
    steps = per_axis(function, "strides", strides, len(size))
    distance = per_axis(function, *dilation, len(size))
    pads = _pads(function, padding, size, taps, steps, distance)
    return Window(tuple(size), tuple(taps), steps, pads, distance)


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
