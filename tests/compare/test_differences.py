import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.compare.differences import compare_with_differences

CENTRE = np.zeros(20)
ASIDE = np.linspace(-1.05, 1, 20)


def compare(f, x, factor=1.0, dy=None):
    dy = np.linspace(0.5, 1.5, x.size).reshape(x.shape) if dy is None else dy

    def named(values):
        return f(values["x"])

    def gradient(values):
        return {"x": factor * jax.vjp(f, values["x"])[1](jax.tree.map(jnp.asarray, dy))[0]}

    rng = np.random.default_rng(0)
    return compare_with_differences(named, gradient, {"x": x}, "x", dy, rng)


@pytest.mark.parametrize("f", [jnp.sin, jnp.exp, lambda x: x**3, jax.nn.relu, jnp.abs])
@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 1.0 + 1e-5, 2.0])
def test_a_wrong_gradient_is_wrong_and_no_kink(f, factor):
    difference = compare(f, ASIDE, factor)
    assert not difference.ok
    assert difference.relative is not None
    assert compare(f, ASIDE).ok
    assert compare(f, ASIDE).relative < 1e-8


@pytest.mark.parametrize("f", [jax.nn.relu, jnp.abs])
def test_next_to_a_kink_at_the_very_point_right_and_wrong_are_told_apart(f):
    # In the middle of a central difference both halves of it agree with each other.
    assert compare(f, CENTRE).ok
    assert compare(f, CENTRE).relative < 1e-6
    assert not compare(f, CENTRE, 2.0).ok


@pytest.mark.parametrize("position", [1e-6, 2e-6, 3.3e-6, 5e-6, 9e-6])
def test_a_kink_inside_the_step_is_no_error_of_a_right_gradient(position):
    difference = compare(lambda x: jax.nn.relu(x - position), np.array([1.0, -1.0, 0.0]))
    assert difference.ok


def test_kinks_everywhere_are_reported_as_such():
    difference = compare(lambda x: jnp.abs(jnp.mod(1e10 * x, 1) - 0.5), ASIDE)
    assert difference.relative is None


def test_zero_gradients_agree():
    assert compare(jnp.zeros_like, ASIDE) == compare(jnp.round, ASIDE)
    assert compare(jnp.zeros_like, ASIDE).relative == 0
    assert not compare(lambda x: 0.0 * x + jnp.sin(x), ASIDE, 0.0).ok


def test_outputs_may_be_a_tree():
    difference = compare(lambda x: (x**2, {"sum": x.sum()}), ASIDE, dy=(np.ones(20), {"sum": 3.0}))
    assert difference.ok
