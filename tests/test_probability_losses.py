import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, distributions, draw, probabilities

import jaxcnn

# The formulas of the notes, and their derivatives worked out by hand.


def test_binary_cross_entropy_is_its_formula():
    p, y, dloss = probabilities(0, (3, 4)), probabilities(1, (3, 4)), draw(2, (3, 4))
    loss, vjp = jax.vjp(jaxcnn.binary_cross_entropy, p, y)
    dp, dy = vjp(jnp.asarray(dloss))
    assert_close(loss, -(y * np.log(p) + (1 - y) * np.log(1 - p)))
    assert_close(dp, (p - y) / (p * (1 - p)) * dloss)
    assert_close(dy, (np.log(1 - p) - np.log(p)) * dloss)


def test_categorical_cross_entropy_is_its_formula():
    p, y, dloss = distributions(0, (3, 4)), distributions(1, (3, 4)), draw(2, (3,))
    loss, vjp = jax.vjp(jaxcnn.categorical_cross_entropy, p, y)
    dp, dy = vjp(jnp.asarray(dloss))
    assert_close(loss, -(y * np.log(p)).sum(-1))
    assert_close(dp, -y / p * dloss[:, None])
    assert_close(dy, -np.log(p) * dloss[:, None])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("name", ["binary_cross_entropy", "categorical_cross_entropy"])
def test_probabilities_of_zero_and_one_give_finite_losses_and_gradients(name, dtype):
    p = jnp.array([[0.0, 1.0], [1.0, 0.0], [-0.5, 1.5]], dtype)
    y = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype)
    loss, vjp = jax.vjp(getattr(jaxcnn, name), p, y)
    dp, dy = vjp(jnp.ones_like(loss))
    assert loss.dtype == dp.dtype == dy.dtype == dtype
    assert all(jnp.isfinite(array).all() for array in (loss, dp, dy))
    assert loss[0].sum() > 9  # a wrong prediction, held for certain, is costly
    assert loss[1].sum() == 0
    assert dp[0, 0] < -1e4  # and its gradient still points the right way


def test_small_probabilities_are_exact():
    p = jnp.array([1e-30, 1e-6], jnp.float32)
    loss = jaxcnn.binary_cross_entropy(p, jnp.ones(2, jnp.float32))
    assert_close(loss, -np.log(np.array([1e-30, 1e-6])), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [
        ("binary_cross_entropy", ((2,), (3,)), r"`labels` of shape \(3,\)"),
        ("categorical_cross_entropy", ((), ()), "`probabilities` must have an axis"),
    ],
)
def test_bad_shapes_name_function_argument_and_value(name, shapes, message):
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        getattr(jaxcnn, name)(*map(jnp.ones, shapes))
