"""Run by test_devices.py: the same training on one, four and eight devices of one host."""

import jax
import numpy as np
import optax

import jaxcnn
from jaxcnn.training import devices
from jaxcnn.training.data import Split
from jaxcnn.training.loop import Epoch, train
from jaxcnn.training.step import Recipe, start

RNG = np.random.default_rng(0)


def split(images: int) -> Split:
    return Split(RNG.integers(0, 256, (images, 6, 6, 2), np.uint8), RNG.integers(0, 5, images))


class Model:
    """What needs the whole batch, batch norm and dropout, and what does not."""

    @staticmethod
    def init(key):
        keys = jax.random.split(key, 2)
        params = {
            "conv": jax.random.normal(keys[0], (3, 3, 2, 4)) / 4,
            "scale": np.ones(4),
            "dense": jax.random.normal(keys[1], (144, 5)) / 12,
        }
        return params, {"mean": np.zeros(4)}

    @staticmethod
    def apply(params, state, x, *, ops, train=False, key=None, axis_name=None):
        x = ops.conv(x, params["conv"])
        if train:
            x, (mean, _) = ops.batch_norm(x, params["scale"], None, axis_name=axis_name)
            state = {"mean": 0.9 * state["mean"] + 0.1 * mean}
        x = ops.flatten(ops.relu(x))
        if train:
            x = ops.dropout(key, x, 0.3, axis_name=axis_name)
        return ops.dense(x, params["dense"]), state


# 16, 16 and 8 images a batch, and 10, which neither four nor eight devices divide.
DATA = {40: (split(40), split(12)), 42: (split(42), split(12))}


def trained(count: int, images: int, ops=jaxcnn) -> list[Epoch]:
    mesh = devices.mesh(count) if count > 1 else None
    recipe = Recipe(optax.sgd(0.1, momentum=0.9), 1, True, "float64", mesh)
    carry = devices.everywhere(start(Model.init, recipe.optimizer, seed=1), mesh)
    return list(train(Model, ops, recipe, carry, DATA[images], epochs=2, batch_size=16, seed=2))


def assert_same(found: Epoch, wanted: Epoch) -> None:
    clocks = {"seconds", "images_per_second"}
    for name in found.metrics.keys() - clocks:
        np.testing.assert_allclose(found.metrics[name], wanted.metrics[name], rtol=1e-10)
    for one, other in zip(found[1:], wanted[1:], strict=True):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12), one, other
        )


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    for images in DATA:
        alone = trained(1, images)
        for count in (4, 8):
            for found, wanted in zip(trained(count, images), alone, strict=True):
                assert_same(found, wanted)
    # Autodiff's gradients, of the reference's rules, are divided likewise.
    for found, wanted in zip(trained(4, 40, jaxcnn.reference), trained(1, 40), strict=True):
        assert_same(found, wanted)
