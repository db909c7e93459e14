"""Whether two results agree: in float64, where mistakes stand out, then in their own dtype.

A mistake in a formula is as large in float64 as in float32, and rounding is 10^9 times smaller. So
both programs are evaluated in float64 first, and held to

    4 max(eps sqrt(n), 2^-42) |g|_max + 64 s                                                 (1)

with n the number of terms in the longest sum, |g|_max the largest entry (no mistake in a formula is
a trillionth of it, and a difference of two equal numbers may be) and s what the results
change by when the arrays are multiplied by a number that differs from 1 by a few eps: which is the
rounding of these very programs on these very numbers, cancellation and bad conditioning included,
while zeros stay zeros and ties stay ties (and at least what the rounding of the outputs loses).
Then, with float64 as the judge, the error in their own dtype is held to

    4 (eps + sqrt(n) eps') |g|_max + 8 s + 4 e                                               (2)

where eps' is that of the dtype a sum is to be made in, float32 at least, and e autodiff's error.

The first terms: a sum of n terms t_i, each operation rounded to within u = eps / 2, is off by less
than lambda u sum |t_i| with a probability of 1 - 2 exp(-lambda²/2) when the terms are random with
zero mean, as those of a random cotangent are (Higham and Mary, "Sharper probabilistic backward
error analysis for basic linear algebra kernels with random data", 2020), and sum |t_i| is at most
sqrt(n) times the root of the sum of t_i², the size of such a sum. With lambda = 8 the chance of a
false alarm is 1e-14 an entry, and the bound 4 sqrt(n) eps.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxcnn.compare.problem import Arrays, Pull, widen

LEAST = 2.0**-42
SCALINGS = (1 + 1 / 3, -1 - 1 / 7)  # in units of four eps


class Results(NamedTuple):
    """Outputs, then gradients, of one program at one point.

    Attributes:
        narrow: in the program's own dtypes.
        wide: in float64.
        noise: what rounding changes of each in its own dtype.
        wide_noise: the same in float64.
        rounded: the eps to which the constants of the program in float64 were rounded, or 0.
    """

    narrow: list[np.ndarray]
    wide: list[np.ndarray]
    noise: list[float]
    wide_noise: list[float]
    rounded: float = 0.0


class Point(NamedTuple):
    """A point, and what both programs make of it; `theirs` is None where there is no autodiff."""

    values: Arrays
    cotangents: Arrays
    ours: Results
    theirs: Results | None


def results(pull: Pull, values: Arrays, cotangents: Arrays) -> Results:
    """Evaluates a program at a point, and next to it."""
    with np.errstate(all="ignore"):
        narrow, noise = _around(pull.narrow, values, cotangents)
        wide, wide_noise = _around(pull.wide, widen(values), widen(cotangents))
    return Results(narrow, wide, noise, wide_noise, pull.rounded)


def _around(
    run: Callable[[Arrays, Arrays], tuple[Arrays, Arrays]], values: Arrays, cotangents: Arrays
) -> tuple[list[np.ndarray], list[float]]:
    """The results, and what rounding changes of them."""
    outputs, gradients = run(values, cotangents)
    here = [*outputs, *gradients]
    noise = [0.0] * len(outputs) + _of_the_outputs(outputs, values, cotangents)
    for number in SCALINGS:
        moved = run(_scaled(values, number), _scaled(cotangents, 0.7 * number))
        pairs = zip(noise, here, [*moved[0], *moved[1]], strict=True)
        noise = [max(least, largest_error(x, y)) for least, x, y in pairs]
    return here, noise


def _of_the_outputs(outputs: Arrays, values: Arrays, cotangents: Arrays) -> list[float]:
    """For each gradient, what is lost of it when the outputs are rounded, eps |dy y| / |x|.

    At x = 100 a sigmoid is 1, to the last bit, and its gradient of 1e-44 is beyond that.
    """
    products = [
        _size(dy * y) * float(jnp.finfo(y.dtype).eps)
        for dy, y in zip(cotangents, outputs, strict=True)
    ]
    return [max(products, default=0.0) / (_typical(x) or 1.0) for x in values]


def wide_bound(ours: Results, theirs: Results, place: int, terms: int) -> float:
    """(1), for the result at that place."""
    scale = _size(theirs.wide[place])
    eps = float(np.finfo(np.float64).eps) * (1 + math.sqrt(terms))
    noise = max(ours.wide_noise[place], theirs.wide_noise[place])
    return 4 * max(eps, LEAST, ours.rounded, theirs.rounded) * scale + 64 * noise


def narrow_bound(ours: Results, theirs: Results, place: int, terms: int) -> float:
    """(2), for the result at that place."""
    wanted, rounded = theirs.wide[place], theirs.narrow[place]
    dtype = rounded.dtype
    sums = jnp.promote_types(dtype, jnp.float32)
    eps = float(jnp.finfo(dtype).eps + math.sqrt(terms) * jnp.finfo(sums).eps)
    noise = max(ours.noise[place], theirs.noise[place])
    return 4 * eps * _size(wanted) + 8 * noise + 4 * largest_error(rounded, wanted)


def largest_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference where both are finite."""
    with np.errstate(all="ignore"):
        difference = np.abs(found.astype(np.float64) - wanted.astype(np.float64))
    return float(difference[np.isfinite(difference)].max(initial=0))


def in_units_in_the_last_place(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest error, in the spacing of `found`'s dtype at the right entry."""
    info = jnp.finfo(found.dtype)
    exponent = np.floor(np.log2(np.maximum(np.abs(wanted), float(info.tiny))))
    with np.errstate(all="ignore"):
        units = np.abs(found.astype(np.float64) - wanted) / (2**exponent * float(info.eps))
    return float(units[np.isfinite(units)].max(initial=0))


def _typical(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)].astype(np.float64))
    return float(finite.mean()) if finite.size else 0.0


def _size(array: np.ndarray) -> float:
    return float(np.abs(array[np.isfinite(array)]).max(initial=0))


def _scaled(arrays: Sequence[np.ndarray], number: float) -> list[np.ndarray]:
    """All by the same factor, near to 1: equal entries of different arrays stay so."""

    def scaled(array: np.ndarray) -> np.ndarray:
        factor = 1 + 4 * number * float(jnp.finfo(array.dtype).eps)
        return (array * np.asarray(factor, array.dtype)).astype(array.dtype)

    return [scaled(array) for array in arrays]
