"""The rules that gradient checkers are tried on: which are right, and which are wrong."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import checkers
from benchmarks.rules import BUGS, CORRECT, convolution, correct
from benchmarks.rules.case import Case, normal, rule

CASES = {case.name: case for case in BUGS + CORRECT}
KINKED = {case.name for case in correct.KINKS}


def drawn(case):
    return case.args(np.random.default_rng(0), "float64")


def like(tree, seed):
    """Random arrays of the same shapes; seeds other than `drawn`'s give other numbers."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda y: jnp.asarray(rng.standard_normal(y.shape), y.dtype), tree)


def inner(tree, other):
    return sum(map(jnp.vdot, jax.tree.leaves(tree), jax.tree.leaves(other)))


def pulled(f, args):
    """The outputs and the gradients for a random cotangent of each output, as a list."""
    y, pull = jax.vjp(f, *args)
    arrays = jax.tree.leaves((y, pull(like(y, 1))))
    return [array for array in arrays if array.dtype != jax.dtypes.float0]


@partial(jax.jit, static_argnums=0)  # one program for all: most of the time is compilation
def slopes(f, *arrays):
    """Along a random direction, by the gradient and by central differences."""
    step, direction = 1e-6, like(arrays, 2)
    ahead, behind = (
        f(*(x + sign * step * d for x, d in zip(arrays, direction, strict=True)))
        for sign in (1, -1)
    )
    y, pull = jax.vjp(f, *arrays)
    dy = like(y, 1)
    return inner(pull(dy), direction), (inner(dy, ahead) - inner(dy, behind)) / (2 * step)


def agrees(case, args):
    """Whether the rule's gradient is that of its primal function by autodiff."""
    try:
        found, wanted = jax.jit(
            lambda *args: (pulled(case.f, args), pulled(case.f.__wrapped__, args))
        )(*args)
    except (TypeError, ValueError):
        return False
    return all(
        a.dtype == b.dtype and np.allclose(a, b, rtol=1e-9, atol=1e-12)
        for a, b in zip(found, wanted, strict=True)
    )


def second_order_agrees(case):
    """Whether the derivative of a gradient along a direction, that of ones, is autodiff's."""

    def second(f):
        def first(*args):
            return jax.grad(lambda *args: (f(*args) ** 2).sum(), tuple(range(len(args))))(*args)

        return jax.jit(lambda *args: pulled(first, args))(*drawn(case))

    return all(map(np.allclose, second(case.f), second(case.f.__wrapped__)))


# Bugs that arguments of the usual kind do not show, and arguments that do.
EDGES = {
    "avg pool: wrong at odd sizes": (jnp.ones((1, 5, 5, 1)),),
    "dense, dbias: for a batch of 4": (jnp.ones((3, 3)), jnp.ones((3, 3)), jnp.ones(3)),
    "logsumexp: overflow": (jnp.full((1, 2), 1e3),),
    "batch norm: 0 / 0 at scale 0": (
        jnp.arange(8.0).reshape(2, 2, 2, 1),
        jnp.zeros(1),
        jnp.ones(1),
    ),
    "softplus: overflow": (jnp.array([1e3]),),
    "tanh: passes all where saturated": (jnp.array([40.0]),),
    "sinc: 0 / 0": (jnp.zeros(1),),
}
TIES = {
    "max pool: each of the tied has all": (jnp.ones((1, 2, 2, 1)),),
    "max pool: shares of a tie are too small": (jnp.ones((1, 2, 2, 1)),),
    "relu: 2 at the kink": (jnp.zeros(1),),
    "maximum: ties to both": (jnp.ones(3), jnp.ones(3)),
}
SECOND_ORDER = [
    "conv, dx: the kernel's own gradient is forgotten",
    "softmax: second order: y is constant",
    "sigmoid: y is constant in second order",
]
NOT_UNDER = {
    "tanh: by its value": jax.jit,
    "exp: in NumPy": jax.jit,
    "sin: not for vmap": jax.vmap,
}
ELSEWHERE = {*EDGES, *TIES, *SECOND_ORDER}
COMPILED = [case for case in BUGS if NOT_UNDER.get(case.name) is not jax.jit]


def test_there_are_enough_of_them_and_each_has_a_name_of_its_own():
    assert len(BUGS) >= 60
    assert len(CORRECT) >= 40
    assert len(CASES) == len(BUGS) + len(CORRECT)
    assert all(case.says for case in BUGS)
    assert not any(case.says for case in CORRECT)


@pytest.mark.parametrize("case", CORRECT, ids=lambda case: case.name)
def test_a_correct_rule_agrees_with_differences(case):
    args = drawn(case)
    if case.name in KINKED:  # away from which the derivative is one number
        rng = np.random.default_rng(1)
        args = tuple(arg + rng.uniform(0.1, 0.4, arg.shape) for arg in args)
    f, arrays = checkers.floating(case, args)
    np.testing.assert_allclose(*slopes(f, *arrays), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", COMPILED, ids=lambda case: case.name)
def test_a_bug_shows_for_usual_arguments_or_elsewhere(case):
    assert agrees(case, drawn(case)) == (case.name in ELSEWHERE or case.name in NOT_UNDER)


@pytest.mark.parametrize("name", EDGES)
def test_a_bug_shows_at_an_edge(name):
    assert not agrees(CASES[name], EDGES[name])


@pytest.mark.parametrize("name", TIES)
def test_no_share_of_a_tie_is_like_that_of_a_bug(name):
    y, pull = jax.vjp(CASES[name].f, *TIES[name])
    total = sum(gradient.sum() for gradient in pull(jnp.ones_like(y)))
    assert total > 1.5 * y.size or total < 0.9 * y.size  # each share may be any, their sum 1


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_a_bug_shows_in_second_order(name):
    assert not second_order_agrees(CASES[name])


def test_a_right_rule_is_right_in_second_order():
    assert second_order_agrees(
        Case("", rule(jnp.sin, lambda a, y, d: (jnp.cos(*a) * d,)), normal((3,)))
    )


@pytest.mark.parametrize("name", NOT_UNDER)
def test_a_bug_shows_under_a_transformation(name):
    def gradient(x):
        return jax.grad(lambda x: CASES[name].f(x).sum())(x)

    gradient(*drawn(CASES[name]))
    with pytest.raises((TypeError, NotImplementedError, ValueError)):
        NOT_UNDER[name](gradient)(*drawn(CASES[name]))


def test_what_is_not_an_argument_with_a_gradient_is_closed_over():
    args = drawn(CASES["dropout"])
    f, arrays = checkers.floating(CASES["dropout"], args)
    assert [array.shape for array in arrays] == [(4, 8)]
    np.testing.assert_array_equal(f(*arrays)[0], CASES["dropout"].f(*args))


# What is made of the verdicts --------------------------------------------------------------------


def verdicts(case, kind, checker):
    return checkers.check(case, kind, "float32", {checkers.OURS: checker}, seeds=2)


def test_a_record_says_how_often_and_why():
    sign = CASES["dense, dx: sign"]
    record = verdicts(sign, "bug", lambda case, args, seed: ["gradient of x: the sign is wrong"])
    assert record["checkers"][checkers.OURS]["rejected"] == 2
    assert record["diagnosed"]
    assert checkers.mistakes([record]) == []
    assert "0 of 0" in checkers.summary([record])[1]
    assert "1 of 1" in checkers.summary([record])[1]


def test_a_bug_that_one_seed_misses_is_missed():
    sign = CASES["dense, dx: sign"]
    record = verdicts(sign, "bug", lambda case, args, seed: ["assigned"] * seed)
    assert record["checkers"][checkers.OURS]["rejected"] == 1
    assert not record["diagnosed"]
    assert checkers.mistakes([record]) == ["dense, dx: sign, float32"]


def test_a_correct_rule_that_one_seed_rejects_is_rejected_and_a_crash_rejects():
    def crashes(case, args, seed):
        return [] if seed else [1][1]

    record = verdicts(CASES["conv"], "correct", crashes)
    assert record["diagnosed"] is None
    assert record["findings"] == ["IndexError: list index out of range"]
    assert checkers.mistakes([record]) == ["conv, float32"]


def test_jax_s_checker_tells_a_sign_from_a_right_rule():
    args = normal((1, 3, 3, 2), (3, 3, 2, 2), (2,))(np.random.default_rng(0), "float64")
    right = Case("", rule(convolution.conv, convolution.conv_backward), normal())
    assert checkers.by_check_grads(right, args, 0) == []
    with pytest.raises(AssertionError):
        checkers.by_check_grads(CASES["conv, dx: sign"], drawn(CASES["conv, dx: sign"]), 0)


@pytest.mark.parametrize("seed", [2, 4, 7])
def test_a_long_sum_is_not_rejected_for_its_rounding(seed):
    case = CASES["jaxcnn.dense over 30,000"]
    args = case.args(np.random.default_rng((1, seed)), "bfloat16")
    with jax.enable_x64(False):  # as the benchmark does
        assert checkers.ours(case, args, seed) == []
