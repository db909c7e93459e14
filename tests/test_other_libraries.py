"""jaxcnn's functions inside the models of other libraries: they train as with the library's own.

Each model is a convolution, ReLU, a pool, a convolution and a dense layer, as a user of the library
writes it: once with the library's functions, and once with jaxcnn's in their place.
"""

import importlib

import equinox as eqx
import flax.linen
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax
from checking import assert_close, draw
from flax import nnx

import jaxcnn

IMAGES, LABELS = draw(0, (4, 8, 8, 3)), np.array([0, 2, 1, 2])
CONV = {"conv_general_dilated": jaxcnn.conv_general_dilated}
FLOAT64 = {"dtype": jnp.float64, "param_dtype": jnp.float64}


def assert_trains_alike(manual, original, params):
    """Three steps of momentum SGD on logits from parameters: losses and parameters agree."""
    optimizer = optax.sgd(0.1, momentum=0.9)
    runs = []
    for logits, module in ((manual, jaxcnn), (original, optax)):

        def loss(params, logits=logits, module=module):
            cross_entropy = module.softmax_cross_entropy_with_integer_labels
            return cross_entropy(logits(params), LABELS).mean()

        @jax.jit
        def step(params, state, loss=loss):
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(grads, state)
            return optax.apply_updates(params, updates), state, value

        current, state, losses = params, optimizer.init(params), []
        for _ in range(3):
            current, state, value = step(current, state)
            losses.append(value)
        runs.append((losses, current))
    assert runs[0][0][0] > runs[0][0][-1]
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-9), *runs)


def flat(x):
    return x.reshape(len(x), -1)


def test_flax_linen():
    def model(relu, pool, convolution):
        return flax.linen.Sequential([
            flax.linen.Conv(
                6, (3, 3), strides=(2, 1), feature_group_count=3, **convolution, **FLOAT64
            ),
            relu,
            lambda x: pool(x, (2, 2), strides=(2, 2)),
            flax.linen.Conv(4, (3, 3), kernel_dilation=2, **convolution, **FLOAT64),
            flat,
            flax.linen.Dense(3, **FLOAT64),
        ])  # fmt: skip

    ours = model(jaxcnn.relu, jaxcnn.max_pool, CONV)
    theirs = model(flax.linen.relu, flax.linen.max_pool, {})
    assert_trains_alike(
        lambda params: ours.apply(params, IMAGES),
        lambda params: theirs.apply(params, IMAGES),
        jax.jit(theirs.init)(jax.random.key(0), IMAGES),
    )


def test_flax_nnx():
    def model(relu, pool, convolution):
        rngs = nnx.Rngs(0)
        return nnx.Sequential(
            nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs, **convolution, **FLOAT64),
            relu,
            lambda x: pool(x, (2, 2)),
            nnx.Conv(6, 4, (3, 3), rngs=rngs, **convolution, **FLOAT64),
            flat,
            nnx.Linear(36, 3, rngs=rngs, **FLOAT64),
        )

    ours, _ = nnx.split(model(jaxcnn.relu, jaxcnn.min_pool, CONV))
    theirs, params = nnx.split(model(nnx.relu, nnx.min_pool, {}))
    assert_trains_alike(
        lambda params: nnx.merge(ours, params)(jnp.asarray(IMAGES)),
        lambda params: nnx.merge(theirs, params)(jnp.asarray(IMAGES)),
        params,
    )


class HaikuConv(hk.Module):
    """`hk.Conv2D`, as far as it is needed here."""

    def __init__(self, output_channels, kernel_shape, name=None):
        super().__init__(name)
        self.channels, self.taps = output_channels, kernel_shape

    def __call__(self, x):
        shape = (*self.taps, x.shape[-1], self.channels)
        kernel = hk.get_parameter("w", shape, x.dtype, hk.initializers.VarianceScaling())
        return jaxcnn.conv(x, kernel, hk.get_parameter("b", shape[-1:], x.dtype, jnp.zeros))


def test_haiku():
    def model(conv, relu, pool):
        def logits(x):
            x = pool(relu(conv(6, (3, 3), name="first")(x)))
            return hk.Linear(3)(flat(conv(4, (3, 2), name="second")(x)))

        return hk.without_apply_rng(hk.transform(logits))

    ours = model(HaikuConv, jaxcnn.relu, lambda x: jaxcnn.max_pool(x, (2, 2), strides=(2, 2)))
    theirs = model(hk.Conv2D, jax.nn.relu, lambda x: hk.max_pool(x, (2, 2, 1), (2, 2, 1), "VALID"))
    assert_trains_alike(
        lambda params: ours.apply(params, IMAGES),
        lambda params: theirs.apply(params, IMAGES),
        jax.jit(theirs.init)(jax.random.key(0), IMAGES),
    )


class EquinoxConv(eqx.nn.Conv2d):
    """Channels first, and of one image."""

    def __call__(self, x, *, key=None):
        y = jaxcnn.conv_general_dilated(
            x[None], self.weight, self.stride, self.padding, rhs_dilation=self.dilation
        )
        return y[0] + self.bias


def equinox_pool(x):
    """Here the channels are an axis of the batch: jaxcnn pools the axes before the last."""
    return jaxcnn.max_pool(x[..., None], (2, 2), (2, 2))[..., 0]


def test_equinox():
    def model(conv, relu, pool):
        keys = jax.random.split(jax.random.key(0), 3)
        return eqx.nn.Sequential([
            conv(3, 6, 3, stride=(2, 1), padding=1, key=keys[0]),
            eqx.nn.Lambda(relu),
            eqx.nn.Lambda(pool),
            conv(6, 4, 2, dilation=(1, 2), key=keys[1]),
            eqx.nn.Lambda(jnp.ravel),
            eqx.nn.Linear(8, 3, key=keys[2]),
        ])  # fmt: skip

    def of_parameters(model):
        """The parameters as a list, for the classes in the models' trees are not the same."""
        params, static = eqx.partition(model, eqx.is_array)
        leaves, tree = jax.tree.flatten(params)

        def logits(leaves):
            model = eqx.combine(jax.tree.unflatten(tree, leaves), static)
            return jax.vmap(model)(IMAGES.transpose(0, 3, 1, 2))

        return logits, leaves

    ours, _ = of_parameters(model(EquinoxConv, jaxcnn.relu, equinox_pool))
    theirs, params = of_parameters(model(eqx.nn.Conv2d, jax.nn.relu, eqx.nn.MaxPool2d(2, 2)))
    assert_trains_alike(ours, theirs, params)


def test_keras(monkeypatch, tmp_path):
    monkeypatch.setenv("KERAS_BACKEND", "jax")  # both are read on import
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    keras = importlib.import_module("keras")
    layers = keras.layers

    class Conv2D(layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            kernel = jnp.asarray(kernel)  # it is a variable of Keras
            return jaxcnn.conv(inputs, kernel, strides=self.strides, padding=self.padding)

    class MaxPooling2D(layers.MaxPooling2D):
        def call(self, inputs):
            return jaxcnn.max_pool(inputs, self.pool_size, self.strides, self.padding)

    def model(conv, relu, pool):
        return keras.Sequential([
            keras.Input((8, 8, 3), dtype="float64"),
            conv(6, 3, strides=2, padding="same", activation=relu, dtype="float64"),
            pool(2, 1, padding="same", dtype="float64"),
            conv(4, 2, dtype="float64"),
            layers.Flatten(dtype="float64"),
            layers.Dense(3, dtype="float64"),
        ])  # fmt: skip

    ours = model(Conv2D, jaxcnn.relu, MaxPooling2D)
    theirs = model(layers.Conv2D, "relu", layers.MaxPooling2D)
    assert_trains_alike(
        lambda params: ours.stateless_call(params, [], IMAGES)[0],
        lambda params: theirs.stateless_call(params, [], IMAGES)[0],
        [variable.value for variable in theirs.trainable_variables],
    )
