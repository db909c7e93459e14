from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, assert_same_vjp, draw

import jaxcnn
from jaxcnn import reference
from jaxcnn.regularization import dropout, dropout_bwd

KEYS = [jax.random.key(3), jax.random.PRNGKey(3)]


def flax_dropout(key, rate):
    return lambda x: nn.Dropout(rate, deterministic=False).apply({}, x, rng=key)


@pytest.mark.parametrize("key", KEYS, ids=["typed", "raw"])
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0, 0, 1])
def test_it_is_flax_s(rate, key):
    x = draw(0, (4, 5, 3))
    assert_same_vjp(lambda x: dropout(key, x, rate), flax_dropout(key, float(rate)), x)


def test_the_definition():
    """Kept and scaled, or zero; kept as often as said; the gradient goes where the value went."""
    x, dy = draw(0, (200, 50), (200, 50))
    y, vjp = jax.vjp(lambda x: dropout(KEYS[0], x, 0.2), x)
    kept = np.asarray(y) != 0
    assert_close(y, kept * x / 0.8)
    assert_close(vjp(jnp.asarray(dy))[0], kept * dy / 0.8)
    assert abs(kept.mean() - 0.8) < 5 * np.sqrt(0.8 * 0.2 / x.size)


def test_another_key_drops_others():
    x = jnp.ones(100)
    ys = [dropout(jax.random.key(k), x, 0.5) for k in (0, 0, 1)]
    np.testing.assert_array_equal(ys[0], ys[1])
    assert (ys[0] != ys[2]).any()


@pytest.mark.parametrize("key", KEYS, ids=["typed", "raw"])
def test_a_key_has_no_gradient(key):
    x = jnp.asarray(draw(0, (5,)))
    y, vjp = jax.vjp(lambda key, x: dropout(key, x, 0.5), key, x)
    dkey, dx = vjp(jnp.ones_like(y))
    assert dkey.dtype == jax.dtypes.float0
    assert dx.dtype == x.dtype


@pytest.mark.parametrize("rate", [0.5, 1.0])
def test_second_derivatives_are_flax_s(rate):
    x = draw(0, (6,))
    found, wanted = (
        jax.jit(jax.hessian(lambda x, f=f: (f(x) ** 3).sum()))(x)
        for f in (lambda x: dropout(KEYS[0], x, rate), flax_dropout(KEYS[0], rate))
    )
    assert_close(found, wanted)


@pytest.mark.parametrize("split", [True, False])
def test_vmap_is_a_loop(split):
    x, keys = draw(0, (3, 8)), jax.random.split(KEYS[0], 3)

    @jax.jit
    def derivative(key, x):
        return jax.grad(lambda x: (dropout(key, x, 0.5) ** 2).sum())(x)

    axes, key = ((0, 0), keys) if split else ((None, 0), keys[0])
    found = jax.jit(jax.vmap(derivative, axes))(key, x)
    for k in range(3):
        assert_close(found[k], derivative(keys[k if split else 0], x[k]))


def test_what_is_dropped_is_gone_even_if_it_is_nan():
    x, dy = jnp.full(100, jnp.nan), jnp.full(100, jnp.inf)
    y, vjp = jax.vjp(lambda x: dropout(KEYS[0], x, 0.5), x)
    dropped = np.asarray(dropout(KEYS[0], jnp.ones(100), 0.5)) == 0
    np.testing.assert_array_equal(y, np.where(dropped, 0, np.nan))
    np.testing.assert_array_equal(vjp(dy)[0], np.where(dropped, 0, np.inf))


def test_the_mask_is_kept_as_bytes():
    x = jnp.ones((64, 64), jnp.float32)
    _, pullback = jax.vjp(lambda x: dropout(KEYS[0], x, 0.5), x)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(pullback) if leaf is not x}
    assert jnp.dtype(bool) in dtypes
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(pullback))
    assert kept <= x.size + x.nbytes  # x itself, for its type
    assert (dropout_bwd(0.5, None, (x > 0, x), x)[1] == 2).all()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_the_dtype_is_the_input_s(dtype):
    x = jnp.asarray(draw(0, (4, 5)), dtype)
    rtol = 2 * float(jnp.finfo(dtype).eps)  # XLA may divide by multiplying
    assert_same_vjp(lambda x: dropout(KEYS[0], x, 0.3), flax_dropout(KEYS[0], 0.3), x, rtol=rtol)


@pytest.mark.parametrize("shape", [(0, 3), ()])
def test_no_elements_and_one(shape):
    x = draw(0, shape)
    assert_same_vjp(lambda x: dropout(KEYS[0], x, 0.3), flax_dropout(KEYS[0], 0.3), x)


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_bad_rates_name_function_argument_and_value(rate):
    with pytest.raises(ValueError, match=f"dropout: `rate` must be between 0 and 1, got {rate}"):
        dropout(KEYS[0], jnp.ones(3), rate)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((0, jnp.ones(3), 0.5), TypeError, "`key` must be a key of jax.random, got"),
        ((jnp.ones(2), jnp.ones(3), 0.5), TypeError, "`key` must be a key .* got float"),
        ((jax.random.split(KEYS[0], 2), jnp.ones(3), 0.5), ValueError, r"`key` must be one .* \(2"),
        ((KEYS[0], jnp.ones(3, int), 0.5), TypeError, "`x` must have a floating dtype, got int"),
        ((KEYS[0], jnp.ones(3), "0.5"), TypeError, "`rate` must be a static number, got '0.5'"),
    ],
)
def test_bad_arguments_name_function_argument_and_value(args, error, message):
    with pytest.raises(error, match=f"dropout: {message}"):
        dropout(*args)


def test_a_traced_rate_is_refused():
    with pytest.raises(TypeError, match="dropout: `rate` must be a static number"):
        jax.jit(lambda rate: dropout(KEYS[0], jnp.ones(3), rate))(0.5)


def test_devices_drop_what_one_would_have_dropped_of_the_whole():
    x, dy = jnp.asarray(draw(0, (12, 5))), jnp.asarray(draw(1, (12, 5)))
    key = jax.random.key(3)
    whole, pull = jax.vjp(partial(dropout, key, rate=0.4), x)
    for ops in (jaxcnn, reference):
        part = partial(ops.dropout, key, rate=0.4, axis_name="batch")
        grad = lambda x, dy, part=part: jax.vjp(part, x)[1](dy)[0]  # noqa: E731
        for function, arguments, expected in ((part, [x], whole), (grad, [x, dy], pull(dy)[0])):
            mapped = jax.vmap(function, axis_name="batch")
            found = mapped(*(each.reshape(4, 3, 5) for each in arguments))
            np.testing.assert_array_equal(found.reshape(12, 5), expected)
    again = jax.vmap(partial(dropout, key, rate=0.4, axis_name=["batch"]), axis_name="batch")
    np.testing.assert_array_equal(again(x.reshape(4, 3, 5)).reshape(12, 5), whole)


def test_a_scalar_has_nothing_to_divide():
    with pytest.raises(ValueError, match="dropout: a scalar `x` has no axis to divide"):
        dropout(jax.random.key(0), jnp.ones(()), 0.5, axis_name="batch")
