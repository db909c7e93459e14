import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, assert_same_vjp, draw

import jaxcnn

NAMES = ["softmax", "log_softmax"]


@pytest.mark.parametrize("axis", [-1, 0, (0, 2), None, [1, 2]])
@pytest.mark.parametrize("name", NAMES)
def test_same_as_jax_nn(name, axis):
    original_axis = tuple(axis) if isinstance(axis, list) else axis
    assert_same_vjp(
        lambda x: getattr(jaxcnn, name)(x, axis),
        lambda x: getattr(jax.nn, name)(x, original_axis),
        draw(0, (3, 4, 2)),
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_jacobian_is_that_of_the_definition(name):
    x = draw(0, (5,))
    p = np.exp(x) / np.exp(x).sum()
    wanted = np.diag(p) - np.outer(p, p) if name == "softmax" else np.eye(5) - p
    assert_close(jax.jacrev(getattr(jaxcnn, name))(x), wanted)


@pytest.mark.parametrize("where", [(3, 4), (1, 4), (3, 1)])
def test_softmax_over_some_elements_is_jax_nn_s(where):
    mask = np.random.default_rng(3).random(where) < 0.7
    assert_same_vjp(
        lambda x: jaxcnn.softmax(x, where=mask),
        lambda x: jax.nn.softmax(x, where=mask),
        draw(0, (3, 4)),
    )


def test_log_softmax_over_some_elements_is_jax_nn_s():
    """There autodiff of -inf is NaN, so that the cotangent must leave those elements out."""
    x, mask = draw(0, (3, 4)), np.array([True, True, False, True])
    np.testing.assert_array_equal(
        jnp.isneginf(jaxcnn.log_softmax(x, where=mask)), ~mask[None].repeat(3, 0)
    )
    some = x[:, mask]
    y, vjp = jax.vjp(lambda x: jaxcnn.log_softmax(x, where=mask), x)
    wanted, wanted_vjp = jax.vjp(jax.nn.log_softmax, some)
    dy = draw(1, (3, 4))
    assert_close(y[:, mask], wanted)
    dx = vjp(jnp.asarray(dy))[0]
    assert_close(dx[:, mask], wanted_vjp(jnp.asarray(dy[:, mask]))[0])
    assert (dx[:, ~mask] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_logits_of_1e4_are_finite_in_float32(name):
    x = jnp.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], jnp.float32)
    y, vjp = jax.vjp(getattr(jaxcnn, name), x)
    assert jnp.isfinite(y).all()
    assert jnp.isfinite(vjp(jnp.ones_like(y))[0]).all()
    assert y.dtype == jnp.float32


@pytest.mark.parametrize("kept", [(-np.inf, -np.inf), (np.nan, 2.0), (np.inf, 0.0)])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_finite_does_not_reach_what_takes_no_part(name, kept):
    x, where = jnp.array([1.0, *kept]), jnp.array([False, True, True])

    def cotangent(ops):
        _, pull = jax.vjp(lambda x: getattr(ops, name)(x, where=where), x)
        return pull(jnp.ones(3))[0]

    found = cotangent(jaxcnn)
    assert found[0] == 0
    np.testing.assert_array_equal(found, cotangent(jax.nn))


def test_an_infinite_logit_is_a_probability_of_zero():
    x = jnp.array([0.0, -jnp.inf, 1.0])
    y, vjp = jax.vjp(jaxcnn.softmax, x)
    assert_close(y, jax.nn.softmax(x))
    assert vjp(jnp.ones(3))[0][1] == 0


def test_second_derivatives():
    x, v = draw(0, (4,), (4,))
    for name in NAMES:
        manual, original = (lambda x, f=f: f(x) @ v for f in map(_named(name), (jaxcnn, jax.nn)))
        assert_close(jax.hessian(manual)(x), jax.hessian(original)(x))


def _named(name):
    return lambda module: getattr(module, name)


def test_integers_as_in_jax_nn():
    assert_close(jaxcnn.softmax(jnp.arange(3)), jax.nn.softmax(jnp.arange(3)))


def test_bad_arguments():
    with pytest.raises(TypeError, match="softmax: `x` must be an array, got list"):
        jaxcnn.softmax([1.0, 2.0])
    with pytest.raises(TypeError, match="log_softmax: `where` must have dtype bool, got float64"):
        jaxcnn.log_softmax(jnp.ones(3), where=jnp.ones(3))


@pytest.mark.parametrize("keywords", [
    {}, {"axis": 1}, {"axis": (0, 2), "keepdims": True}, {"axis": -1, "where": "mask"},
])  # fmt: skip
@pytest.mark.parametrize("b", [None, (3, 4, 2), (2,), ()])
def test_logsumexp_is_jax_nn_s(b, keywords):
    mask = np.random.default_rng(3).random((3, 4, 2)) < 0.7
    keywords = {key: mask if value == "mask" else value for key, value in keywords.items()}
    factors = () if b is None else (np.abs(draw(1, b)) + 0.1,)

    def call(module):
        return lambda a, *b: module.logsumexp(a, **keywords, **({"b": b[0]} if b else {}))

    assert_same_vjp(call(jaxcnn), call(jax.nn), draw(0, (3, 4, 2)), *factors)


def test_logsumexp_s_sign_and_factors_of_zero():
    a, b = draw(0, (6,)), np.array([1.0, -2, 0, 3, -4, 0.5])
    for factors in (b, -b):
        y, sign = jaxcnn.logsumexp(a, b=factors, return_sign=True)
        wanted, wanted_sign = jax.nn.logsumexp(a, b=factors, return_sign=True)
        assert_close(y, wanted)
        assert sign == wanted_sign
        assert_same_vjp(
            lambda a, b: jaxcnn.logsumexp(a, b=b, return_sign=True)[0],
            lambda a, b: jax.nn.logsumexp(a, b=b, return_sign=True)[0],
            a,
            factors,
        )
    assert jnp.isnan(jaxcnn.logsumexp(a, b=-jnp.ones(6)))


def test_logsumexp_of_nothing_and_of_large_logits():
    for a in (np.zeros((0,)), np.full((3,), -np.inf), np.array([np.inf, 0.0])):
        np.testing.assert_array_equal(jaxcnn.logsumexp(a), jax.nn.logsumexp(a))
    a = jnp.array([1e4, 1e4 - 1], jnp.float32)
    assert_close(jax.grad(jaxcnn.logsumexp)(a), 1 / (1 + np.exp([-1.0, 1.0])), rtol=1e-6)
