"""A wrong gradient as the right one of something else: of arrays reversed, shifted, or averaged.

`diagnosis.py` rearranges the right gradient. A mistake in what a rule *puts in* can't be seen that
way: a kernel gradient whose images are in another order is no rearrangement of the right one. So
the right program is run again on operands that were mistaken in one way each.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np

from jaxcnn.compare.agreement import Point
from jaxcnn.compare.problem import Pull, widen


def as_if(
    names: Sequence[str], at: Point, right: Pull, number: int, found: np.ndarray, allowed: float
) -> str | None:
    """Which mistaken operand gives the gradient that was found, of the array of that number."""
    values, cotangents = widen(at.values), widen(at.cotangents)
    operands = [*values, *cotangents]
    several = len(cotangents) > 1
    called = [f"`{name}`" for name in names]
    called += [f"the cotangent {i}" if several else "the cotangent" for i in range(len(cotangents))]
    for place, (name, operand) in enumerate(zip(called, operands, strict=True)):
        for said, mistaken in _mistakes(operand):
            if np.array_equal(mistaken, operand):
                continue
            changed = [*operands[:place], mistaken, *operands[place + 1 :]]
            with np.errstate(all="ignore"):
                gradients = right.wide(changed[: len(values)], changed[len(values) :])[1]
            left = gradients[number]
            size = np.abs(left).max(initial=0)
            if (
                np.isfinite(size)
                and np.abs(left - found).max(initial=0) <= 4 * allowed + 1e-9 * size
            ):
                return f"as if {name} were {said}"
    return None


def elementwise(
    at: Point, ours: Pull, right: Pull, number: int, found: np.ndarray, rng: np.random.Generator
) -> str | None:
    """Whether each element's gradient is off by a factor of its own, whatever the cotangent is."""
    cotangents = [rng.standard_normal(dy.shape) for dy in at.cotangents]
    wanted = right.wide(at.values, at.cotangents)[1][number]
    others = [pull.wide(at.values, cotangents)[1][number] for pull in (ours, right)]
    known = (wanted != 0) & (others[1] != 0)
    if known.sum() < 3:
        return None
    factors, again = found[known] / wanted[known], others[0][known] / others[1][known]
    alike = np.abs(again - factors) <= 1e-6 * np.maximum(np.abs(factors), 1)
    low, high = float(factors.min()), float(factors.max())
    if not alike.all() or high - low < 1e-3 * max(abs(low), abs(high)):
        return None
    return f"off by a factor that is each element's own, {low:.3g} to {high:.3g}: f' is wrong"


def _mistakes(x: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """What an operand may have been taken for."""
    axes = [axis for axis, length in enumerate(x.shape) if length > 1]
    for axis in axes:
        yield f"in reverse order along axis {axis}", np.flip(x, axis)
    for pair in combinations(axes, 2):
        yield "flipped along axes {} and {}".format(*pair), np.flip(x, pair)
    for axis in axes:
        for by in (1, -1):
            yield f"shifted by {by} along axis {axis}", _moved(x, by, axis)
            yield f"rolled by {by} along axis {axis}", np.roll(x, by, axis)
    for axis, other in combinations(axes, 2):
        if x.shape[axis] == x.shape[other]:
            yield f"transposed, axes {axis} and {other} swapped", x.swapaxes(axis, other)
    whole: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "all ones": np.ones_like,
        "zero": np.zeros_like,
        "its own mean everywhere": lambda x: np.full_like(x, x.mean() if x.size else 0),
        "its sum everywhere": lambda x: np.full_like(x, x.sum()),
        "its absolute value": np.abs,
        "its sign": np.sign,
        "its square": np.square,
        "negated": np.negative,
        "larger by 1": lambda x: x + 1,
        "clipped at 1": lambda x: np.clip(x, -1, 1),
        "of norm 1": lambda x: x / (np.linalg.norm(x) or 1),
    }
    for said, mistake in whole.items():
        yield said, mistake(x)
    for axis in axes:
        yield f"its mean over axis {axis}", x.mean(axis, keepdims=True) + 0 * x
        yield f"the same as its first entry along axis {axis}", x.take([0], axis) + 0 * x
        yield f"zero but for its first entry along axis {axis}", _first_alone(x, (axis,))
    if len(axes) > 1:
        others = tuple(axes[:-1])
        yield "its mean over all axes but the last", x.mean(others, keepdims=True) + 0 * x
        inner = tuple(axis for axis in axes if 0 < axis < x.ndim - 1)
        yield "zero but for its first place in each image", _first_alone(x, inner)


def _first_alone(x: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    first = tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(x.ndim))
    alone = np.zeros_like(x)
    alone[first] = x[first]
    return alone


def _moved(x: np.ndarray, by: int, axis: int) -> np.ndarray:
    """Shifted, with zeros coming in."""
    moved = np.roll(x, by, axis)
    edge = [slice(None)] * x.ndim
    edge[axis] = slice(0, by) if by > 0 else slice(by, None)
    moved[tuple(edge)] = 0
    return moved
