"""The map against gradients that are known, autodiff's, and differences in float64."""

from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

import jaxcnn
from jaxcnn.models import lenet5
from jaxcnn.training.saliency import saliency
from jaxcnn.training.trained import Trained

RNG = np.random.default_rng(0)
KERNEL, BIAS = RNG.normal(size=(2 * 3 * 3, 4)), RNG.normal(size=4)


def linear(
    params: dict[str, Any], state: dict[str, Any], x: Array, *, ops: ModuleType
) -> tuple[Array, dict[str, Any]]:
    return ops.dense(ops.flatten(x), **params), state


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("bfloat16", 2**-7)])
def test_the_map_of_a_linear_model_is_its_kernel(dtype: str, error: float) -> None:
    params = {"kernel": jnp.float32(KERNEL), "bias": jnp.float32(BIAS)}
    model: Any = SimpleNamespace(apply=linear)
    trained = Trained(model, params, {}, ["a", "b", "c", "d"], (2, 3, 3), dtype)
    images = RNG.random((9, 2, 3, 3)).astype(np.float32)
    probabilities, maps = saliency(trained, images)
    logits = images.reshape(9, -1) @ KERNEL + BIAS
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, atol=4 * error)
    assert len(set(probabilities.argmax(1))) > 1
    assert (probabilities.dtype, maps.dtype, maps.shape) == (np.float32, np.float32, (9, 2, 3))
    for found, likely in zip(maps, probabilities.argmax(1), strict=True):
        kernel = np.abs(KERNEL[:, likely]).reshape(2, 3, 3)
        np.testing.assert_allclose(found, kernel.max(-1), rtol=error)


def test_the_map_of_lenet5() -> None:
    params, _ = lenet5.init(jax.random.key(0), channels=3)
    # Biases that are not zero: no ReLU is at its kink.
    params = jax.tree.map(lambda x: x if x.any() else RNG.uniform(-0.1, 0.1, x.shape), params)
    params = jax.tree.map(jnp.float32, params)
    images = RNG.random((2, 28, 28, 3)).astype(np.float32)
    names = [str(n) for n in range(10)]
    probabilities, maps = saliency(Trained(lenet5, params, {}, names, (28, 28, 3)), images)
    likely = probabilities.argmax(1)

    with jax.enable_x64(True):

        def chosen(x: Array) -> tuple[Array, Array]:
            wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
            logits, _ = lenet5.apply(wide, {}, x, ops=jaxcnn.reference)
            logits = logits[jnp.arange(2), likely]
            return logits.sum(), logits

        x = images.astype(np.float64)
        both = jax.jit(jax.grad(chosen, has_aux=True))  # compiled once, for its values as well
        gradient = np.asarray(both(x)[0])
        np.testing.assert_allclose(maps, np.abs(gradient).max(-1), rtol=1e-3, atol=1e-5)

        for n, row, column in [(0, 10, 12), (0, 14, 14), (1, 0, 27), (1, 20, 9)]:
            channel = np.abs(gradient[n, row, column]).argmax()
            step = np.zeros_like(x)
            step[n, row, column, channel] = 1e-6
            difference = (both(x + step)[1] - both(x - step)[1])[n] / 2e-6
            np.testing.assert_allclose(maps[n, row, column], abs(difference), rtol=1e-3, atol=1e-5)
