"""The function itself as the judge between two gradients that differ, in float64.

Along a direction v, D+(v) = (f(x + h v) - f(x)) / h and D-(v) = (f(x) - f(x - h v)) / h. Where f is
smooth both tend to <f'(x), v>. Where it has a kink they don't, and a gradient g is one of those
that lie between if

    min(D-, D+) <= <g, v> <= max(D-, D+)          for every v                                (1)

The coordinate directions do not suffice: at a tie of a maximum, where two arguments each take the
whole gradient, (1) holds along either of them and fails along both together. So v is drawn among
the signs on all of the places in question, on some of them, and among normal vectors.

Each output has bounds of its own, which are added up with the cotangent: a sum of a convex and a
concave kink would have D- and D+ on the same side. A loss that has done such a sum inside says
nothing then; that is noticed, because autodiff's gradient fails (1) as well.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

STEPS = (1e-5, 1e-7)
DIRECTIONS = 12


class Slope(NamedTuple):
    """The bounds on <g, v>, how far they may be off, and whether they are one."""

    low: float
    high: float
    error: float

    @property
    def smooth(self) -> bool:
        return self.high - self.low <= 8 * self.error

    def admits(self, slope: float) -> bool:
        return self.low - 4 * self.error <= slope <= self.high + 4 * self.error


def slope(
    f: Callable[[np.ndarray], Sequence[np.ndarray]],
    x: np.ndarray,
    v: np.ndarray,
    cotangents: Sequence[np.ndarray],
) -> Slope | None:
    """Bounds on the slope along `v`; None where f is not finite."""
    size = float(np.sqrt(np.mean(x**2))) or 1.0
    found = [_bounds(f, x, v, cotangents, step * size) for step in STEPS]
    finite = [bounds for bounds in found if np.all(np.isfinite(bounds))]
    if not finite:
        return None
    low, high, error = min(finite, key=lambda bounds: bounds[2])
    return Slope(low, high, error)


def _bounds(
    f: Callable[[np.ndarray], Sequence[np.ndarray]],
    x: np.ndarray,
    v: np.ndarray,
    cotangents: Sequence[np.ndarray],
    h: float,
) -> tuple[float, float, float]:
    """Lower and upper, and the error: what half the step changes, and rounding."""
    with np.errstate(all="ignore"):
        middle = f(x)
        pairs = []
        for step in (h, h / 2):
            ahead, behind = f(x + step * v), f(x - step * v)
            both = [
                (dy * (a - y) / step, dy * (y - b) / step)
                for a, y, b, dy in zip(ahead, middle, behind, cotangents, strict=True)
            ]
            steepest = sum(float(np.abs(p).sum() + np.abs(m).sum()) for p, m in both)
            pairs.append(
                (
                    sum(float(np.minimum(p, m).sum()) for p, m in both),
                    sum(float(np.maximum(p, m).sum()) for p, m in both),
                )
            )
        (low, high), (low_half, high_half) = pairs
        eps = float(np.finfo(np.float64).eps)
        magnitude = sum(
            float(np.abs(dy * y).sum()) for y, dy in zip(middle, cotangents, strict=True)
        )
        rounding = 8 * eps * magnitude / h + 64 * eps * (abs(low) + abs(high) + steepest)
        error = abs(low - low_half) + abs(high - high_half) + rounding
    return low_half, high_half, error


def verdict(
    f: Callable[[np.ndarray], Sequence[np.ndarray]],
    x: np.ndarray,
    found: np.ndarray,
    wanted: np.ndarray | None,
    cotangents: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> str:
    """Whether a gradient that differs from autodiff's is wrong.

    Args:
        f: the outputs, of the argument in question.
        x: that argument's value.
        found: the gradient under test.
        wanted: autodiff's, or None where there is none.
        cotangents: of the outputs.
        rng: draws the directions.

    Returns:
        `wrong`; `autodiff is wrong`, where it is autodiff's that the function contradicts;
        `neither`, where it contradicts both; `kink`, where either will do; or `cannot tell`.

    >>> def larger(x):
    ...     return [np.maximum(x[0], x[1])]
    >>> def judged(found):
    ...     return verdict(larger, np.ones(2), np.array(found), np.array([1.0, 0.0]), [np.ones(())],
    ...                    np.random.default_rng(0))
    >>> judged([0.0, 1.0]), judged([0.5, 0.5]), judged([1.0, 1.0])
    ('kink', 'kink', 'wrong')
    """
    places = np.ones(x.shape, bool) if wanted is None else found != wanted
    if wanted is not None:
        measured = slope(f, x, _unit(found - wanted), cotangents)
        if measured is None:
            return "cannot tell"
        if measured.smooth:
            return _sided(measured, found, wanted)
    admitted, others = True, True
    judged = 0
    for v in _directions(places, rng):
        measured = slope(f, x, v, cotangents)
        if measured is None:
            continue
        scale = float(np.linalg.norm(found * v)) + abs(measured.high) + abs(measured.low)
        if measured.error > 1e-3 * scale:
            continue
        judged += 1
        admitted &= measured.admits(float(np.vdot(found, v)))
        others &= wanted is None or measured.admits(float(np.vdot(wanted, v)))
    if not judged:
        return "cannot tell"
    if not others:
        return "neither"
    if admitted:
        return "kink"
    return "wrong"


def _sided(measured: Slope, found: np.ndarray, wanted: np.ndarray) -> str:
    """What the slope along their difference says of them."""
    v = _unit(found - wanted)
    apart = float(np.vdot(found - wanted, v))
    middle = (measured.low + measured.high) / 2
    ours, theirs = (abs(middle - float(np.vdot(g, v))) for g in (found, wanted))
    if measured.error > apart / 8:
        return "cannot tell"
    near = min(4 * measured.error + 1e-6 * abs(middle), apart / 4)
    if ours <= near:
        return "autodiff is wrong"
    return "wrong" if theirs <= near else "neither"


def _unit(v: np.ndarray) -> np.ndarray:
    """Of norm 1; scaled first, because the square of 1e200 is beyond float64."""
    v = v / np.abs(v).max()
    return v / np.linalg.norm(v)


def _directions(places: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Of those places, and of all: the ones that are right may be partners in a tie."""
    drawn = []
    for mask in (np.ones(places.shape), places.astype(np.float64)):
        drawn.append(mask)
        for _ in range(DIRECTIONS // 6):
            drawn.append(mask * rng.choice([-1.0, 1.0], places.shape))
            drawn.append(mask * (rng.random(places.shape) < 0.5))
            drawn.append(mask * rng.standard_normal(places.shape))
    return [v for v in drawn if v.any()]
