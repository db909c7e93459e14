"""`audit`: which of the rules that a function calls is wrong, on this very data?"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxcnn.compare.contract import linear_row
from jaxcnn.compare.jaxprs import (
    Call,
    call_again,
    called_function,
    calls,
    operand_names,
    probes,
    watch,
)
from jaxcnn.compare.point import first_line, gradient_rows, point, programs, value_rows
from jaxcnn.compare.problem import Problem, fold, generator, problem, quick, wide_if
from jaxcnn.compare.report import Report, Row


def audit(f: Callable[..., Any], *args: Any, key: Array | None = None) -> Report:
    """Compares each `jax.custom_vjp` rule that `f` calls, whosever it is, on what reaches it here.

    `f` is run once, and each rule is compared on its own, on the operands and the cotangents that
    reach it there, with autodiff of the function that it is a rule of: value, gradients, dtypes,
    linearity in the cotangent. So a wrong rule is named, where `compare_gradients` would say that
    the gradients of all the parameters below it are wrong. In a `scan` the first and the last step
    are compared, in a `cond` the branch that is taken. Calls in a `while_loop` or a `shard_map` are
    out of reach.

    Args:
        f: a function of any trees, such as a loss or a model. If its results are not one number,
            their cotangents are drawn.
        args: where.
        key: draws the cotangents.

    Returns:
        A `Report` with rows for each call: its number, name scopes or source line, function, and
        the argument. As for `compare_gradients`, `report.raise_if_wrong()` is for tests.

    Raises:
        TypeError: `f` is no function.
        ValueError: there is no floating argument or output.

    >>> import jax.numpy as jnp, jaxcnn
    >>> def loss(x):
    ...     return jaxcnn.softmax(jaxcnn.relu(x))[:, 0].sum()
    >>> report = audit(loss, jnp.ones((2, 3)))
    >>> report.ok, [row.name.split()[-2:] for row in report.rows if row.check == "gradient"]
    (True, [['_relu:', 'x'], ['_softmax:', 'x']])
    """
    rng = generator(key)
    given = problem(f, args, None, None, rng, "audit")
    if [dy.shape for dy in given.cotangents] == [()]:
        given = given._replace(cotangents=[np.ones_like(given.cotangents[0])])
    found = list(_recorded(given))
    name = getattr(f, "__name__", type(f).__name__)
    if not found:
        row = Row("audit", "rules", "note", "the function calls no custom_vjp rule within reach")
        return Report(f"rules of {name}", [row])
    seeds = rng.integers(2**31, size=len(found))
    with ThreadPoolExecutor(2) as pool:
        rows = pool.map(_compared, found, seeds)
    return Report(f"rules of {name}", [row for several in rows for row in several])


def _recorded(given: Problem) -> Iterator[tuple[str, Problem]]:
    """Each call as a problem of its own, at what reached it."""
    with wide_if(given.values):
        program = jax.make_jaxpr(given.f)(given.values)
        sites = calls(program)
        if not sites:
            return

        def run(values: list[Any], cotangents: list[Any]) -> Any:
            probed = partial(watch, program, values)
            _, back, records = jax.vjp(probed, probes(program), has_aux=True)
            return records, back(cotangents)[0]

        records, reached = quick(run, 0)(given.values, given.cotangents)
    for number, (call, operands, cotangents) in enumerate(
        zip(sites, records, reached, strict=True), 1
    ):
        place = call.stack or call.line
        label = f"{number} {place} {call.name}" if place else f"{number} {call.name}"
        steps = {(0,) * len(call.repeats), tuple(n - 1 for n in call.repeats)}
        for step in sorted(steps):
            at = f"{label}, step {', '.join(map(str, step))}" if step else label
            found = _problem(call, operands, cotangents, step)
            if not found.values or any(x.any() for x in (*found.values, *found.cotangents)):
                yield at, found  # and not all zeros, as in a branch that is not taken


def _problem(call: Call, operands: Any, cotangents: Any, step: tuple[int, ...]) -> Problem:
    leaves = [operand[step] if step else operand for operand in operands]
    dys = [np.asarray(dy[step] if step else dy) for dy in cotangents]
    ours, places = fold(call_again(call), leaves)
    primal, _ = fold(called_function(call), leaves)
    names = operand_names(call)
    values = [np.asarray(leaves[place]) for place in places]
    return Problem(ours, primal, primal, [names[place] for place in places], values, dys)


def _compared(labelled: tuple[str, Problem], seed: int) -> list[Row]:
    """The rows of one call."""
    label, given = labelled
    rng = np.random.default_rng(seed)
    if not given.values:
        return [Row("gradient", label, "ok", "no operand has a gradient")]
    try:
        made, reason = programs(given)
        at = point(made, given.values, given.cotangents)
    except Exception as error:
        return [Row("gradient", label, "WRONG", f"raises {first_line(error)}")]
    rows = value_rows(given, at, made) + gradient_rows(given, at, made, rng)
    linear = linear_row(at, made, rng)
    rows += [linear] if linear.verdict != "ok" else []
    if reason:
        rows.append(Row("gradient", "rule", "note", f"no autodiff of the function: {reason}"))
    return [Row(r.check, f"{label}: {r.name}", r.verdict, r.says, r.figures) for r in rows]
