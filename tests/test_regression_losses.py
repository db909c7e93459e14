import jax.numpy as jnp
import optax
import pytest
from checking import assert_same_vjp, draw

import jaxcnn

NAMES = ["squared_error", "l2_loss", "huber_loss"]


@pytest.mark.parametrize("name", NAMES)
def test_same_as_optax(name):
    manual, original = getattr(jaxcnn, name), getattr(optax, name)
    p, y = draw(0, (3, 4), (3, 4))
    assert_same_vjp(manual, original, 2 * p, y)
    assert_same_vjp(manual, original, p)


@pytest.mark.parametrize("shape", [(), (4,), (3, 1)])
def test_delta_is_differentiable(shape):
    p, y, delta = draw(0, (3, 4), (3, 4), shape)
    manual, original = (
        lambda p, y, delta, f=f: f(p, y, delta=delta) for f in (jaxcnn.huber_loss, optax.huber_loss)
    )
    assert_same_vjp(manual, original, p, y, jnp.abs(delta))


@pytest.mark.parametrize("name", NAMES)
def test_bad_arguments_name_function_argument_and_value(name):
    loss = getattr(jaxcnn, name)
    with pytest.raises(ValueError, match=rf"{name}: `targets` of shape \(3,\)"):
        loss(jnp.ones(2), jnp.ones(3))
    with pytest.raises(TypeError, match=f"{name}: `predictions` must have a floating dtype"):
        loss(jnp.arange(3))
