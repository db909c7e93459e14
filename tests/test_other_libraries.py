"""jaxcnn's functions inside the models of other libraries: their own gradients, to the bound."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
from checking import assert_close, draw
from flax import nnx

import jaxcnn


def assert_trains_alike(manual, original, params):
    """Three steps of momentum SGD: losses and parameters agree."""
    optimizer = optax.sgd(0.1, momentum=0.9)
    runs = []
    for loss in (manual, original):
        current, state, losses = params, optimizer.init(params), []
        for _ in range(3):
            value, grads = jax.value_and_grad(loss)(current)
            updates, state = optimizer.update(grads, state)
            current = optax.apply_updates(current, updates)
            losses.append(value)
        runs.append((losses, current))
    assert runs[0][0][0] > runs[0][0][-1]
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-9), *runs)


def data():
    return jnp.asarray(draw(0, (4, 8, 8, 3))), jnp.array([0, 2, 1, 2])


def test_flax_linen():
    images, labels = data()

    def model(convolution, pool):
        layers = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        if convolution is not None:
            layers["conv_general_dilated"] = convolution
        return flax.linen.Sequential([
            flax.linen.Conv(6, (3, 3), strides=(2, 1), feature_group_count=3, **layers),
            flax.linen.relu,
            lambda x: pool(x, (2, 2), strides=(2, 2)),
            flax.linen.Conv(4, (3, 3), kernel_dilation=2, **layers),
            lambda x: x.reshape(len(x), -1),
            flax.linen.Dense(3, dtype=jnp.float64, param_dtype=jnp.float64),
        ])  # fmt: skip

    def loss(model, cross_entropy):
        return lambda params: cross_entropy(model.apply(params, images), labels).mean()

    theirs = model(None, flax.linen.max_pool)
    params = jax.jit(theirs.init)(jax.random.key(0), images)
    ours = model(jaxcnn.conv_general_dilated, jaxcnn.max_pool)
    assert_trains_alike(
        loss(ours, jaxcnn.softmax_cross_entropy_with_integer_labels),
        loss(theirs, optax.softmax_cross_entropy_with_integer_labels),
        params,
    )


def test_flax_nnx():
    images, _ = data()

    def layer(**keywords):
        return nnx.Conv(
            3, 4, (3, 3), strides=2, dtype=jnp.float64, param_dtype=jnp.float64,
            rngs=nnx.Rngs(0), **keywords,
        )  # fmt: skip

    ours, theirs = layer(conv_general_dilated=jaxcnn.conv_general_dilated), layer()

    def loss(pool):
        return lambda layer: (pool(layer(images), (2, 2)) ** 2).sum()

    found = nnx.grad(loss(jaxcnn.min_pool))(ours)
    wanted = nnx.grad(loss(nnx.min_pool))(theirs)
    jax.tree.map(assert_close, nnx.to_pure_dict(found), nnx.to_pure_dict(wanted))
    assert np.isfinite(found.kernel[...]).all()
