from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import draw
from planting import rule

from jaxcnn.compare.problem import Pull, fold, problem, traced_wide, wide_if, widen

X, W = draw(0, (2, 3), (3,))


def folded(f, *args, against=None, argnums=None):
    return problem(f, args, against, argnums, np.random.default_rng(0))


def scaled(x, kernel):
    return x * kernel


def of_a_tree(params, x, *rest, flag=True):
    return params["conv"]["kernel"] * x, [params["scales"][1] + x]


TREE = {"conv": {"kernel": W}, "scales": [2.0, W]}


@pytest.mark.parametrize(
    ("f", "args", "names"),
    [
        (scaled, (X, W), ["x", "kernel"]),
        (rule(scaled, None), (X, W), ["x", "kernel"]),
        (jax.jit(scaled), (X, W), ["x", "kernel"]),
        (of_a_tree, (TREE, X), ["params/conv/kernel", "params/scales/0", "params/scales/1", "x"]),
        (lambda *args: sum(args), (X, X), ["argument 0", "argument 1"]),
        (lambda x, *more: x * more[0], (X, X), ["x", "argument 1"]),
        (jnp.add, (X, X), ["argument 0", "argument 1"]),
        (partial(scaled, X), (W,), ["kernel"]),
        (lambda pair: pair[0] * pair[1], ((X, W),), ["pair/0", "pair/1"]),
    ],
)
def test_arrays_are_named_by_parameter_and_path(f, args, names):
    assert folded(f, *args).names == names


@pytest.mark.parametrize(
    ("argnums", "names"),
    [
        (0, ["params/conv/kernel", "params/scales/0", "params/scales/1"]),
        (1, ["x"]),
        (-1, ["x"]),
        ([1, -2], ["params/conv/kernel", "params/scales/0", "params/scales/1", "x"]),
    ],
)
def test_argnums_choose(argnums, names):
    given = folded(of_a_tree, TREE, X, argnums=argnums)
    assert given.names == names
    np.testing.assert_array_equal(given.f(given.values)[0], W * X)


def test_integers_booleans_keys_and_whatever_else_are_carried():
    def f(x, labels, key, mask, mode, nothing, w):
        assert (mode, nothing) == ("sum", None)
        taken = jnp.where(mask, x + jax.random.normal(key, x.shape), 0)[:, labels]
        return getattr(taken, mode)() * w, labels + 1, mask

    labels, key, mask = np.array([2, 0]), jax.random.key(0), X > 0
    given = folded(f, X, labels, key, mask, "sum", None, 2.0)
    assert (given.names, given.carries) == (["x", "w"], True)
    (y,) = given.f([jnp.asarray(3 * X), jnp.asarray(1.0)])
    assert y == f(3 * X, labels, key, mask, "sum", None, 1.0)[0]
    assert [dy.shape for dy in given.cotangents] == [()]
    assert not folded(scaled, X, W).carries


def test_the_dtypes_of_values_and_cotangents():
    def f(x, w):
        return (x * w.astype(x.dtype)).astype(jnp.float16), x.sum()

    given = folded(f, X.astype(jnp.bfloat16), W.astype(np.float32))
    assert [value.dtype for value in given.values] == [jnp.bfloat16, np.float32]
    assert [dy.dtype for dy in given.cotangents] == [np.float16, jnp.bfloat16]
    assert [dy.shape for dy in given.cotangents] == [(2, 3), ()]
    assert folded(jnp.sin, 1.0).values[0].dtype == np.float64
    with jax.enable_x64(False):
        assert folded(jnp.sin, 1.0).values[0].dtype == np.float32
        assert folded(jnp.sin, X).values[0].dtype == np.float32


def test_the_primal_and_what_it_is_held_against_have_no_rule():
    sine = rule(jnp.sin, lambda args, y, dy: (7 * dy,))
    given = folded(sine, X)

    def slopes(f):
        return jax.grad(lambda x: f([x])[0].sum())(X)

    np.testing.assert_array_equal(slopes(given.f), np.full_like(X, 7))
    for f in (given.primal, given.against):
        np.testing.assert_allclose(slopes(f), np.cos(X), rtol=1e-15)
    other = folded(sine, X, against=jnp.cos)
    np.testing.assert_allclose(slopes(other.against), -np.sin(X), rtol=1e-15)
    np.testing.assert_allclose(slopes(other.primal), np.cos(X), rtol=1e-15)


SAME = {"against": scaled}


@pytest.mark.parametrize(
    ("f", "args", "options", "kind", "told"),
    [
        (3, (X,), {}, TypeError, "`f` must be a function, got 3"),
        (jnp.sin, (X,), {"against": 3}, TypeError, "`against` must be a function, got 3"),
        (scaled, (X, W), {"argnums": 2}, ValueError, "`argnums` must be from -2 to 1 for 2 argum"),
        (scaled, (X, W), {"argnums": [0, -3]}, ValueError, "for 2 arguments, got -3"),
        (jnp.add, (1, np.arange(3)), {}, ValueError, "no argument is a floating array"),
        (jnp.sin, (), {}, ValueError, "no argument is a floating array"),
        (jnp.take, (X, np.arange(1)), {"argnums": 1}, ValueError, "no argument is a floating"),
        (jnp.argmax, (X,), {}, ValueError, "no output of `f` is a floating array"),
        (
            *(jnp.sin, (X,), {"against": jnp.sum}, ValueError),
            "`f` has outputs of shapes [(2, 3)], `against` of [()]",
        ),
    ],
)
def test_an_error_is_one_clear_line(f, args, options, kind, told):
    with pytest.raises(kind) as raised:
        folded(f, *args, **options)
    assert told in str(raised.value)
    assert str(raised.value).startswith("compare_gradients: ")
    assert "\n" not in str(raised.value)


def test_the_errors_of_the_function_itself_are_its_own():
    with pytest.raises(TypeError, match="number of dimensions"):
        folded(jax.lax.sub, X, np.ones(4))


def test_folding_by_default_takes_all_that_float():
    f, places = fold(lambda n, x, w: (n, x * w), [3, X, W])
    assert places == [1, 2]
    np.testing.assert_array_equal(f([X, 2 * W])[0], 2 * X * W)


def test_what_is_carried_is_as_wide_as_the_arrays():
    f, _ = fold(lambda x, w: x * w, [X.astype(np.float32), W.astype(np.float32)], [0])
    assert f([jnp.asarray(X)])[0].dtype == np.float64
    assert f([jnp.asarray(X, jnp.float32)])[0].dtype == np.float32


def test_wide_arrays_keep_their_bits():
    with jax.enable_x64(False):
        with wide_if([X]):
            assert jnp.asarray(X).dtype == np.float64
        with wide_if([X.astype(np.float32)]):
            assert jnp.asarray(X).dtype == np.float32
    assert [a.dtype for a in widen([X.astype(np.float16), np.ones(2, jnp.bfloat16)])] == [float] * 2


def third(values):
    return [values[0] / 3 + 0.1]


@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16, np.float64])
def test_a_pull_in_its_own_dtype_and_in_float64(dtype):
    values, dys = [X.astype(dtype)], [W.astype(dtype) * np.ones((2, 1), dtype)]
    pull = Pull(third, values, dys)
    (y,), (dx,) = pull.narrow(values, dys)
    assert (y.dtype, dx.dtype) == (dtype, dtype)
    (y,), (dx,) = pull.wide(values, dys)
    # The constants are not rounded either.
    np.testing.assert_allclose(y, values[0].astype(float) / 3 + 0.1, rtol=1e-15)
    np.testing.assert_allclose(dx, dys[0].astype(float) / 3, rtol=1e-15)
    assert pull.rounded == 0


def test_a_function_that_refuses_float64_is_widened_from_its_own_dtype():
    def single(values):
        if values[0].dtype != jnp.float32:
            raise TypeError("single precision alone")
        return [values[0] * 0.1]

    x = X.astype(np.float32)
    exact, rounded = traced_wide(single, [x])
    assert rounded == 2.0**-23
    assert exact.in_avals[0].dtype == np.float32
    pull = Pull(single, [x], [x])
    assert pull.rounded == 2.0**-23
    np.testing.assert_allclose(
        pull.wide([x], [x])[0][0], x.astype(float) * np.float32(0.1), rtol=1e-15
    )
