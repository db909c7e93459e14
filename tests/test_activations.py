import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_same_vjp, draw

import jaxcnn


def test_relu_is_jax_nn_s():
    assert_same_vjp(jaxcnn.relu, jax.nn.relu, draw(0, (3, 4)))


def test_the_derivative_at_the_kink_is_zero_in_every_order():
    assert jax.grad(jaxcnn.relu)(0.0 * jnp.ones(())) == 0
    square = lambda x: jaxcnn.relu(x) ** 2  # noqa: E731
    assert jax.hessian(square)(jnp.zeros(())) == 0
    assert jax.hessian(square)(jnp.ones(())) == 2


def test_extremes_go_through():
    x = jnp.array([-jnp.inf, jnp.inf, jnp.nan, -0.0])
    np.testing.assert_array_equal(jaxcnn.relu(x), jax.nn.relu(x))
    dx = jax.grad(lambda x: jaxcnn.relu(x).sum())(x)
    np.testing.assert_array_equal(dx, jax.grad(lambda x: jax.nn.relu(x).sum())(x))


def test_integers_are_refused():
    with pytest.raises(TypeError, match="relu: `x` must have a floating dtype, got int32"):
        jaxcnn.relu(jnp.arange(3, dtype=jnp.int32))
