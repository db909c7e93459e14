"""The outputs and gradients at one point: a row for each, with a diagnosis where one is wrong."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxcnn.compare import agreement, judge
from jaxcnn.compare.agreement import Point, Results
from jaxcnn.compare.as_if import as_if, elementwise
from jaxcnn.compare.diagnosis import diagnose
from jaxcnn.compare.jaxprs import widened
from jaxcnn.compare.problem import Arrays, Problem, Pull, quick, traced_wide, widen
from jaxcnn.compare.report import Row


class Programs(NamedTuple):
    """What is evaluated at each point.

    Attributes:
        ours: with the rules under test.
        theirs: what they are held against; None where autodiff can't differentiate it.
        primal: the function without its rules, in float64.
    """

    ours: Pull
    theirs: Pull | None
    primal: Callable[[Arrays], Arrays]


def programs(problem: Problem) -> tuple[Programs, str]:
    """The programs of a problem, and why there is nothing to hold them against, if so."""
    values, cotangents = problem.values, problem.cotangents
    ours = Pull(problem.f, values, cotangents)
    theirs, reason = None, ""
    try:
        theirs = Pull(problem.against, values, cotangents)
    except Exception as error:  # whatever the function raises under autodiff
        reason = first_line(error)

    @cache
    def primal() -> Any:
        return quick(widened(traced_wide(problem.primal, values)[0]))

    def in_float64(values: Arrays) -> Arrays:
        with jax.enable_x64(True):
            return [np.asarray(output) for output in primal()(*widen(values))]

    return Programs(ours, theirs, in_float64), reason


def point(programs: Programs, values: Arrays, cotangents: Arrays) -> Point:
    """Evaluates both programs there."""
    ours = agreement.results(programs.ours, values, cotangents)
    theirs = agreement.results(programs.theirs, values, cotangents) if programs.theirs else None
    return Point(values, cotangents, ours, theirs)


def terms(values: Arrays, cotangents: Arrays) -> int:
    """A bound on the length of the longest sum."""
    return max(sum(array.size for array in arrays) for arrays in (values, cotangents))


def value_rows(problem: Problem, at: Point, programs: Programs) -> list[Row]:
    """A row for each output: as the forward rule gives it, and as the function does."""
    rows = []
    primal = programs.primal(at.values)
    several = len(at.cotangents) > 1
    for place in range(len(at.cotangents)):
        name = f"output {place}" if several else "output"
        wanted = at.theirs.wide[place] if at.theirs else primal[place]
        ours = at.ours
        theirs = at.theirs or Results(ours.narrow, primal, ours.noise, ours.wide_noise)
        count = terms(at.values, at.cotangents)
        allowed = agreement.narrow_bound(ours, theirs, place, count)
        strict = agreement.wide_bound(ours, theirs, place, count)
        error = agreement.largest_error(ours.narrow[place], wanted)
        figures = _figures(error, allowed, ours.narrow[place], wanted)
        from_function = agreement.largest_error(ours.wide[place], primal[place])
        from_other = agreement.largest_error(ours.wide[place], wanted)
        verdict, says = "WRONG", ""
        if from_function > strict:
            says = "the forward rule returns another value than the function"
        elif from_other > strict:
            says = "another value than that of `against`"
        elif error > max(allowed, strict):
            says = f"less precise than {ours.narrow[place].dtype}"
        else:
            verdict = "ok"
        rows.append(Row("value", name, verdict, says, figures))
    return rows


def gradient_rows(
    problem: Problem,
    at: Point,
    programs: Programs,
    rng: np.random.Generator,
    check: str = "gradient",
    prefix: str = "",
) -> list[Row]:
    """A row for each gradient."""
    judged = [_judged(problem, at, programs, number, rng) for number in range(len(problem.names))]
    if len(judged) > 1 and AT_A_KINK in judged and not _right_together(at, programs, rng):
        judged = [TOGETHER if verdict == AT_A_KINK else verdict for verdict in judged]
    figures = [_figures_of(at, number) for number in range(len(problem.names))]
    return [
        Row(check, prefix + name, *verdict, found)
        for name, verdict, found in zip(problem.names, judged, figures, strict=True)
    ]


AT_A_KINK = "differs", "from autodiff at a kink, where either is right"
TOGETHER = "WRONG", "at a kink, with the other arguments' it is no gradient: ties between them?"


def _right_together(at: Point, programs: Programs, rng: np.random.Generator) -> bool:
    """Whether the gradients of all arguments, as one, are one of those at a kink."""
    outputs = len(at.cotangents)
    values = widen(at.values)
    ends = np.cumsum([value.size for value in values])[:-1]

    def of_all(x: np.ndarray) -> Arrays:
        parts = zip(np.split(x, ends), values, strict=True)
        return programs.primal([part.reshape(value.shape) for part, value in parts])

    def joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate([array.ravel() for array in arrays])

    assert at.theirs is not None
    found, wanted = joined(at.ours.wide[outputs:]), joined(at.theirs.wide[outputs:])
    side = judge.verdict(of_all, joined(values), found, wanted, widen(at.cotangents), rng)
    return side != "wrong"


def _figures_of(at: Point, number: int) -> dict[str, float]:
    """The errors of one gradient in its own dtype, and what is allowed."""
    place = len(at.cotangents) + number
    if at.theirs is None or at.ours.narrow[place].dtype != at.values[number].dtype:
        return {}
    found, wanted = at.ours.narrow[place], at.theirs.wide[place]
    allowed = agreement.narrow_bound(at.ours, at.theirs, place, terms(at.values, at.cotangents))
    return _figures(agreement.largest_error(found, wanted), allowed, found, wanted)


def _judged(
    problem: Problem, at: Point, programs: Programs, number: int, rng: np.random.Generator
) -> tuple[str, str]:
    """The verdict on one gradient, and what it says."""
    place = len(at.cotangents) + number
    found, wide = at.ours.narrow[place], at.ours.wide[place]
    dtype = at.values[number].dtype
    if found.dtype != dtype:
        return "WRONG", f"{found.dtype} returned for a {dtype} argument"

    def judged(found: np.ndarray, wanted: np.ndarray | None) -> str:
        def of_argument(x: np.ndarray) -> Arrays:
            return programs.primal([*at.values[:number], x, *at.values[number + 1 :]])

        value = at.values[number].astype(np.float64)
        return judge.verdict(of_argument, value, found, wanted, widen(at.cotangents), rng)

    if at.theirs is None:
        return WITHOUT_AUTODIFF[judged(wide, None)]
    wanted, rounded = at.theirs.wide[place], at.theirs.narrow[place]
    for ours, autodiff in ((wide, wanted), (found, rounded)):
        lost = (np.isfinite(autodiff) & ~np.isfinite(ours)).sum()
        if lost:
            return "WRONG", f"infinite or NaN at {lost} of {ours.size} places, unlike autodiff's"

    count = terms(at.values, at.cotangents)
    strict = agreement.wide_bound(at.ours, at.theirs, place, count)
    if agreement.largest_error(wide, wanted) > strict:
        finite = np.isfinite(wide) & np.isfinite(wanted)
        side = judged(np.where(finite, wide, 0), np.where(finite, wanted, 0))
        if side == "kink":
            return AT_A_KINK
        if side == "autodiff is wrong":
            return "ok", "differences side with the rule: autodiff is no derivative here"
        if side == "neither":
            return "cannot tell", "differs from autodiff, and neither is a gradient of the function"
        if side == "cannot tell" and not np.isfinite(wanted).all():
            return "cannot tell", "differs from autodiff, which is not finite everywhere"
        return "WRONG", _diagnosed(problem, at, programs, number, wide, strict)

    allowed = agreement.narrow_bound(at.ours, at.theirs, place, count)
    error = agreement.largest_error(found, wanted)
    if error > max(allowed, strict):
        says = _diagnosed(problem, at, programs, number, found.astype(np.float64), allowed)
        return "WRONG", f"less precise than {dtype}: {says}"
    further = "autodiff's" if agreement.largest_error(rounded, wanted) > error else "the rule's"
    return "ok", f"rounding, {further} the larger" if error else ""


WITHOUT_AUTODIFF = {
    "kink": ("ok", "by differences: there is no autodiff of it"),
    "wrong": ("WRONG", "differences disagree"),
    "neither": ("WRONG", "differences disagree"),
    "cannot tell": ("cannot tell", "neither autodiff nor differences can be had"),
}


def _diagnosed(
    problem: Problem,
    at: Point,
    programs: Programs,
    number: int,
    found: np.ndarray,
    allowed: float,
) -> str:
    """What is wrong with a gradient: what was done to it, or to what it is made of, or how much."""
    assert at.theirs is not None
    assert programs.theirs is not None
    outputs, gradients = np.split(np.arange(len(at.theirs.wide)), [len(at.cotangents)])
    others = {
        name: at.theirs.wide[place]
        for name, place in zip(problem.names, gradients, strict=True)
        if name != problem.names[number]
    }
    wanted = at.theirs.wide[gradients[number]]
    values = dict(zip(problem.names, widen(at.values), strict=True))
    said = diagnose(
        found,
        wanted,
        allowed=allowed,
        value=values[problem.names[number]],
        values=values,
        cotangents=widen(at.cotangents),
        outputs=[at.theirs.wide[place] for place in outputs],
        others=others,
    )
    said = said or as_if(problem.names, at, programs.theirs, number, found, allowed)
    rng = np.random.default_rng(number)
    said = said or elementwise(at, programs.ours, programs.theirs, number, found, rng)
    return said or _by_how_much(found, wanted)


def first_line(error: Exception) -> str:
    """The kind of an error, and the first line of what it says."""
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _figures(
    error: float, allowed: float, found: np.ndarray, wanted: np.ndarray
) -> dict[str, float]:
    scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0)) or 1.0
    units = agreement.in_units_in_the_last_place(found, wanted)
    return {
        "absolute": error,
        "relative": error / scale,
        "allowed": allowed / scale,
        "ulp": units,
    }


def _by_how_much(found: np.ndarray, wanted: np.ndarray) -> str:
    with np.errstate(all="ignore"):
        errors = np.abs(found.astype(np.float64) - wanted)
    errors = np.where(np.isfinite(errors), errors, 0)
    where = np.unravel_index(int(errors.argmax()), errors.shape)
    index = ", ".join(map(str, where))
    return f"{found[where]:.6g} at [{index}], where {wanted[where]:.6g} is right"
