import numpy as np
import pytest

from jaxcnn.compare.judge import slope, verdict


def judged(f, x, found, wanted, dys=None, seed=0):
    """Of a function whose outputs are listed."""
    x, found = np.asarray(x, float), np.asarray(found, float)
    wanted = None if wanted is None else np.asarray(wanted, float)
    dys = [np.ones(np.shape(y)) for y in f(x)] if dys is None else dys
    return verdict(f, x, found, wanted, dys, np.random.default_rng(seed))


def relu(x):
    return [np.maximum(x, 0)]


def largest(x):
    return [x.max()]


def smallest(x):
    return [x.min()]


@pytest.mark.parametrize("found", [0.5, 1.0, 1e-3])
def test_any_slope_of_relu_at_0_between_its_sides_is_right(found):
    assert judged(relu, [0.0], [found], [0.0]) == "kink"
    assert judged(relu, np.zeros(3), [0.0, found, 1.0], np.zeros(3)) == "kink"
    assert judged(relu, [0.0], [0.0], [found]) == "kink"


@pytest.mark.parametrize("found", [2.0, -0.1, 1.01, -1.0])
def test_any_other_slope_of_relu_at_0_is_wrong(found):
    assert judged(relu, [0.0], [found], [0.0]) == "wrong"
    assert judged(relu, [0.0], [found], [1.0]) == "wrong"
    assert judged(relu, [1.0, 0.0, -1.0], [1, found, 0], [1, 0, 0]) == "wrong"


@pytest.mark.parametrize("dy", [3.0, -0.5])
def test_slopes_go_with_the_cotangent(dy):
    given = {"dys": [np.array([dy])]}
    assert judged(relu, [0.0], [0.5 * dy], [0.0], **given) == "kink"
    assert judged(relu, [0.0], [-0.5 * dy], [0.0], **given) == "wrong"
    assert judged(relu, [0.0], [2 * dy], [0.0], **given) == "wrong"


@pytest.mark.parametrize("f", [largest, smallest])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([0, 1, 0, 0], "kink"),
        ([0, 0, 1, 0], "kink"),
        ([1 / 3, 1 / 3, 1 / 3, 0], "kink"),
        ([0.2, 0.5, 0.3, 0], "kink"),
        ([1, 1, 1, 0], "wrong"),
        ([0.5, 0.5, 0.5, 0], "wrong"),
        ([0, 0, 0, 0], "wrong"),
        ([0.3, 0.3, 0.3, 0], "wrong"),
        ([-1, 1, 1, 0], "wrong"),
        ([0, 0, 0, 1], "wrong"),
    ],
)
def test_of_a_tie_the_shares_are_any_whose_sum_is_1(f, found, said, seed):
    x = [2.0, 2.0, 2.0, 1.0 if f is largest else 3.0]
    assert judged(f, x, found, [1, 0, 0, 0], seed=seed) == said


def test_ties_of_many_windows_are_judged_window_by_window():
    def pooled(x):
        return [x.reshape(-1, 2).max(1)]

    x, first = np.ones(8), np.tile([1.0, 0], 4)
    dys = [np.array([1.0, -2.0, 0.5, 3.0])]
    wanted = first * np.repeat(dys[0], 2)
    assert judged(pooled, x, wanted[::-1].reshape(-1, 2)[::-1].ravel(), wanted, dys) == "kink"
    assert judged(pooled, x, np.repeat(dys[0], 2) / 2, wanted, dys) == "kink"
    assert judged(pooled, x, np.repeat(dys[0], 2), wanted, dys) == "wrong"


def test_a_convex_and_a_concave_kink_have_bounds_of_their_own():
    def both(x):
        return [abs(x), -abs(x)]

    dys = [np.ones(1), np.ones(1)]
    assert judged(both, [0.0], [1.5], [0.0], dys) == "kink"
    assert judged(both, [0.0], [2.5], [0.0], dys) == "wrong"


SMOOTH = {
    "square": (lambda x: [x * x], lambda x: 2 * x),
    "exp": (lambda x: [np.exp(x)], np.exp),
    "sum of sines": (lambda x: [np.sin(x).sum()], np.cos),
}


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("factor", [0.0, -1.0, 1.01, 2.0])
def test_where_it_is_smooth_differences_say_who_is_wrong(name, factor):
    f, derivative = SMOOTH[name]
    x = np.array([0.3, -1.2, 2.0])
    right = derivative(x)
    assert judged(f, x, factor * right, right) == "wrong"
    assert judged(f, x, right, factor * right) == "autodiff is wrong"
    assert judged(f, x, factor * right, None) == "wrong"
    assert judged(f, x, right, None) == "kink"


def test_between_two_mistakes_of_a_size_it_sides_with_neither():
    assert judged(lambda x: [x * x], [1.0], [3.0], [1.0]) == "neither"
    assert judged(largest, [1.0, 1.0], [1.0, 1.0], [0.0, 0.0]) == "neither"


def test_a_smaller_mistake_than_autodiff_s_is_one():
    assert judged(lambda x: [x * x], [1.0], [2.02], [6.6]) != "autodiff is wrong"


def test_one_wrong_entry_of_many():
    x = np.linspace(-1, 1, 1000)
    found = np.cos(x)
    found[17] += 1e-3
    assert judged(lambda x: [np.sin(x)], x, found, np.cos(x)) == "wrong"
    assert judged(lambda x: [np.sin(x)], x, np.cos(x), found) == "autodiff is wrong"


def test_where_the_function_is_not_finite_it_cannot_tell():
    with np.errstate(all="ignore"):
        assert judged(lambda x: [np.log(x)], [-1.0], [1.0], [0.0]) == "cannot tell"
        assert judged(lambda x: [x / 0], [1.0], [1.0], None) == "cannot tell"


def test_autodiff_may_be_no_gradient_of_a_kink():
    assert judged(largest, [1.0, 1.0], [0.5, 0.5], [1.0, 1.0]) == "autodiff is wrong"
    assert judged(largest, [1.0, 1.0], [0.0, 1.0], [1.0, 1.0]) == "neither"
    # A convex and a concave kink, added up inside: its sides, 0, are not autodiff's 1/2.
    assert judged(lambda x: [relu(x)[0] - relu(x)[0]], [0.0], [1.0], [0.5]) == "neither"


def test_a_huge_mistake_gives_no_warning():
    assert judged(lambda x: [x], [1.0, 1.0], [1e200, 0.0], [1.0, 1.0]) == "wrong"


def test_rounding_noise_is_no_slope():
    def noisy(x):
        return [1e8 + 1e-9 * x]

    assert judged(noisy, [1.0], [2e-9], [1e-9]) == "cannot tell"
    assert judged(noisy, [1.0], [2e-9], None) == "cannot tell"


def test_bounds_by_hand():
    found = slope(relu, np.zeros(2), np.array([1.0, 2.0]), [np.array([1.0, -1.0])])
    assert (found.low, found.high) == pytest.approx((-2, 1))
    assert not found.smooth
    assert all(map(found.admits, (0, -2, 1)))
    assert not any(map(found.admits, (1.1, -2.1)))
    square = slope(lambda x: [x * x], np.array([3.0]), np.ones(1), [np.array([0.5])])
    assert (square.low, square.high) == pytest.approx((3, 3))
    assert square.smooth
    with np.errstate(all="ignore"):
        assert slope(lambda x: [np.sqrt(-abs(x) - 1)], np.ones(1), np.ones(1), [np.ones(1)]) is None
