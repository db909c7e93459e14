from types import SimpleNamespace

import numpy as np
import pytest
from checking import draw

from jaxcnn.compare.agreement import Point
from jaxcnn.compare.as_if import as_if, elementwise

X, W, DY = draw(0, (4, 5, 3)), draw(1, (3, 3)), draw(2, (4, 5, 3))
POINT = Point([X, W], [DY], None, None)


def gradients(x, w, dy):
    """Of x @ w."""
    return [dy @ w.T, np.einsum("bni,bno->io", x, dy)]


RIGHT = SimpleNamespace(
    wide=lambda values, dys: ([values[0] @ values[1]], gradients(*values, *dys))
)


def say(found, number, allowed=1e-12, point=POINT, right=RIGHT, names=("x", "kernel")):
    return as_if(names, point, right, number, np.asarray(found), allowed)


def first_alone(x):
    alone = np.zeros_like(x)
    alone[:, :1] = x[:, :1]
    return alone


MISTAKES = {
    "in reverse order along axis 0": lambda x: x[::-1],
    "in reverse order along axis 1": lambda x: x[:, ::-1],
    "flipped along axes 0 and 1": lambda x: x[::-1, ::-1],
    "shifted by 1 along axis 1": lambda x: np.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1],
    "shifted by -1 along axis 0": lambda x: np.pad(x, ((0, 1), (0, 0), (0, 0)))[1:],
    "rolled by 1 along axis 0": lambda x: np.roll(x, 1, 0),
    "rolled by -1 along axis 2": lambda x: np.roll(x, -1, 2),
    "all ones": np.ones_like,
    "its own mean everywhere": lambda x: np.full_like(x, x.mean()),
    "its sum everywhere": lambda x: np.full_like(x, x.sum()),
    "its absolute value": abs,
    "its sign": np.sign,
    "its square": lambda x: x * x,
    "larger by 1": lambda x: x + 1,
    "clipped at 1": lambda x: x.clip(-1, 1),
    "of norm 1": lambda x: x / np.sqrt((x * x).sum()),
    "its mean over axis 1": lambda x: x.mean(1, keepdims=True) + 0 * x,
    "the same as its first entry along axis 0": lambda x: x[:1] + 0 * x,
    "zero but for its first place in each image": first_alone,
    "its mean over all axes but the last": lambda x: x.mean((0, 1)) + 0 * x,
}


@pytest.mark.parametrize("said", MISTAKES)
def test_an_operand_that_was_mistaken_is_named(said):
    mistake = MISTAKES[said]
    dkernel = gradients(mistake(X), W, DY)[1]
    if not said.startswith("zero"):  # as if either was
        assert say(dkernel, 1) == f"as if `x` were {said}"
    told = say(gradients(X, W, mistake(DY))[1], 1)
    assert told in (f"as if `x` were {said}", f"as if the cotangent were {said}") or "x" in told
    assert told is not None


@pytest.mark.parametrize(
    ("found", "number", "said"),
    [
        (gradients(X, W.T, DY)[0], 0, "as if `kernel` were transposed, axes 0 and 1 swapped"),
        (gradients(X, W[::-1], DY)[0], 0, "as if `kernel` were in reverse order along axis 0"),
        (gradients(X, abs(W), DY)[0], 0, "as if `kernel` were its absolute value"),
        (gradients(X, W, np.ones_like(DY))[0], 0, "as if the cotangent were all ones"),
        (gradients(X, W, DY.mean((0, 1)) + 0 * DY)[0], 0, "as if the cotangent were its mean over"),
    ],
)
def test_the_kernel_or_the_cotangent(found, number, said):
    assert say(found, number).startswith(said)
    assert say(found + 1e-5 * draw(5, found.shape).clip(-1, 1), number, 1e-5).startswith(said)


def test_of_several_cotangents_the_number_is_told():
    dys = [DY, draw(3, (4, 5, 3))]
    right = SimpleNamespace(
        wide=lambda values, dys: ([], [dys[0] * values[0] + dys[1]]),
    )
    point = Point([X], dys, None, None)
    found = DY * X + abs(dys[1])
    said = say(found, 0, point=point, right=right, names=("x",))
    assert said == "as if the cotangent 1 were its absolute value"


def test_nothing_is_said_of_just_another_gradient():
    assert say(draw(7, (4, 5, 3)), 0) is None
    assert say(draw(7, (3, 3)), 1) is None
    assert say(gradients(X, W, DY)[0] + 0.01, 0) is None


def test_what_is_not_finite_or_empty_is_no_mistake():
    infinite = SimpleNamespace(wide=lambda values, dys: ([], [np.full((4, 5, 3), np.inf)]))
    assert say(draw(7, (4, 5, 3)), 0, right=infinite) is None
    empty = Point([np.zeros((0, 5, 3)), W], [np.zeros((0, 5, 3))], None, None)
    assert say(np.ones((3, 3)), 1, point=empty) is None


def slopes(slope):
    """The gradient of an elementwise function of x alone, by its derivative."""
    return SimpleNamespace(wide=lambda values, dys: ([np.sin(X)], [slope(values[0]) * dys[0]]))


def test_a_derivative_that_is_wrong_at_each_element():
    point, rng = Point([X], [DY], None, None), np.random.default_rng(0)
    right, wrong = slopes(np.cos), slopes(lambda x: np.cos(x) * (1 + x * x))
    found = wrong.wide([X], [DY])[1][0]
    said = elementwise(point, wrong, right, 0, found, rng)
    low, high = 1 + (X**2).min(), 1 + (X**2).max()
    own = f"{low:.3g} to {high:.3g}"
    assert said == f"off by a factor that is each element's own, {own}: f' is wrong"
    # The same numbers from something that is not elementwise.
    other = SimpleNamespace(wide=lambda values, dys: ([], [found + dys[0].sum() - DY.sum()]))
    assert elementwise(point, other, right, 0, found, rng) is None
