"""The inputs where rules go wrong: ties, kinks, zeros, extremes, constants, NaN, other shapes.

Each kind is made from the arrays at hand, all of them at once, of the same shapes and dtypes, and
so takes no compilation. Where the function itself is not finite there is nothing to judge: the
kind does not suit it. The gradient of NaN and infinity has no right answer: where it differs from
autodiff's, that is said, and is not wrong.

Other shapes need programs of their own. A length that several axes share is replaced by another in
all of them, and what the function refuses is left out.
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.compare.point import Point, Programs, gradient_rows, point
from jaxcnn.compare.problem import Arrays, Problem, wide_if
from jaxcnn.compare.report import Row

SPREAD = 4  # arrays, of many, that get a NaN
MOST = 4  # other shapes that are tried where not all lengths can change

Make = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def _ties(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-1, 2, x.shape)


def _zeros(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.zeros(x.shape)


def _large(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return x.astype(np.float64) * _extreme(x)


def _tiny(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return x.astype(np.float64) / _extreme(x)


def _constant(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One number for each entry of the last axis."""
    return np.broadcast_to(rng.uniform(0.5, 1.5, x.shape[-1:]), x.shape)


def _extreme(x: np.ndarray) -> float:
    """Far, but such that the product of two is not beyond float32."""
    return float(jnp.finfo(x.dtype).max) ** 0.125


KINDS: dict[str, Make] = {
    "ties": _ties,
    "zeros": _zeros,
    "large": _large,
    "tiny": _tiny,
    "constant channels": _constant,
}
STRANGE = {"NaN": np.nan, "infinity": np.inf}


def edge_rows(
    problem: Problem, programs: Programs, rng: np.random.Generator, known: set[str]
) -> Iterator[Row]:
    """A row for each kind of input, or one for each gradient that is wrong there.

    Those of the arguments in `known` are wrong everywhere, and not said again.
    """
    for kind, make in KINDS.items():
        values = [make(value, rng).astype(value.dtype) for value in problem.values]
        outputs = programs.primal(values)
        if not all(np.isfinite(output).all() for output in outputs):
            yield Row("edges", kind, "note", "the function is not finite there")
            continue
        at = point(programs, values, problem.cotangents)
        yield from _summed(kind, problem, at, programs, rng, known)
    for kind, number in STRANGE.items():
        yield _strange(kind, number, problem, programs)


def _summed(
    kind: str,
    problem: Problem,
    at: Point,
    programs: Programs,
    rng: np.random.Generator,
    known: set[str],
) -> list[Row]:
    """A row if all is well, else those of the gradients in question."""
    if at.theirs is None:
        return [Row("edges", kind, "note", "there is no autodiff to compare with")]
    rows = gradient_rows(problem, at, programs, rng, "edges", f"{kind}: ")
    pairs = zip(problem.names, rows, strict=True)
    said = [row for name, row in pairs if row.verdict != "ok" and name not in known]
    return said or [Row("edges", kind, "ok", "save what is wrong everywhere" if known else "")]


def _strange(kind: str, number: float, problem: Problem, programs: Programs) -> Row:
    """One entry of an array at a time is NaN, or infinite: are the same gradients finite?"""
    if programs.theirs is None:
        return Row("edges", kind, "note", "there is no autodiff to compare with")
    hidden, spread = 0, 0
    count = len(problem.values)
    for place in np.unique(np.linspace(0, count - 1, min(count, SPREAD)).astype(int)):
        values = [other.copy() for other in problem.values]
        if not values[place].size:
            continue
        values[place].flat[values[place].size // 2] = number
        with np.errstate(all="ignore"):
            ours = programs.ours.narrow(values, problem.cotangents)[1]
            theirs = programs.theirs.narrow(values, problem.cotangents)[1]
        for a, b in zip(map(np.isfinite, ours), map(np.isfinite, theirs), strict=True):
            hidden += int((a & ~b).sum())
            spread += int((b & ~a).sum())
    parts = [f"finite at {hidden} places where autodiff's is not"] if hidden else []
    parts += [f"not finite at {spread} places where autodiff's is"] if spread else []
    return Row("edges", kind, "differs" if parts else "ok", ", ".join(parts))


# Other shapes ------------------------------------------------------------------------------------


def other_shapes(problem: Problem, rng: np.random.Generator) -> Iterator[Problem]:
    """The same functions on arrays of other lengths: all of them 1, and all of them odd.

    Where the function does not take both, one length after another is replaced, alone. There are
    none where an array without a gradient would keep its shape.
    """
    if problem.carries:
        return
    lengths = sorted({length for value in problem.values for length in value.shape})
    ones = dict.fromkeys(lengths, 1)
    odd = {length: length + 1 + length % 2 for length in lengths if length > 1}
    whole = [other for new in (ones, odd) if (other := _of_lengths(problem, new, rng))]
    yield from whole
    if len(whole) < 2:
        single = [{n: length} for n in lengths if n > 1 for length in (1, odd[n])]
        tried = (_of_lengths(problem, new, rng) for new in single)
        yield from islice((other for other in tried if other), MOST)


def _of_lengths(problem: Problem, new: dict[Any, int], rng: np.random.Generator) -> Problem | None:
    """With axes of other lengths; None where they are these, or the function refuses them."""
    shapes: list[Any] = [tuple(new.get(n, n) for n in value.shape) for value in problem.values]
    if shapes == [value.shape for value in problem.values]:
        return None
    values = [
        np.asarray(rng.standard_normal(shape)).astype(value.dtype)
        for shape, value in zip(shapes, problem.values, strict=True)
    ]
    with wide_if(values):
        try:
            outputs: Any = jax.eval_shape(problem.f, values)
            others: Any = jax.eval_shape(problem.against, values)
        except Exception:  # the function does not take these
            return None
    shapes_found = [y.shape for y in outputs]
    kept = [dy.shape for dy in problem.cotangents]
    if shapes_found != [y.shape for y in others] or (shapes_found == kept and any(kept)):
        return None  # what keeps its shape holds an array of the old one
    cotangents: Arrays = [np.asarray(rng.standard_normal(y.shape)).astype(y.dtype) for y in outputs]
    return problem._replace(values=values, cotangents=cotangents)
