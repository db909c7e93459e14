"""What a rule owes to JAX besides the right numbers: a row for each promise.

A gradient is linear in the cotangent; it is the same twice, compiled or not, mapped or looped over,
rematerialised, and inside `scan` and `shard_map`. (And it has a derivative: `second_order.py`.)
`vmap`, `scan` and `checkpoint` are tried together, one inside the other, in one program; only if
that fails is each tried alone, to say which.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, PartitionSpec

from jaxcnn._order import varying
from jaxcnn.compare import agreement
from jaxcnn.compare.jaxprs import calls_outside_jit
from jaxcnn.compare.point import Point, Programs, first_line, terms
from jaxcnn.compare.problem import Arrays, Function, Problem, quick, wide_if, widen
from jaxcnn.compare.report import Row

LARGE = 500  # equations
FAR = -1000.0  # what a cotangent is scaled by: beyond where anyone clips, and with another sign


def contract_rows(
    problem: Problem, at: Point, programs: Programs, rng: np.random.Generator
) -> Iterator[Row]:
    """What is seen by running it. A large program is run in no other ways: it is only traced so."""
    yield linear_row(at, programs, rng)
    yield _same_twice(at, programs)
    if programs.ours.size <= LARGE:
        yield _eager(problem, at)
        yield from _transformed(problem, at)


def traced_rows(problem: Problem, programs: Programs) -> Iterator[Row]:
    """What is seen by tracing it."""
    if programs.ours.size > LARGE:
        yield _traceable(problem)
    yield _sharded(problem)
    yield _unused(problem)


# Linear in the cotangent -------------------------------------------------------------------------


def linear_row(at: Point, programs: Programs, rng: np.random.Generator) -> Row:
    """Additive, homogeneous and zero for zero, in float64 at the same values."""
    outputs = len(at.cotangents)

    def gradients(cotangents: Arrays) -> Arrays:
        return programs.ours.wide(at.values, cotangents)[1]

    first = widen(at.cotangents)
    second = [rng.standard_normal(dy.shape) for dy in first]
    here, there = at.ours.wide[outputs:], gradients(second)
    size = max((_largest(g) for g in [*here, *there]), default=0.0)
    rounding = max(at.ours.wide_noise[outputs:], default=0.0)
    allowed = 1e-10 * size + 64 * rounding
    scaled = gradients([FAR * dy for dy in first])
    nothing = gradients([0 * dy for dy in first])
    both = gradients([a + b for a, b in zip(first, second, strict=True)])
    if any(_largest(g) > allowed for g in nothing):
        says = f"a cotangent of zero gives {max(map(_largest, nothing)):.3g}"
        return Row("contract", "linear in the cotangent", "WRONG", f"not linear: {says}")
    for g, far in zip(here, scaled, strict=True):
        if agreement.largest_error(far, FAR * g) > abs(FAR) * allowed:
            return Row("contract", "linear in the cotangent", "WRONG", _not_homogeneous(g, far))
    sums = [a + b for a, b in zip(here, there, strict=True)]
    if any(
        agreement.largest_error(g, wanted) > 4 * allowed
        for g, wanted in zip(both, sums, strict=True)
    ):
        says = "not linear in the cotangent: that of a sum is not the sum of those of its parts"
        return Row("contract", "linear in the cotangent", "WRONG", says)
    return Row("contract", "linear in the cotangent", "ok")


def _not_homogeneous(g: np.ndarray, far: np.ndarray) -> str:
    """For a cotangent that is a thousand times as large, what the gradient is."""
    limit = _largest(far)
    at_limit = np.abs(far) == limit
    beyond = np.abs(FAR * g) > limit
    if limit and beyond.any() and at_limit[beyond].all():
        return f"not linear in the cotangent: clipped at {limit:.6g}"
    if agreement.largest_error(far, abs(FAR) * g) <= 1e-6 * abs(FAR) * _largest(g):
        return "not linear in the cotangent: its sign is lost"
    with np.errstate(all="ignore"):
        power = np.log10(np.median(np.abs(far[g != 0] / g[g != 0]))) / 3
    if np.isfinite(power) and abs(power - round(power)) < 1e-6 and round(power) != 1:
        return f"not linear in the cotangent: it goes with its power {round(power)}"
    return "not linear in the cotangent: a thousand times as large, it gives another direction"


# The same in every way of calling it -------------------------------------------------------------


def _same_twice(at: Point, programs: Programs) -> Row:
    again = programs.ours.narrow(at.values, at.cotangents)
    same = all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(at.ours.narrow, [*again[0], *again[1]], strict=True)
    )
    says = "" if same else "another result for the same arguments"
    return Row("contract", "same twice", "ok" if same else "WRONG", says)


def _eager(problem: Problem, at: Point) -> Row:
    def run() -> Arrays:
        with wide_if(problem.values):
            outputs, back = jax.vjp(problem.f, list(map(jnp.asarray, problem.values)))
            return [*outputs, *back(list(map(jnp.asarray, problem.cotangents)))[0]]

    return _compared("eager = jit", run, problem, at)


def _transformed(problem: Problem, at: Point) -> Iterator[Row]:
    """All of them at once, or one by one."""
    together = _compared("vmap, scan, remat", partial(_all, problem), problem, at)
    if together.verdict == "ok":
        yield together
        return
    ways = {"vmap = loop": _mapped, "scan": _scanned, "remat": _rematerialised}
    rows = [_compared(name, partial(way, problem), problem, at) for name, way in ways.items()]
    yield from rows if any(row.verdict != "ok" for row in rows) else [together, *rows]


def _traceable(problem: Problem) -> Row:
    """Whether JAX accepts all of these ways at once."""
    name = "vmap, scan, remat"
    try:
        with wide_if(problem.values):
            jax.eval_shape(_nested(problem), _twice(problem))
    except Exception as raised:
        return Row("contract", name, "WRONG", f"raises {first_line(raised)}")
    return Row("contract", name, "ok", "traced alone, and not run in eager code: it is large")


def _compared(name: str, run: Callable[[], Arrays], problem: Problem, at: Point) -> Row:
    """Whether a way of calling it gives the results that are known."""
    try:
        found = [np.asarray(result) for result in run()]
    except Exception as raised:
        return Row("contract", name, "WRONG", f"raises {first_line(raised)}")
    count = terms(at.values, at.cotangents)
    against = at.theirs or at.ours
    for place, (result, wanted) in enumerate(zip(found, at.ours.narrow, strict=True)):
        allowed = agreement.narrow_bound(at.ours, against, place, count)
        allowed += agreement.largest_error(wanted, against.wide[place])
        error = agreement.largest_error(result, wanted)
        if error > allowed or not np.array_equal(np.isfinite(result), np.isfinite(wanted)):
            outputs = len(problem.cotangents)
            what = "output" if place < outputs else problem.names[place - outputs]
            return Row("contract", name, "WRONG", f"another result, off by {error:.2g}: {what}")
    return Row("contract", name, "ok")


def _pull(problem: Problem, f: Function | None = None) -> Callable[[Arrays, Arrays], Arrays]:
    def pull(values: Arrays, cotangents: Arrays) -> Arrays:
        outputs, back = jax.vjp(f or problem.f, values)
        return [*outputs, *back(cotangents)[0]]

    return pull


def _twice(problem: Problem) -> tuple[Arrays, Arrays]:
    """The point behind another one, stacked."""
    values = [np.stack([value[...] * 0 + value.mean(), value]) for value in problem.values]
    values = [v.astype(value.dtype) for v, value in zip(values, problem.values, strict=True)]
    return values, [np.stack([dy, dy]) for dy in problem.cotangents]


def _last(results: Arrays) -> Arrays:
    return [result[-1] for result in results]


def _mapped(problem: Problem) -> Arrays:
    with wide_if(problem.values):
        return _last(quick(jax.vmap(_pull(problem)), 0)(*_twice(problem)))


def _scanned(problem: Problem) -> Arrays:
    def body(_: None, xs: tuple[Arrays, Arrays]) -> tuple[None, Arrays]:
        return None, _pull(problem)(*xs)

    with wide_if(problem.values):
        return _last(quick(lambda xs: lax.scan(body, None, xs)[1], 0)(_twice(problem)))


def _rematerialised(problem: Problem) -> Arrays:
    with wide_if(problem.values):
        pull = _pull(problem, jax.checkpoint(problem.f))
        return quick(pull, 0)(problem.values, problem.cotangents)


def _all(problem: Problem) -> Arrays:
    with wide_if(problem.values):
        results = quick(_nested(problem), 0)(_twice(problem))
        return [result[0, -1] for result in results]


def _nested(problem: Problem) -> Callable[[tuple[Arrays, Arrays]], Arrays]:
    """A scan over one step, of a map, of what is rematerialised."""

    def body(_: None, xs: tuple[Arrays, Arrays]) -> tuple[None, Arrays]:
        return None, jax.vmap(_pull(problem, jax.checkpoint(problem.f)))(*xs)

    def nested(xs: tuple[Arrays, Arrays]) -> Arrays:
        return lax.scan(body, None, jax.tree.map(lambda array: array[None], xs))[1]

    return nested


def _sharded(problem: Problem) -> Row:
    """Whether it can be traced where the first array varies over devices, or all of them do.

    The former is what a batch and replicated parameters are. A rule that does not sum the gradient
    of what is replicated (`jax.lax.psum`) is refused there, with a clear error; it is not wrong.
    """
    others = len(problem.values) - 1
    if not _refused(problem, [True] + [False] * others):
        return Row("contract", "shard_map", "ok")
    if reason := _refused(problem, [True] * (others + 1)):
        return Row("contract", "shard_map", "WRONG", f"raises {reason}")
    says = "refused where the first array varies over devices, and the gradients of the others are"
    return Row("contract", "shard_map", "note", f"{says} not summed")


def _refused(problem: Problem, varies: list[bool]) -> str | None:
    """The error of tracing it where those arrays vary, if there is one."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))
    specs = tuple(PartitionSpec("d") if some else PartitionSpec() for some in varies)

    def pull(*values: Any) -> Arrays:
        own = [x[0] if some else x for x, some in zip(values, varies, strict=True)]
        outputs, back = jax.vjp(problem.f, own)
        cotangents = [
            _vary(jnp.asarray(dy)) if "d" in varying(y) else jnp.asarray(dy)
            for dy, y in zip(problem.cotangents, outputs, strict=True)
        ]
        return [_vary(result)[None] for result in [*outputs, *back(cotangents)[0]]]

    try:
        with wide_if(problem.values):
            mapped = jax.shard_map(pull, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("d"))
            pairs = zip(problem.values, varies, strict=True)
            jax.eval_shape(mapped, *[x[None] if some else x for x, some in pairs])
    except Exception as raised:
        return first_line(raised)
    return None


def _vary(x: Any) -> Any:
    return x if "d" in varying(x) else lax.pcast(x, "d", to="varying")


# Its cost where nobody asks ----------------------------------------------------------------------


def _unused(problem: Problem) -> Row:
    """Eager code computes all gradients of a rule that is not inside a `jit`."""
    with wide_if(problem.values):
        outside = calls_outside_jit(problem.f, problem.values)
    name = "unused gradients"
    if outside and len(problem.values) > 1:
        says = f"computed in eager code: rules called outside of any `jit`: {outside}"
        return Row("contract", name, "note", says)
    return Row("contract", name, "ok")


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0))
