"""The derivative of a gradient: a rule is to be right when it is differentiated once more.

With g(x) the gradient of <f(x), dy>, and a direction v,

    d/dt g(x + t v)  at 0

by JAX, forward over reverse (or reverse over reverse, which by symmetry is the same, where the rule
calls a function with a rule and so has no forward mode), against central differences of g in
float64. So a residual behind `stop_gradient`, or a backward pass that only looks like the
derivative at the point, is seen.
"""

from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.compare import agreement
from jaxcnn.compare.agreement import Point
from jaxcnn.compare.jaxprs import widened
from jaxcnn.compare.point import Programs, first_line
from jaxcnn.compare.problem import Arrays, Problem, quick, traced_wide, widen
from jaxcnn.compare.report import Row

NAME = "second order"


def directions(problem: Problem, rng: np.random.Generator) -> Arrays:
    """One of normal numbers for each array."""
    return [rng.standard_normal(value.shape).astype(value.dtype) for value in problem.values]


def derivative(problem: Problem, directions: Arrays) -> Arrays | str:
    """That of each gradient along the directions, in float64; or why there is none."""

    def gradients(values: Arrays, cotangents: Arrays) -> Arrays:
        return jax.vjp(problem.f, values)[1](cotangents)[0]

    def forward_over_reverse(values: Arrays, directions: Arrays, cotangents: Arrays) -> Arrays:
        return jax.jvp(lambda x: gradients(x, cotangents), (values,), (directions,))[1]

    def reverse_over_reverse(values: Arrays, directions: Arrays, cotangents: Arrays) -> Arrays:
        return jax.vjp(lambda x: gradients(x, cotangents), values)[1](directions)[0]

    operands = problem.values, directions, problem.cotangents
    reason = ""
    for way in (forward_over_reverse, reverse_over_reverse):
        try:
            program, _ = traced_wide(way, *operands)
            with jax.enable_x64(True):
                results = quick(widened(program), 0)(*chain.from_iterable(map(widen, operands)))
        except Exception as raised:  # whatever the rule raises when it is differentiated
            reason = first_line(raised)
            continue
        found = [np.asarray(result) for result in results]
        if all(jnp.issubdtype(g.dtype, jnp.floating) for g in found):
            return found
        reason = "a gradient is no floating array"
    return reason


def second_order_row(
    problem: Problem, at: Point, programs: Programs, v: Arrays, found: Arrays | str
) -> Row:
    """What `derivative` found along v, against differences."""
    if isinstance(found, str):
        return Row("contract", NAME, "note", f"there is none: {found}")

    def gradients(t: float) -> Arrays:
        values = [x + t * along for x, along in zip(widen(at.values), v, strict=True)]
        return programs.ours.wide(values, at.cotangents)[1]

    def differences(h: float) -> Arrays:
        ahead, behind = gradients(h), gradients(-h)
        return [(a - b) / (2 * h) for a, b in zip(ahead, behind, strict=True)]

    unsure = False
    steps = differences(1e-7), differences(5e-8)
    largest = max(map(_largest, at.ours.wide[len(at.cotangents) :]), default=0.0)
    for name, g, wide, close in zip(problem.names, found, *steps, strict=True):
        scale = max(_largest(close), _largest(g))
        doubt = agreement.largest_error(wide, close)
        if doubt > 1e-3 * scale + 1e-6:
            unsure = True
        elif agreement.largest_error(g, close) > 8 * doubt + 1e-6 * (scale + max(1.0, largest)):
            error = agreement.largest_error(g, close) / (scale or 1)
            says = f"off by {error:.2g} of the largest entry: {name}"
            return Row("contract", NAME, "WRONG", says)
    if unsure:
        return Row("contract", NAME, "cannot tell", "a kink is too near for differences")
    return Row("contract", NAME, "ok")


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0))
