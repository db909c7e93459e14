"""`compare_gradients`: are the gradients of a function's rules right, and what do they cost?"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from typing import Any

import numpy as np
from jax import Array

from jaxcnn.compare.contract import contract_rows, traced_rows
from jaxcnn.compare.cost import cost_rows
from jaxcnn.compare.differences import compare_with_differences
from jaxcnn.compare.edges import edge_rows, other_shapes
from jaxcnn.compare.point import (
    Point,
    Programs,
    first_line,
    gradient_rows,
    point,
    programs,
    value_rows,
)
from jaxcnn.compare.problem import Problem, generator, problem, widen
from jaxcnn.compare.report import Report, Row
from jaxcnn.compare.second_order import derivative, directions, second_order_row

FEW = 4  # arrays that a title names, and that are moved along two directions each
SMALL = 150  # equations of a gradient that is compiled once more for other shapes


def compare_gradients(
    f: Callable[..., Any],
    *args: Any,
    against: Callable[..., Any] | None = None,
    argnums: int | Sequence[int] | None = None,
    key: Array | None = None,
    cost: bool = False,
) -> Report:
    """Compares the gradient of `f` with autodiff's, and looks for what else may be wrong with it.

    What is checked, a row or more of the report each:

    * value: what the forward rule returns, against the function that it is a rule of;
    * gradient: for each argument, in float64 and in its own dtype, with bounds from the dtype, the
      magnitudes and the number of terms (`jaxcnn.compare.agreement`); and in words what is wrong;
    * contract: linear in the cotangent, the same twice, compiled, mapped, scanned, rematerialised
      and under `shard_map`; second order;
    * edges: ties, kinks, zeros, large and tiny numbers, constant channels, NaN, other shapes. At a
      kink any gradient between the one-sided derivatives is accepted (`jaxcnn.compare.judge`);
    * differences: central differences in float64, which may say that they cannot tell;
    * cost, if asked for: time, work, what is kept for the backward pass, compile time.

    Args:
        f: any function of trees of arrays, with `jax.custom_vjp` rules inside or without.
        args: where. Floating arrays have gradients; integers, keys and all else are carried along.
        against: what to hold it against, a function of the same arguments that autodiff can
            differentiate. Default: `f` without its rules (`jaxcnn.drop_custom_vjp`).
        argnums: whose gradients. Default: all that have one.
        key: draws cotangents and directions.
        cost: whether to measure the cost too, which takes several seconds.

    Returns:
        A `Report`: `report.ok`, `report.findings`, `print(report)`, `report.to_dict()`, and
        `report.raise_if_wrong()` for tests.

    Raises:
        TypeError: `f` or `against` is no function.
        ValueError: an argnum is out of range, there is no floating argument or output, or
            `against` has outputs of other shapes.

    >>> import jax, jax.numpy as jnp
    >>> square = jax.custom_vjp(lambda x: x**2)
    >>> square.defvjp(lambda x: (x**2, x), lambda x, dy: (x * dy,))
    >>> report = compare_gradients(square, jnp.array([1.0, 2.0, 3.0]))
    >>> report.ok
    False
    >>> report.findings[0]
    'gradient of x: off by a constant factor 0.5'
    """
    rng = generator(key)
    given = problem(f, args, against, argnums, rng)
    return Report(_title(f, given), list(_rows(given, rng, cost)))


def _title(f: Callable[..., Any], given: Problem) -> str:
    """The function, and its arguments if they are few: `conv: x 2x6x6x3, kernel 3x3x3x4`."""
    name = getattr(f, "__name__", type(f).__name__)
    if len(given.names) > FEW:
        return f"{name}: {len(given.names)} arrays, {given.values[0].dtype}"
    pairs = zip(given.names, given.values, strict=True)
    shapes = [f"{n} {'x'.join(map(str, value.shape)) or 'scalar'}" for n, value in pairs]
    return f"{name}: {', '.join(shapes)}, {given.values[0].dtype}"


def _rows(given: Problem, rng: np.random.Generator, cost: bool) -> Iterator[Row]:
    try:
        made, reason = programs(given)
    except Exception as error:
        yield Row("gradient", "all arguments", "WRONG", f"raises {first_line(error)}")
        return
    if reason:
        yield Row("gradient", "all arguments", "note", f"no autodiff of the function: {reason}")
    v = directions(given, rng)
    with ThreadPoolExecutor() as pool:  # while some compile, others are traced
        second = pool.submit(derivative, given, v)
        compiled = _compiled(given, made, pool)
        traced = list(traced_rows(given, made))
        wait(compiled)
        at = point(made, given.values, given.cotangents)
        yield from value_rows(given, at, made)
        gradients = gradient_rows(given, at, made, rng)
        yield from gradients
        yield from _differences(given, at, made, rng)
        yield from contract_rows(given, at, made, rng)
        yield from traced
        yield second_order_row(given, at, made, v, second.result())
    known = {row.name for row in gradients if row.verdict == "WRONG"}
    yield from edge_rows(given, made, rng, known)
    if made.theirs is not None and made.ours.size <= SMALL:
        yield from _shapes(given, rng, known)
    if cost and made.theirs is None:
        yield Row("cost", "all of it", "note", "there is no autodiff to compare with")
    elif cost:
        yield from cost_rows(given)


def _compiled(given: Problem, made: Programs, pool: Executor) -> list[Future[Any]]:
    """The programs, being compiled by being run."""
    at = given.values, given.cotangents
    pulls = [made.ours, made.theirs] if made.theirs else [made.ours]
    runs = [pool.submit(run, *at) for pull in pulls for run in (pull.narrow, pull.wide)]
    return [*runs, pool.submit(made.primal, given.values)]


def _differences(
    given: Problem, at: Point, made: Programs, rng: np.random.Generator
) -> Iterator[Row]:
    """Central differences of the function in float64, an argument at a time."""
    cotangents = widen(given.cotangents)
    values = dict(zip(given.names, widen(at.values), strict=True))

    def outputs(values: dict[str, Any]) -> list[Any]:
        return made.primal(list(values.values()))

    def gradients(values: dict[str, Any]) -> dict[str, Any]:
        found = made.ours.wide(list(values.values()), cotangents)[1]
        return dict(zip(given.names, found, strict=True))

    count = 2 if len(values) <= FEW else 1
    for name in given.names:
        found = compare_with_differences(
            outputs, gradients, values, name, cotangents, rng, directions=count
        )
        if found.relative is None:
            yield Row("differences", name, "cannot tell", "a kink along each direction")
            continue
        figures = {"relative": found.relative}
        says = "" if found.ok else "central differences disagree"
        yield Row("differences", name, "ok" if found.ok else "WRONG", says, figures)


def _shapes(given: Problem, rng: np.random.Generator, known: set[str]) -> Iterator[Row]:
    """Other shapes, where the function takes them."""
    tried = []
    for other in other_shapes(given, rng):
        name = " and ".join("x".join(map(str, value.shape)) or "scalar" for value in other.values)
        try:
            made, reason = programs(other)
            if reason:
                continue
            at = point(made, other.values, other.cotangents)
        except Exception as error:
            yield Row("edges", f"shapes {name}", "WRONG", f"raises {first_line(error)}")
            continue
        rows = gradient_rows(other, at, made, rng, "edges", f"shapes {name}: ")
        pairs = zip(given.names, rows, strict=True)
        wrong = [r for n, r in pairs if r.verdict in ("WRONG", "cannot tell") and n not in known]
        yield from wrong
        tried += [] if wrong else [name]
    if tried:
        yield Row("edges", "other shapes", "ok", "; ".join(tried))
