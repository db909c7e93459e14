"""A gradient against central differences: an opinion that needs no reference.

Along a direction v, with D±(h) = ±(f(x ± h v) - f(x)) / h and D(h) = (D+(h) + D-(h)) / 2,

    D(h) = <grad f, v> + O(h²)   and   D+(h) - D-(h) = O(h)   where f is smooth.

A kink at a distance t <= h along v, where the slope jumps by J, adds (1 - t/h) J / 2 to D(h) and
(1 - t/h) J to D+(h) - D-(h). So the error of D(h/2) never exceeds

    |D(h) - D(h/2)| + |D+(h) - D-(h) - 2 (D+(h/2) - D-(h/2))|

whether f is smooth (the first term is three times the error) or has one kink anywhere in the
step, in its middle too: t = 0, a ReLU at 0 or a tie in a pool, where D(h) = D(h/2) and both are
wrong. This is both the test for a kink and, with the rounding of f, the tolerance. The gradient
has no part in the test: a wrong one cannot pass for a kink.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

Arrays = dict[str, Any]

# How far x is moved, relative to its own size: less far where a kink is in the way. The first is
# short enough for the error of the curvature, its square, and long enough for that of the
# rounding, eps divided by it.
STEPS = (1e-5, 1e-6, 1e-7, 1e-8)
SHORTER = (0.9, 0.8, 0.7, 0.6)  # of a step: the rounding of f is drawn anew


@dataclass(frozen=True)
class Difference:
    """What the differences say of a gradient.

    Attributes:
        relative: the largest |D - <gradient, v>| over the directions without a kink, relative to
            |D| or to the gradient's norm, the larger; None when each direction straddles a kink.
        ok: whether each of these is within the difference's own error.
    """

    relative: float | None
    ok: bool


def compare_with_differences(
    f: Callable[[Arrays], Any],
    gradient: Callable[[Arrays], Arrays],
    values: Arrays,
    name: str,
    cotangent: Any,
    rng: np.random.Generator,
    *,
    directions: int = 3,
) -> Difference:
    """Compares a gradient of `<f(values), cotangent>` with central differences, in float64.

    Args:
        f: a function of arrays by name; its result may be a tree.
        gradient: the gradient under test, as a function of the same arrays.
        values: where.
        name: which of the arrays to move.
        cotangent: of the shapes of `f(values)`.
        rng: draws the directions.
        directions: how many of them.

    Where no direction is free of a kink (equal values in a pool's input are a tie along each), the
    differences are taken next to there, a hundredth of the array's size away.

    >>> def square(values):
    ...     return values["x"] ** 2
    >>> def gradient(values):
    ...     return {"x": 2 * values["x"]}
    >>> x, rng = np.ones(3), np.random.default_rng(0)
    >>> compare_with_differences(square, gradient, {"x": x}, "x", np.ones(3), rng).ok
    True
    """
    x = np.asarray(values[name])
    size = float(np.sqrt(np.mean(x**2))) or 1.0
    for point in (x, x + 1e-2 * size * rng.standard_normal(x.shape)):
        at_point = np.asarray(gradient({**values, name: point})[name])

        def output(x: np.ndarray) -> Any:
            return jax.tree.map(np.asarray, f({**values, name: x}))

        results = [
            _along(output, point, at_point, rng.standard_normal(x.shape), size, cotangent)
            for _ in range(directions)
        ]
        clean = [result for result in results if result is not None]
        if clean:
            return Difference(max(error for error, _ in clean), all(ok for _, ok in clean))
    return Difference(None, True)


def _along(
    f: Callable[[np.ndarray], Any],
    x: np.ndarray,
    gradient: np.ndarray,
    v: np.ndarray,
    size: float,
    cotangent: Any,
) -> tuple[float, bool] | None:
    """The relative error along `v` and whether it is within tolerance; None for a kink."""
    eps = float(np.finfo(np.float64).eps)
    y = f(x)
    magnitude = _inner(jax.tree.map(np.abs, y), jax.tree.map(np.abs, cotangent))

    def one_sided(h: float) -> float:
        return _inner(jax.tree.map(np.subtract, f(x + h * v), y), cotangent) / h

    def central(h: float) -> tuple[float, float]:
        forward, backward = one_sided(h), one_sided(-h)
        forward_half, backward_half = one_sided(h / 2), one_sided(-h / 2)
        slope = (forward_half + backward_half) / 2
        bend = abs((forward + backward) / 2 - slope)
        return slope, bend + abs((forward - backward) - 2 * (forward_half - backward_half))

    for step in STEPS:
        h = step * size
        slope, bend = central(h)
        # As if each output were off by 8 units in its last place and none cancelled.
        rounding = 8 * eps * magnitude / h
        scale = max(abs(slope), float(np.linalg.norm(gradient)))
        # eps^(2/3) is the best that central differences do at a step that balances their errors.
        if bend <= eps ** (2 / 3) * scale + rounding:
            error = abs(slope - float(np.vdot(gradient, v)))
            if error > bend + rounding:
                # Long sums are off by more than 8 units: that is what the bend of a smooth function
                # is made of, but for one that is small by chance.
                bend = max(bend, *(central(h * shorter)[1] for shorter in SHORTER))
            return (error / scale if error else 0.0), error <= bend + rounding
    return None


def _inner(a: Any, b: Any) -> float:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return float(sum(np.vdot(x, y) for x, y in pairs))
