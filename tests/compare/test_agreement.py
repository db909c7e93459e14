from types import SimpleNamespace

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from checking import draw

from jaxcnn.compare import agreement
from jaxcnn.compare.agreement import Results

EPS, EPS32 = 2.0**-52, 2.0**-23
X, DY = draw(0, (40, 3)), draw(1, (40, 3))


def in_numpy(f, rounded=0.0):
    """A program of `x` and its output's cotangent, in whatever dtype these have."""

    def pull(values, cotangents):
        y, dx = f(values[0], cotangents[0])
        return [np.asarray(y)], [np.asarray(dx)]

    def wide(values, cotangents):
        return pull(*([a.astype(np.float64) for a in arrays] for arrays in (values, cotangents)))

    return SimpleNamespace(narrow=pull, wide=wide, rounded=rounded)


def results(f, x=X, dy=DY, dtype=np.float64):
    return agreement.results(in_numpy(f), [x.astype(dtype)], [dy.astype(dtype)])


def of_results(gradient, wide=None, noise=0.0, wide_noise=0.0, rounded=0.0):
    wide = np.asarray(gradient, np.float64) if wide is None else wide
    return Results([np.asarray(gradient)], [wide], [noise], [wide_noise], rounded)


def cube(x, dy):
    return x * x * x, 3 * x * x * dy


def test_both_programs_are_evaluated_outputs_first():
    found = results(cube, dtype=np.float32)
    in_float64 = cube(*(a.astype(np.float32).astype(float) for a in (X, DY)))
    for narrow, wide, wanted in zip(found.narrow, found.wide, in_float64, strict=True):
        assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
        np.testing.assert_allclose(narrow, wanted, rtol=1e-6)
        np.testing.assert_array_equal(wide, wanted)


@pytest.mark.parametrize(("dtype", "eps"), [(np.float64, EPS), (np.float32, EPS32)])
def test_the_noise_is_what_a_few_eps_change(dtype, eps):
    found = results(cube, dtype=dtype)
    y, dx = found.wide
    # y is moved by 3 times as much as x, dx by 2 times that and 0.7 for dy: all of 16/3 eps.
    for noise, size, times in zip(
        found.noise, (abs(y).max(), abs(dx).max()), (3, 2.7), strict=True
    ):
        assert 3 * times * eps * size < noise < 8 * times * eps * size
    assert max(found.wide_noise) < 1e-13


def test_the_noise_knows_cancellation_from_a_sum():
    def cancelling(x, dy):
        return x, (x + 1e6) ** 2 * dy - (1e12 + 2e6 * x) * dy

    here, far = results(cube), results(cancelling)
    assert max(here.wide_noise) < 1e-13
    assert far.wide_noise[1] > 1e-5


@pytest.mark.parametrize(
    ("x", "f"),
    [
        (np.array([1.0, 1.0, 0.5]), lambda x, dy: (x, dy * (x == x.max()))),
        (np.array([0.0, -1.0, 2.0]), lambda x, dy: (x, dy * (x == 0) + (x > 0))),
    ],
)
def test_ties_stay_ties_and_zeros_zeros(x, f):
    for dtype in (np.float64, np.float32, jnp.bfloat16):
        found = agreement.results(in_numpy(f), [x.astype(dtype)], [np.ones(3).astype(dtype)])
        assert found.noise[1] < 0.1


def test_bounds_by_hand():
    size, terms = 3.0, 16
    exact = of_results(np.array([size, -1.0]))
    assert agreement.wide_bound(exact, exact, 0, terms) == 4 * 2.0**-42 * size
    noisy = of_results(exact.narrow[0], wide_noise=1e-9)
    assert agreement.wide_bound(noisy, exact, 0, terms) == 4 * 2.0**-42 * size + 64e-9
    assert agreement.wide_bound(exact, noisy, 0, terms) == 4 * 2.0**-42 * size + 64e-9
    rounded = of_results(exact.narrow[0], rounded=EPS32)
    assert agreement.wide_bound(rounded, exact, 0, terms) == 4 * EPS32 * size


@pytest.mark.parametrize(
    ("dtype", "eps"),
    [
        (np.float64, EPS + 4 * EPS),
        (np.float32, EPS32 + 4 * EPS32),
        (ml_dtypes.bfloat16, 2.0**-7 + 4 * EPS32),
        (np.float16, 2.0**-10 + 4 * EPS32),
    ],
)
def test_bounds_in_the_own_dtype_by_hand(dtype, eps):
    wide = np.array([3.0, -1.0])
    exact = of_results(wide.astype(dtype), wide)
    assert agreement.narrow_bound(exact, exact, 0, 16) == pytest.approx(4 * eps * 3.0, rel=1e-6)
    noisy = of_results(wide.astype(dtype), wide, noise=0.25)
    assert agreement.narrow_bound(exact, noisy, 0, 16) == pytest.approx(4 * eps * 3 + 2)
    off = of_results((wide + 0.5).astype(dtype), wide)
    assert agreement.narrow_bound(exact, off, 0, 16) == pytest.approx(4 * eps * 3 + 2)


def sums(order):
    """y = the sum of x, added up in that order; dx = the sum of dy, likewise."""

    def f(x, dy):
        return (np.add.accumulate(a[order])[-1:] for a in (x.ravel(), dy.ravel()))

    return f


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_long_sums_in_another_order_agree_and_a_small_mistake_does_not(dtype):
    x, dy = draw(2, (20000,), (20000,))
    order = np.arange(20000)
    ours, theirs = (results(sums(o), x, dy, dtype) for o in (order[::-1], order))
    off = agreement.largest_error(ours.wide[1], theirs.wide[1])
    assert off <= agreement.wide_bound(ours, theirs, 1, x.size) < 1e-9
    off = agreement.largest_error(ours.narrow[1], theirs.wide[1])
    assert off <= agreement.narrow_bound(ours, theirs, 1, x.size)
    assert agreement.wide_bound(ours, theirs, 1, x.size) < 1e-9 * abs(theirs.wide[1][0])


def test_the_largest_error_is_that_of_finite_entries():
    found = np.array([1.0, np.nan, np.inf, 5.0], np.float32)
    assert agreement.largest_error(found, np.array([1.5, 1.0, np.inf, 5.0])) == 0.5
    assert agreement.largest_error(np.zeros((0, 2)), np.zeros((0, 2))) == 0
    assert agreement.largest_error(np.array([np.nan]), np.array([1.0])) == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_units_in_the_last_place(dtype):
    one = np.array([1, 1.5, -1], dtype)
    eps = float(jnp.finfo(dtype).eps)
    after = (one.astype(np.float64) + 3 * eps).astype(dtype)
    assert agreement.in_units_in_the_last_place(after, one.astype(np.float64)) == 3
    below = np.array([0.75], dtype)  # half as far apart
    off = (below.astype(np.float64) + eps).astype(dtype)
    assert agreement.in_units_in_the_last_place(off, below.astype(np.float64)) == 2
    assert agreement.in_units_in_the_last_place(np.zeros(2, dtype), np.zeros(2)) == 0


def test_of_nothing_and_of_what_is_not_finite_there_is_no_noise():
    empty = results(cube, np.zeros((0, 3)), np.zeros((0, 3)))
    assert empty.noise == empty.wide_noise == [0, 0]
    strange = results(cube, np.full((2, 3), np.nan), np.ones((2, 3)))
    assert strange.wide_noise == [0, 0]
