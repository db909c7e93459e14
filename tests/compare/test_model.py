import inspect
from functools import wraps
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import reference
from jaxcnn.compare import compare_model, draw_biases


def apply(params, state, x, *, ops, train, key):
    """A model with each kind of layer once, so that a wrong row has one cause."""
    del train, key
    x = ops.max_pool(ops.relu(ops.conv(x, **params["conv"])), (2, 2), strides=(2, 2))
    return ops.dense(ops.flatten(x), **params["logits"]), state


CALLS = [
    *("1 conv: x", "1 conv: kernel", "1 conv: bias", "2 relu: x", "3 max_pool: x", "4 flatten: x"),
    *("5 dense: x", "5 dense: kernel", "5 dense: bias", "6 loss: logits"),
]
PARAMS = ["conv/bias", "conv/kernel", "logits/bias", "logits/kernel"]


def compare(manual, dtype="float64"):
    rng = np.random.default_rng(0)
    params = {
        "conv": {"kernel": rng.normal(size=(3, 3, 2, 3)), "bias": np.array([0.1, 0.2, -0.3])},
        "logits": {"kernel": rng.normal(size=(27, 5)) / 5, "bias": rng.normal(size=5)},
    }
    x = rng.normal(size=(4, 6, 6, 2))
    x[:, :5] *= np.arange(4)[:, None, None, None] > 1  # blank: ties, at positive values too
    model = SimpleNamespace(apply=apply)
    labels = np.array([0, 3, 1, 4])
    return compare_model(
        model, params, {}, x, labels, manual=manual, dtype=dtype, key=jax.random.key(0)
    )


def planted(**spoils):
    """`reference` with `spoil(right gradient of dy, x, y, dy)` for some functions' gradients."""
    public = {name: getattr(reference, name) for name in reference.__all__}
    wrong = {name: with_gradient(public[name], spoil) for name, spoil in spoils.items()}
    return SimpleNamespace(**{**public, **wrong})


def with_gradient(original, spoil):
    @wraps(original)
    def function(*args, **kwargs):
        arguments = inspect.signature(original).bind(*args, **kwargs).arguments
        dtypes = {name: getattr(a, "dtype", jnp.int32) for name, a in arguments.items()}
        floating = [name for name in arguments if jnp.issubdtype(dtypes[name], jnp.floating)]

        def f(arrays):
            return original(**{**arguments, **arrays})

        def bwd(arrays, dy):
            def right(dy):
                return dict(jax.vjp(f, arrays)[1](dy)[0])

            return (spoil(right, arrays.get("x"), f(arrays), dy),)

        rule = jax.custom_vjp(f)
        rule.defvjp(lambda arrays: (f(arrays), arrays), bwd)
        return rule({name: arguments[name] for name in floating})

    return function


def negated(right, x, y, dy):
    return jax.tree.map(jnp.negative, right(dy))


def doubled(right, x, y, dy):
    return jax.tree.map(lambda leaf: 2 * leaf, right(dy))


def kernel_flipped_and_bias_averaged(right, x, y, dy):
    return right(dy) | {"kernel": right(dy)["kernel"][::-1, ::-1], "bias": dy.mean((0, 1, 2))}


def ties_all_take_it(right, x, y, dy):
    def spread(a):
        return a.repeat(2, 1).repeat(2, 2)

    return {"x": jnp.where(x == spread(y), spread(dy), 0)}


def through_float16(right, x, y, dy):
    return right(dy.astype(jnp.float16).astype(dy.dtype))


def bias_nan(right, x, y, dy):
    return right(dy) | {"bias": jnp.full_like(right(dy)["bias"], jnp.nan)}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_right_gradients_are_ok_and_have_a_row_each(dtype):
    rows = compare(reference, dtype)
    assert [row.name for row in rows] == CALLS + PARAMS
    assert [row.name for row in rows if not row.ok] == []
    assert all(row.difference is not None and row.difference < 1e-6 for row in rows)
    if dtype == "float64":
        assert all(row.relative <= row.allowed <= 1e-10 for row in rows)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_wrong_rule_makes_its_own_rows_wrong(dtype):
    ops = planted(
        conv=kernel_flipped_and_bias_averaged,
        relu=doubled,
        max_pool=ties_all_take_it,
        flatten=through_float16,
        softmax_cross_entropy_with_integer_labels=negated,
    )
    wrong = [row for row in compare(ops, dtype) if not row.ok]
    assert [row.name for row in wrong] == [
        *("1 conv: kernel", "1 conv: bias", "2 relu: x", "3 max_pool: x", "4 flatten: x"),
        *("6 loss: logits", *PARAMS),
    ]
    assert all(row.relative > row.allowed for row in wrong)
    # A wrong gradient is no kink. That of the pool is wrong at ties only, where differences aren't.
    assert all(
        row.difference is not None and (row.difference > 1e-6) == (row.name != "3 max_pool: x")
        for row in wrong
    )


def test_a_wrong_rule_leaves_the_parameters_right_that_it_does_not_reach():
    rows = compare(planted(dense=bias_nan, relu=doubled), "float64")
    wrong = {row.name for row in rows if not row.ok}
    assert wrong == {"2 relu: x", "5 dense: bias", "conv/bias", "conv/kernel", "logits/bias"}


def test_differences_alone_see_a_wrong_rule_that_autodiff_shares():
    ops = planted(relu=doubled)

    def apply(params, state, x, *, ops, train, key):
        return ops.relu(x + params["bias"]), state

    params, x = {"bias": np.array([0.3, -0.2])}, np.array([[1.0, 2.0], [-1.0, 0.5]])
    relu, loss, bias = compare_model(
        SimpleNamespace(apply=apply),
        *(params, {}, x, np.array([0, 1])),
        manual=ops,
        autodiff=ops,
        dtype="float64",
        key=jax.random.key(1),
    )
    assert (relu.relative, relu.ok) == (0, False)
    assert loss.ok
    assert not bias.ok


def test_draw_biases_leaves_what_is_not_zero():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.zeros(2, jnp.bfloat16)}
    drawn = draw_biases(params, 0)
    assert drawn["kernel"] is params["kernel"]
    assert drawn["bias"].dtype == jnp.bfloat16
    assert drawn["bias"].all()
