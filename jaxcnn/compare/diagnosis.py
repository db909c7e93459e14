"""What was done wrong, from a wrong gradient and the right one.

Each hypothesis makes of the right gradient w the gradient h that its mistake would leave; the first
that fits is said, from the simplest on. To fit, h has to be what was found, within the rounding t,
and not by accident: an entry that the mistake moves from w to h is within t of h by accident about
once in |h - w| / t times. The powers of ten of that, added up over the entries, less the largest
one for each number that was fitted, are to be at least DECADES. So two entries known to nine digits
show a constant factor, and so do many known to one, but never one entry.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, combinations, permutations
from typing import NamedTuple

import numpy as np

DECADES = 4.0

ENDS: dict[str, Callable[[int], slice]] = {
    "last": lambda count: slice(-count, None),
    "first": lambda count: slice(0, count),
}


class Evidence(NamedTuple):
    """What `diagnose` is given, and how far a hypothesis may be from what was found."""

    found: np.ndarray
    wanted: np.ndarray
    tolerance: float
    value: np.ndarray
    values: Mapping[str, np.ndarray]
    cotangents: Sequence[np.ndarray]
    outputs: Sequence[np.ndarray]
    others: Mapping[str, np.ndarray]


# What to say, what it would leave (NaN where that may be anything), how many numbers were fitted.
Hypotheses = Iterator[tuple[str, np.ndarray, int]]


def diagnose(
    found: np.ndarray,
    wanted: np.ndarray,
    *,
    allowed: float,
    value: np.ndarray,
    values: Mapping[str, np.ndarray],
    cotangents: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    others: Mapping[str, np.ndarray],
) -> str | None:
    """Says what was done wrong to a gradient, or nothing where no hypothesis fits.

    Args:
        found: the gradient under test, of one argument, in float64.
        wanted: the right one.
        allowed: the absolute error that rounding may account for.
        value: the argument's value.
        values: those of all the arguments, by name; this one's too.
        cotangents: of the outputs.
        outputs: their values.
        others: the right gradients of the other arguments, by name.

    >>> wanted = np.arange(12.0).reshape(3, 4)
    >>> def say(found):
    ...     return diagnose(found, wanted, allowed=1e-12, value=np.ones((3, 4)), values={},
    ...                     cotangents=[np.ones((6, 4))], outputs=[], others={})
    >>> say(wanted[::-1])
    'the order along axis 0 is reversed'
    >>> say(wanted / 6)
    'off by a constant factor 1/6 = one over the batch size: a mean where a sum should be'
    >>> say(wanted), say(np.cos(wanted))
    (None, None)
    """
    if not wanted.size or found.shape != wanted.shape or not np.isfinite(wanted).all():
        return None
    if not np.isfinite(found).all():
        return f"infinite or NaN at {(~np.isfinite(found)).sum()} of {found.size} places"
    tolerance = max(4 * allowed, 1e-9 * _largest(wanted), float(np.finfo(np.float64).tiny))
    if _largest(found - wanted) <= 8 * tolerance:
        return None
    if not found.any():
        return "all zeros: never computed"
    e = Evidence(found, wanted, tolerance, value, values, cotangents, outputs, others)
    tried = chain.from_iterable(hypotheses(e) for hypotheses in HYPOTHESES)
    with np.errstate(all="ignore"):  # 0 / 0 is NaN, and what is infinite does not fit
        said = next((said for said, left, fitted in tried if _fits(e, left, fitted)), None)
        return said or _only_there(e)


def _fits(e: Evidence, left: np.ndarray, fitted: int) -> bool:
    """Whether this was found, and no accident (see the top).

    A gradient that is too large by a factor has a rounding error that is too large by it.
    """
    known = ~np.isnan(left)
    size = _largest(left[known])
    tolerance = e.tolerance * max(1.0, size / (_largest(e.wanted) or np.inf))
    if not 8 * tolerance < size < np.inf or _largest((left - e.found)[known]) > tolerance:
        return False
    return _decades((left - e.wanted)[known], tolerance, fitted) >= DECADES


def _decades(moved: np.ndarray, tolerance: float, fitted: int = 0) -> float:
    logs = np.log10(np.maximum(np.abs(moved), tolerance)) - np.log10(tolerance)
    return float(np.sort(logs, axis=None)[: max(logs.size - fitted, 0)].sum())


def _largest(array: np.ndarray) -> float:
    return float(np.abs(array).max(initial=0))


def _wrong(e: Evidence) -> np.ndarray:
    return np.abs(e.found - e.wanted) > e.tolerance


def _subsets(array: np.ndarray) -> list[tuple[int, ...]]:
    """The sets of its axes along which there is more than one entry, small ones first."""
    axes = [axis for axis, length in enumerate(array.shape) if length > 1]
    return [axes_ for size in range(len(axes)) for axes_ in combinations(axes, size + 1)]


def _listed(words: Sequence[object]) -> str:
    head = ", ".join(str(word) for word in words[:-1])
    return f"{head} and {words[-1]}" if head else str(words[-1])


def _axes(axes: Sequence[int]) -> str:
    return f"{'axis' if len(axes) == 1 else 'axes'} {_listed(axes)}"


def _number(number: float) -> str:
    text = f"{number:.4g}"
    return f"1 {number - 1:+.1e}" if text == "1" else text


def _percent(part: np.ndarray, whole: np.ndarray) -> str:
    return f"{100 * part.sum() / whole.sum():.2g} %"


def _arrays(e: Evidence) -> list[tuple[str, np.ndarray]]:
    """All that may be a factor of a gradient, with what to call it."""
    named = [(f"`{name}`", value) for name, value in e.values.items()]
    for what, arrays in (("cotangent", e.cotangents), ("output", e.outputs)):
        one = len(arrays) == 1
        named += [(f"the {what}" if one else f"{what} {i}", a) for i, a in enumerate(arrays)]
    return named


def _fitted(e: Evidence, base: np.ndarray, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The error as `base` times numbers that are constant over `axes`: they, and the product."""
    inner = ((e.found - e.wanted) * base).sum(axes, keepdims=True)
    squares = (base**2).sum(axes, keepdims=True)
    factor = np.divide(inner, squares, out=np.zeros_like(inner), where=squares > 0)
    return factor, factor * base


def _rearranged(e: Evidence) -> Hypotheses:
    yield "the sign is wrong", -e.wanted, 0
    yield "the absolute value of the right one", np.abs(e.wanted), 1
    rank, shape = e.wanted.ndim, e.wanted.shape
    if np.count_nonzero(e.wanted) < 2:
        return
    for name, gradient in e.others.items():
        if gradient.shape == shape:
            yield f"it is the gradient of `{name}`", gradient, 1
    for axes in _subsets(e.wanted):
        spatial = axes in (tuple(range(rank - 2)), tuple(range(1, rank - 1)))
        said = f"{'spatially ' if spatial else ''}flipped along {_axes(axes)}"
        if len(axes) == 1:
            said = f"the order along {_axes(axes)} is reversed"
        yield said, np.flip(e.wanted, axes), 1
    for order in permutations(range(rank)):
        moved = [axis for axis, other in enumerate(order) if axis != other]
        if moved and [shape[axis] for axis in order] == list(shape):
            now = (
                f"{_axes(moved)} are swapped"
                if len(moved) == 2
                else f"{_listed(order)} is their order"
            )
            yield f"transposed: {now}", e.wanted.transpose(order), 1


def _lengths(e: Evidence) -> dict[int, str]:
    """What a sum may have been over, by how many that is."""
    named: list[tuple[int, str]] = []
    with_axes = [dy for dy in e.cotangents if dy.ndim]
    for dy in with_axes or [x for x in e.values.values() if x.ndim][:1]:
        named.append((dy.shape[0], "the batch size"))
        if dy.ndim > 2:
            named.append((dy.size // dy.shape[-1], "the number of places"))
        if dy.ndim > 1:
            named.append((dy.shape[-1], "the number of channels"))
    known = {length for length, _ in named}
    for name, value in e.values.items():
        axes = enumerate(value.shape)
        named += [(n, f"the length of axis {i} of `{name}`") for i, n in axes if n not in known]
    return {
        length: " or ".join(dict.fromkeys(name for other, name in named if other == length))
        for length, _ in named
    }


def _scaled(e: Evidence) -> Hypotheses:
    amounts = e.wanted[np.abs(e.wanted) > e.tolerance]
    if not amounts.size:
        return
    # Where there is but one number to go by, a factor says something only if it has a name.
    alone = np.ptp(amounts) <= e.tolerance
    relative, added = _fitted(e, e.wanted, tuple(range(e.wanted.ndim)))
    factor = 1 + relative.item()
    if factor > 0:
        for n, name in sorted(
            _lengths(e).items(), key=lambda n: abs(n[0] - max(factor, 1 / factor))
        ):
            if n > 2:  # a factor of 2 has other causes
                by = "off by a constant factor"
                said = f"{by} {n} = {name}: a sum where a mean should be"
                yield said, n * e.wanted, 0 if alone else 1
                said = f"{by} 1/{n} = one over {name}: a mean where a sum should be"
                yield said, e.wanted / n, 0 if alone else 1
    for plain in (2.0, 0.5):
        yield f"off by a constant factor {plain:g}", plain * e.wanted, 0 if alone else 1
    if not alone:
        yield f"off by a constant factor {_number(factor)}", e.wanted + added, 1


def _slices(e: Evidence, axis: int, count: int, which: str) -> str:
    """Such as "the last row" of an NHWC batch: as long as a cotangent, and no other argument is."""
    rank, n = e.wanted.ndim, len(e.wanted)
    alike = [value for value in e.values.values() if value.ndim == 4 and len(value) == n]
    image = rank == 4 and len(alike) <= 1 and any(len(dy) == n for dy in e.cotangents if dy.ndim)
    name = {1: "row", 2: "column"}.get(axis, "slice") if image else "slice"
    along = f" along axis {axis}" if name == "slice" else ""
    return f"the {which} {name if count == 1 else f'{count} {name}s'}{along}"


def _moved(e: Evidence) -> Hypotheses:
    for axis, length in enumerate(e.wanted.shape):
        for count, which in ((n, which) for n in range(1, min(4, length)) for which in ENDS):
            left = e.wanted.copy()
            np.moveaxis(left, axis, 0)[ENDS[which](count)] = 0
            verb = "is" if count == 1 else "are"
            yield f"{_slices(e, axis, count, which)} {verb} missing", left, 0
    for axes in _subsets(e.wanted):
        shortest = min(e.wanted.shape[axis] for axis in axes)
        for step in (1, -1, 2, -2, 3, -3):
            if len(axes) > 2 or shortest < 2 * abs(step):
                continue
            # What comes in at the edge may be zeros, the other edge or anything.
            left = np.roll(e.wanted, (step,) * len(axes), axes)
            edge = ENDS["first" if step > 0 else "last"](abs(step))
            for axis in axes:
                np.moveaxis(left, axis, 0)[edge] = np.nan
            if np.count_nonzero(np.nan_to_num(left)) > 1:
                yield f"shifted by {step} along {_axes(axes)}", left, 1


def _clipped(e: Evidence) -> Hypotheses:
    limit = _largest(e.found)
    if ((np.abs(e.wanted) < limit) & (e.wanted != 0)).any():
        yield f"clipped at {_number(limit)}", np.clip(e.wanted, -limit, limit), 1


def _multiplied(e: Evidence) -> Hypotheses:
    for name, array in _arrays(e):
        if array.shape == e.wanted.shape:
            yield f"{name} is missing as a factor", e.wanted / array, 1
            yield f"multiplied by {name} once more", e.wanted * array, 1
        elif array.ndim == 1 and array.size > 1:
            for axis, length in enumerate(e.wanted.shape):
                if length == array.size:
                    factor = np.expand_dims(array, [i for i in range(e.wanted.ndim) if i != axis])
                    said = f"off by a factor that depends on axis {axis} alone: {name} is"
                    yield f"{said} missing", e.wanted / factor, 1
                    yield f"{said} applied twice", e.wanted * factor, 1


def _summed(e: Evidence) -> Hypotheses:
    for axes in _subsets(e.wanted):
        for over, added in (("an average", np.mean), ("the sum", np.sum)):
            left = np.broadcast_to(added(e.wanted, axis=axes, keepdims=True), e.wanted.shape)
            yield f"the same for all of {_axes(axes)}: {over} over {_them(axes)}", left, 1


def _them(axes: Sequence[int]) -> str:
    return "it" if len(axes) == 1 else "them"


def _cancels(e: Evidence, base: np.ndarray, axes: tuple[int, ...]) -> bool:
    inner = np.abs((e.wanted * base).sum(axes))
    return bool((inner <= e.tolerance * np.abs(base).sum(axes)).all())


def _added(e: Evidence) -> Hypotheses:
    ones = np.ones_like(e.wanted)
    for axes in _subsets(e.wanted)[::-1]:
        constant, added = _fitted(e, ones, axes)
        left, term = e.wanted + added, f"a term that is constant over {_axes(axes)}"
        if constant.size > 1 and not e.wanted.any():
            continue
        if constant.size > 1 and _cancels(e, ones, axes):
            yield f"{term} is missing: the sum over {_them(axes)}", left, constant.size
        elif constant.size > 1:
            yield f"off by {term}", left, constant.size
        elif np.ptp(e.wanted) > e.tolerance or not e.wanted.any():
            yield f"off by a constant {_number(constant.item())} everywhere", left, 1


def _inner_products(e: Evidence) -> Hypotheses:
    """Softmax's term in its output, and a norm's in its input: through the variance."""
    alike = [(name, a) for name, a in _arrays(e)[::-1] if a.shape == e.wanted.shape]
    alike = alike if e.wanted.any() else []
    ones = np.ones_like(e.wanted)
    for axes in _subsets(e.wanted)[::-1]:
        last = axes == (e.wanted.ndim - 1,)
        along = f"along {'the last axis' if last else _axes(axes)}"
        for name, array in alike:
            factor, added = _fitted(e, array, axes)
            inner = [(dy * array).sum(axes) for dy in e.cotangents if dy.shape == array.shape]
            said = f"off by {name} times a factor that is constant over {_axes(axes)}"
            if any(np.allclose(a, factor.squeeze(axes), 1e-3, e.tolerance) for a in inner):
                said = f"the inner product with {name} {along} is missing"
            elif factor.size == 1:
                said = f"off by {_number(factor.item())} times {name}"
            yield said, e.wanted + added, factor.size
            base = array - array.mean(axes, keepdims=True)
            affine = _fitted(e, base, axes)[1] + _fitted(e, ones, axes)[1]
            if _cancels(e, base, axes) and _cancels(e, ones, axes):
                said = f"the inner product with {name} less its mean {along}"
                left = e.wanted + _fitted(e, base, axes)[1]
                yield f"{said} is missing", left, factor.size
                left = left + _fitted(e, ones, axes)[1]
                yield f"the sum and {said} are missing", left, 2 * factor.size
            said = f"off by terms in 1 and {name} that are constant over {_axes(axes)}"
            yield f"{said}: a mean or a variance held constant?", e.wanted + affine, 2 * factor.size


def _tied(e: Evidence) -> Hypotheses:
    wrong = _wrong(e).ravel()
    if e.value.shape != e.wanted.shape:
        return
    _, group, counts = np.unique(e.value.ravel(), return_inverse=True, return_counts=True)
    places = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
    found, wanted = e.found.ravel(), e.wanted.ravel()
    said = {_tie(found[at], wanted[at], e.tolerance) for at in places if wrong[at].any()}
    # An entry may have come from each of its group: so many times the chance.
    chance = e.tolerance * counts[group[wrong]].max()
    if len(said) == 1 and "" not in said and _decades((found - wanted)[wrong], chance) >= DECADES:
        yield said.pop(), e.found, 0


def _tie(found: np.ndarray, wanted: np.ndarray, tolerance: float) -> str:
    """What became of the gradient of the places that hold one value; nothing, if it is none."""
    wrong = np.abs(found - wanted) > tolerance
    taken, new = wanted[wanted != 0], found[wrong & (found != 0)]
    if not taken.size or not new.size or wanted[wrong].all():
        return ""
    as_large = (_to_nearest(new, np.sort(taken)) <= tolerance).all()
    if as_large and not wanted[wrong].any():
        return "tied values each take the whole gradient"
    if abs(found.sum() - wanted.sum()) > tolerance * found.size:
        return ""
    if as_large and not (found * wanted)[wrong].any():
        return "another of the tied values takes the gradient"
    gaps = np.diff(np.sort(new)) > tolerance
    uneven = np.append(gaps, True) & np.append(True, gaps)
    return "" if uneven.any() else "tied values share the gradient"


def _to_nearest(numbers: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    above = np.searchsorted(ordered, numbers).clip(1, max(len(ordered) - 1, 1))
    near = ordered.take([above - 1, above], mode="clip")
    return np.abs(near - numbers).min(axis=0)


def _masked(e: Evidence) -> Hypotheses:
    zero, wrong = e.wanted == 0, _wrong(e)
    masked, unmasked = wrong & (e.found == 0), wrong & zero
    if unmasked.any():
        said = f"nonzero at {_percent(unmasked, zero)} of the places where it should be 0"
        if unmasked.sum() > 0.9 * zero.sum():
            said = "not masked: nonzero where it should be 0"
        yield said, np.where(zero, e.found, e.wanted), 0
    if masked.any() and unmasked.any():
        yield "zero at other places: another mask", np.where(masked | zero, e.found, e.wanted), 0
    if masked.any():
        said = f"zero at {_percent(masked, ~zero)} of the places where it should not be"
        signs = {"negative": e.value < 0, "positive": e.value > 0}
        where = [sign for sign, there in signs.items() if np.array_equal(masked, there & ~zero)]
        said += "".join(f", where the argument is {sign}" for sign in where)
        yield f"masked too much: {said}", np.where(masked, 0.0, e.wanted), 0


def _scaled_along_an_axis(e: Evidence) -> Hypotheses:
    for axis, length in enumerate(e.wanted.shape):
        rest = tuple(other for other in range(e.wanted.ndim) if other != axis)
        factor, added = _fitted(e, e.wanted, rest)
        at, said = np.flatnonzero(_wrong(e).any(axis=rest)), "off by a factor"
        one = f"{said} {_number(1 + factor.ravel()[at[0]])} at index {at[0]} of axis {axis}"
        along = f"{said} that depends on axis {axis} alone"
        yield one if len(at) == 1 else along, e.wanted + added, length


def _rounded(e: Evidence) -> Hypotheses:
    inside, error = e.wanted != 0, e.found - e.wanted
    if min((error > 0).sum(), (error < 0).sum()) < max(3, inside.sum() / 8):
        return
    for name, unit, normal in (("float16", 2.0**-11, 2.0**-14), ("bfloat16", 2.0**-8, 2.0**-126)):
        relative = np.abs(error) / np.maximum(np.abs(e.wanted), normal)
        if relative.max() <= 1.001 * unit and np.median(relative[inside]) > unit / 8:
            # Of what is that short, all digits but 8 or 11 are 0.
            digits = np.frexp(e.found)[0] / unit
            short = (digits == np.round(digits))[np.abs(e.found) >= normal].all()
            yield f"{'rounded to' if short else 'off by as much as'} {name}", e.found, 0


def _misplaced(e: Evidence) -> Hypotheses:
    found, wanted = np.sort(e.found, axis=None), np.sort(e.wanted, axis=None)
    if _largest(found - wanted) <= e.tolerance:
        yield "the right numbers, at other places", e.found, 0


def _passed_on(e: Evidence) -> Hypotheses:
    for name, array in _arrays(e)[len(e.values) : len(e.values) + len(e.cotangents)]:
        if array.shape == e.wanted.shape:
            yield f"it is {name}, passed on as it is", array, 1


def _only_there(e: Evidence) -> str | None:
    wrong, rank, shape = _wrong(e), e.wanted.ndim, e.wanted.shape
    if _decades(e.wanted[~wrong], e.tolerance) < DECADES:
        return None
    at = {axis: np.unique(places) for axis, places in enumerate(np.nonzero(wrong))}
    single = {a: int(places[0]) for a, places in at.items() if len(places) == 1 < shape[a]}
    for axis, index in single.items():
        which = {0: "first", shape[axis] - 1: "last"}.get(index, "")
        said = _slices(e, axis, 1, which)
        if len(single) == 1 and which and "slice" not in said:
            return f"wrong only in {said}"
    if single:
        where = _listed([f"index {index} of axis {axis}" for axis, index in single.items()])
        return f"wrong only at {where}"
    for spatial in (range(1, rank - 1), range(rank - 2), range(rank)):
        inner = tuple(slice(1, -1) if axis in spatial else slice(None) for axis in range(rank))
        if spatial and not wrong[inner].any() and e.wanted[inner].any():
            where = "rows or columns" if len(spatial) == 2 else f"along {_axes(spatial)}"
            return f"wrong only at the border (first and last {where})"
    return None


HYPOTHESES: tuple[Callable[[Evidence], Hypotheses], ...] = (
    _rearranged,
    _scaled,
    _moved,
    _clipped,
    _multiplied,
    _summed,
    _added,
    _inner_products,
    _tied,
    _masked,
    _scaled_along_an_axis,
    _rounded,
    _passed_on,
    _misplaced,
)
