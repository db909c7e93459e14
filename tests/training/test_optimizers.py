"""Learning rates and optimisers."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn.training.optimizers import make_optimizer, make_schedule


def rates(name: str, epochs: int) -> np.ndarray:
    rate = make_schedule(name, 0.5, 10, epochs)
    return np.array([rate(step) for step in range(10 * epochs + 1)])


@pytest.mark.parametrize("epochs", [1, 5, 20])
def test_the_triangular_rate_rises_for_five_epochs_and_falls_to_zero(epochs: int) -> None:
    found = rates("triangular", epochs)
    np.testing.assert_allclose(found[:5], 0.01 * np.arange(1, 6), rtol=1e-5)
    top = found.argmax()
    assert found[top] < 0.5
    assert top < 50
    assert (np.diff(found[: top + 1]) > 0).all()
    assert (np.diff(found[top:]) <= 0).all()
    assert found[-1] == 0


def test_the_constant_rate_stays() -> None:
    assert (rates("constant", 3) == 0.5).all()


def test_the_cosine_rate_falls_along_half_a_period() -> None:
    expected = 0.25 * (1 + np.cos(np.pi * np.arange(31) / 30))
    np.testing.assert_allclose(rates("cosine", 3), expected, atol=1e-7)


@pytest.mark.parametrize(("epochs", "warmup"), [(1, 5), (4, 20), (20, 50)])
def test_the_cosine_rate_with_a_warmup_rises_before(epochs: int, warmup: int) -> None:
    found = rates("warmup_cosine", epochs)
    assert found[0] > 0
    np.testing.assert_allclose(np.diff(found[: warmup + 1]), 0.5 / (warmup + 1), rtol=1e-4)
    assert found[warmup] == pytest.approx(0.5)
    rest = np.arange(10 * epochs - warmup + 1) / (10 * epochs - warmup)
    np.testing.assert_allclose(found[warmup:], 0.25 * (1 + np.cos(np.pi * rest)), atol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "adamw"])
def test_optimizers_are_optax_s(name: str) -> None:
    rate = make_schedule("cosine", 0.1, 5, 1)
    theirs = {
        "sgd": optax.sgd(rate),
        "momentum": optax.sgd(rate, momentum=0.7),
        "adam": optax.adam(rate),
        "adamw": optax.adamw(rate),
    }[name]
    ours = make_optimizer(name, rate, 0.7 if name == "momentum" else 0.0)
    params, found = jnp.array([1.0, -2.0]), []
    for optimizer in (ours, theirs):
        state, updates = optimizer.init(params), params
        for gradient in (jnp.array([0.3, 2.0]), jnp.array([-1.0, 0.5])):
            updates, state = optimizer.update(gradient, state, params)
        found.append(np.asarray(updates))
    np.testing.assert_array_equal(*found)


def test_other_names_are_refused() -> None:
    with pytest.raises(ValueError, match="no optimizer 'lamb'"):
        make_optimizer("lamb", lambda step: 0.1)
    with pytest.raises(ValueError, match="no schedule 'step'"):
        make_schedule("step", 0.1, 5, 1)
