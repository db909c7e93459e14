import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import draw
from planting import by_name, rule

from jaxcnn.compare.edges import edge_rows, other_shapes
from jaxcnn.compare.point import gradient_rows, point, programs
from jaxcnn.compare.problem import problem

X = draw(0, (4, 3)).astype(np.float32)


def given(f, *args, **options):
    return problem(f, args, options.get("against"), None, np.random.default_rng(0))


def edges(f, *args, known=()):
    found = given(f, *args)
    return by_name(edge_rows(found, programs(found)[0], np.random.default_rng(1), set(known)))


def relu(at_kink):
    """With that slope at 0."""

    def backward(args, y, dy):
        (x,) = args
        return (jnp.where(x > 0, dy, jnp.where(x == 0, at_kink * dy, 0)),)

    return rule(jax.nn.relu, backward)


def largest(share):
    """Of each row; of `ties` each has `share(ties)`."""

    def backward(args, y, dy):
        (x,) = args
        return (share(x == y[:, None]).astype(dy.dtype) * dy[:, None],)

    return rule(lambda x: x.max(-1), backward)


def first(ties):
    return ties & (ties.cumsum(-1) == 1)


def maximum(x_wins):
    """Of two arrays, in a tie: by what each has."""

    def backward(args, y, dy):
        x, w = args
        return jnp.where(x > w, 1, x_wins[0] * (x == w)) * dy, (
            jnp.where(w > x, 1, x_wins[1] * (x == w)) * dy
        )

    return rule(jnp.maximum, backward)


@pytest.mark.parametrize(
    ("f", "count", "verdict"),
    [
        (relu(0), 1, "ok"),
        (relu(0.5), 1, "differs"),
        (relu(1), 1, "differs"),
        (relu(2), 1, "WRONG"),
        (relu(-1), 1, "WRONG"),
        (largest(first), 1, "differs"),
        (largest(lambda ties: ties / ties.sum(-1, keepdims=True)), 1, "ok"),
        (largest(lambda ties: ties), 1, "WRONG"),
        (largest(lambda ties: ties / ties.sum(-1, keepdims=True) ** 2), 1, "WRONG"),
        (maximum((0.5, 0.5)), 2, "ok"),
        pytest.param(maximum((1, 0)), 2, "differs"),
        pytest.param(maximum((0.2, 0.8)), 2, "differs"),
        pytest.param(maximum((1, 1)), 2, "WRONG"),
        pytest.param(maximum((0, 0)), 2, "WRONG"),
    ],
)
def test_at_kinks_and_ties(f, count, verdict):
    rows = edges(f, *[X, X[::-1]][:count])
    for kind in ("ties", "zeros"):
        found = [row.verdict for name, row in rows.items() if name.startswith(kind)]
        assert found == [verdict] * (1 if verdict == "ok" else count)
    for kind in ("large", "tiny"):
        assert rows[kind].verdict == "ok"


def sigmoid_backward(args, y, dy):
    e = jnp.exp(args[0])
    return (e / (1 + e) * dy,)


def test_overflow_of_large_inputs():
    rows = edges(rule(jax.nn.softplus, sigmoid_backward), X)
    assert rows["large: x"].verdict == "WRONG"
    assert rows["large: x"].says.startswith("infinite or NaN at ")
    assert rows["zeros"].verdict == rows["ties"].verdict == rows["tiny"].verdict == "ok"
    right = rule(jax.nn.softplus, lambda args, y, dy: (jax.nn.sigmoid(args[0]) * dy,))
    assert edges(right, X)["large"].verdict == "ok"


def norm(x):
    centred = x - x.mean(0)
    return centred / jnp.sqrt((centred**2).mean(0) + 1e-5)


def norm_backward(epsilon):
    def backward(args, y, dy):
        (x,) = args
        deviation = jnp.sqrt(x.var(0) + epsilon)
        normal = (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-5)
        return ((dy - dy.mean(0) - normal * (normal * dy).mean(0)) / deviation,)

    return backward


def test_0_by_0_at_constant_channels():
    rows = edges(rule(norm, norm_backward(0.0)), X)
    assert rows["constant channels: x"].verdict == rows["zeros: x"].verdict == "WRONG"
    rows = edges(rule(norm, norm_backward(1e-5)), X)
    assert rows["constant channels"].verdict == rows["zeros"].verdict == "ok"


def test_what_is_wrong_everywhere_is_not_said_again():
    rows = edges(rule(jnp.sin, lambda args, y, dy: (-jnp.cos(args[0]) * dy,)), X, known=["x"])
    assert {row.verdict for row in rows.values()} == {"ok"}
    assert rows["ties"].says == "save what is wrong everywhere"


def test_no_gradient_at_zero():
    def length(x):
        return jnp.sqrt((x**2).sum() + 1e-12)

    f = rule(length, lambda args, y, dy: (jnp.where(y > 1e-3, args[0] / y, jnp.nan) * dy,))
    rows = edges(f, X)
    assert rows["zeros: x"].verdict == "WRONG"
    assert rows["ties"].verdict == "ok"


def test_where_the_function_is_not_finite_nothing_is_judged():
    rows = edges(jnp.log, abs(X))
    for kind in ("ties", "zeros"):
        assert (rows[kind].verdict, rows[kind].says) == ("note", "the function is not finite there")
    assert rows["large"].verdict == "note" or rows["constant channels"].verdict == "ok"


@pytest.mark.parametrize(
    ("backward", "says"),
    [
        (lambda x, dy: 2 * x * dy, ""),
        (lambda x, dy: jnp.nan_to_num(2 * x * dy), "finite at 1 places where autodiff's is not"),
        (lambda x, dy: 2 * x * dy + 0 * x.sum(), "not finite at 11 places where autodiff's is"),
    ],
)
def test_nan_and_infinity_differ_and_are_not_wrong(backward, says):
    rows = edges(rule(lambda x: x * x, lambda args, y, dy: (backward(*args, dy),)), X)
    for kind in ("NaN", "infinity"):
        assert (rows[kind].verdict, rows[kind].says) == ("differs" if says else "ok", says)


def test_without_autodiff_there_is_nothing_to_compare_with():
    def halved(x):  # until it is small
        return jax.lax.while_loop(lambda x: abs(x).max() > 1e-3, lambda x: x / 2, x)

    rows = edges(rule(halved, lambda args, y, dy: (y / args[0] * dy,)), X)
    assert {rows[kind].verdict for kind in ("ties", "NaN", "large")} == {"note"}


# Other shapes ------------------------------------------------------------------------------------


def shapes(f, *args, **options):
    found = other_shapes(given(f, *args, **options), np.random.default_rng(0))
    return [[value.shape for value in other.values] for other in found]


def fixed(x):
    if x.shape[1] != 3:
        raise ValueError("three channels")
    return x * 2


def only_this(x):
    if x.shape != (4, 3):
        raise ValueError("4 by 3")
    return x * 2


@pytest.mark.parametrize(
    ("f", "args", "found"),
    [
        (jnp.sin, (X,), [[(1, 1)], [(5, 5)]]),
        (jnp.dot, (X, X.T), [[(1, 1), (1, 1)], [(5, 5), (5, 5)]]),
        (jnp.sin, (np.float32(1),), []),
        (jnp.sin, (np.ones(1, np.float32),), []),
        (jnp.dot, (X, np.ones(3, np.float32)), [[(1, 1), (1,)], [(5, 5), (5,)]]),
        (jnp.sum, (np.ones((2, 6), np.float32),), [[(1, 1)], [(3, 7)]]),
        (fixed, (X,), [[(1, 3)], [(5, 3)]]),
        (only_this, (X,), []),
        (lambda x: jnp.asarray(X) * x[0, 0], (X,), []),
        (jnp.take, (X, np.arange(2)), []),
    ],
)
def test_the_lengths_that_are_tried(f, args, found):
    assert shapes(f, *args) == found


def test_what_refuses_other_shapes_where_it_is_held_against_is_left_out():
    assert shapes(jnp.negative, X, against=lambda x: -only_this(x) / 2) == []


def test_other_problems_are_of_the_same_dtypes_with_cotangents_of_their_own():
    found = list(other_shapes(given(lambda x: x.sum(0), X), np.random.default_rng(0)))
    for other, length in zip(found, (1, 5), strict=True):
        assert [dy.shape for dy in other.cotangents] == [(length,)]
        assert other.values[0].dtype == other.cotangents[0].dtype == np.float32
        np.testing.assert_allclose(other.f(other.values)[0], other.values[0].sum(0), rtol=1e-6)


def pairs(x):
    """The means of pairs, and the last entry as it is if it has no partner."""
    even = len(x) // 2 * 2
    return jnp.concatenate([x[:even].reshape(-1, 2).mean(1), x[even:]])


def pairs_backward(args, y, dy):
    (x,) = args
    return (dy.repeat(2)[: len(x)] / 2,)


def test_wrong_at_odd_shapes():
    verdicts = []
    start = given(rule(pairs, pairs_backward), np.ones(4, np.float32))
    for other in itertools.chain([start], other_shapes(start, np.random.default_rng(0))):
        made, _ = programs(other)
        at = point(made, other.values, other.cotangents)
        (row,) = gradient_rows(other, at, made, np.random.default_rng(0))
        verdicts.append(row.verdict)
    assert verdicts == ["ok", "WRONG", "WRONG"]
