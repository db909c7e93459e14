"""The models: the sizes that their papers print, and one gradient on both namespaces."""

import math
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, draw

import jaxcnn
from jaxcnn.models import lenet5, mobilenet, resnet, vgg

IMAGENET = {"num_classes": 1000}


@pytest.mark.parametrize(
    ("model", "options", "size", "parameters", "multiplications"),
    [
        # LeCun et al., 1998, table of layers, with dense layers from C5 on and S4 whole.
        (lenet5, {}, 28, 61_706, 28**2 * 25 * 6 + 10**2 * 150 * 16 + 400 * 120 + 120 * 84 + 840),
        # Simonyan and Zisserman, 2014: VGG-16 has 14.7 million parameters in its convolutions.
        (vgg, {"stages": vgg.VGG16, "units": 1, "num_classes": 1}, 224, 14_714_688 + 515, 15.35e9),
        # He et al., 2015: 1.8 and 3.8 billion; the second with the stride in the 1x1 convolution,
        # and 4.1 with it in the 3x3. 11.2 million parameters on CIFAR.
        (resnet, {"stem": "imagenet", **IMAGENET}, 224, 11_689_512, 1.814e9),
        (resnet, {"depth": 50, "stem": "imagenet", **IMAGENET}, 224, 25_557_032, 4.09e9),
        (resnet, {}, 32, 11_173_962, 0.556e9),
        # Howard et al., 2017: 4.2 million, and 569 million multiplications.
        (partial(mobilenet.apply, stem_strides=2), IMAGENET, 224, 4_231_976, 569e6),
    ],
)
def test_sizes(model, options, size, parameters, multiplications):
    module = mobilenet if isinstance(model, partial) else model
    apply = model if isinstance(model, partial) else model.apply
    channels = 1 if module is lenet5 else 3
    params, state = jax.eval_shape(partial(module.init, **options), jax.random.key(0))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == parameters

    total = 0

    def counted(operation, of=None):
        def call(x, kernel, *args, **keywords):
            nonlocal total
            y = operation(x, kernel, *args, **keywords)
            geometry = {name: value for name, value in keywords.items() if "pool" not in name}
            outputs = jax.eval_shape(partial(of or operation, **geometry), x, kernel).shape
            total += math.prod(outputs) * math.prod(kernel.shape[:-1])
            return y

        return call

    convolutions = ("conv", "conv_relu", "conv_relu_max_pool")
    ops = SimpleNamespace(
        **{name: getattr(jaxcnn, name) for name in jaxcnn.__all__}
        | {name: counted(getattr(jaxcnn, name), jaxcnn.conv) for name in convolutions}
        | {"dense": counted(jaxcnn.dense)}
    )
    images = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    jax.eval_shape(partial(apply, ops=ops), params, state, images)
    assert total == pytest.approx(multiplications, rel=0.002)


SMALL = [
    pytest.param(lenet5, {"channels": 3}, 28, id="lenet5"),
    pytest.param(vgg, {"stages": ((4, 4), (6, 6), (8, 8)), "units": 8}, 9, id="vgg"),
    pytest.param(resnet, {"width": 3}, 9, id="resnet18"),
    pytest.param(resnet, {"depth": 50, "width": 2, "stem": "imagenet"}, 33, id="resnet50"),
    pytest.param(mobilenet, {"width": 2}, 9, id="mobilenet"),
]


@pytest.mark.parametrize(("model", "options", "size"), SMALL)
def test_values_and_gradients_are_those_of_the_reference(model, options, size, monkeypatch):
    for depth in resnet.BLOCKS:  # one block of each kind is enough
        monkeypatch.setitem(resnet.BLOCKS, depth, (2, 1, 1, 1))
    init = partial(model.init, dtype=jnp.float64, **options)
    params, state = drawn(jax.jit(init)(jax.random.key(0)))
    images, labels = jnp.asarray(draw(1, (4, size, size, 3))), jnp.array([0, 9, 3, 3])

    def loss(params, images, ops):
        logits, moved = model.apply(
            params, state, images, ops=ops, train=True, key=jax.random.key(1)
        )
        losses = ops.softmax_cross_entropy_with_integer_labels(logits, labels)
        # The state's cotangent, too, which training never has.
        return losses.mean() + sum(map(jnp.sum, jax.tree.leaves(moved))), (logits, moved)

    found, wanted = (
        jax.jit(jax.value_and_grad(partial(loss, ops=ops), (0, 1), has_aux=True))(params, images)
        for ops in (jaxcnn, jaxcnn.reference)
    )
    jax.tree.map(lambda a, b: assert_close(a, b, 1e-9), found, wanted)
    assert jax.tree.structure(found[0][1][1]) == jax.tree.structure(state)


@pytest.mark.parametrize(("model", "options", "size"), SMALL)
def test_inference_is_the_reference_s_and_leaves_the_state_alone(model, options, size):
    init = partial(model.init, dtype=jnp.float64, **options)
    params, state = drawn(jax.jit(init)(jax.random.key(0)))
    images = jnp.asarray(draw(1, (2, size, size, 3)))
    (found, after), (wanted, _) = (
        jax.jit(partial(model.apply, ops=ops))(params, state, images)
        for ops in (jaxcnn, jaxcnn.reference)
    )
    assert_close(found, wanted, 1e-9)
    jax.tree.map(np.testing.assert_array_equal, after, state)


def drawn(tree):
    """No zeros or ones: at the zeros of `init`, ties and kinks would be met."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(2)
    return jax.tree.unflatten(
        structure, [leaf + 0.1 * np.abs(rng.normal(size=leaf.shape)) for leaf in leaves]
    )


def test_the_running_moments_move_a_tenth_of_the_way():
    params, state = mobilenet.init(jax.random.key(0), width=2)
    images = jnp.asarray(draw(1, (4, 8, 8, 3)), jnp.float32)
    _, moved = jax.jit(partial(mobilenet.apply, train=True))(params, state, images)
    kernel = np.asarray(params["stem"]["kernel"], np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
    )
    first = np.einsum("nhwckl,klco->nhwo", windows, kernel)
    np.testing.assert_allclose(moved["stem"]["mean"], 0.1 * first.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(moved["stem"]["var"], 0.9 + 0.1 * first.var((0, 1, 2)), atol=1e-6)


def test_dropout_draws_by_the_key_in_training_only():
    params, state = vgg.init(jax.random.key(0), stages=((4,),), units=32)
    images = jnp.ones((1, 4, 4, 3), jnp.float32)

    def logits(**options):
        return np.asarray(vgg.apply(params, state, images, **options)[0])

    first, second = (logits(train=True, key=jax.random.key(seed)) for seed in (0, 1))
    assert (first != second).any()
    np.testing.assert_array_equal(logits(), logits(key=jax.random.key(0)))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"depth": 20}, "`depth` must be one of .18, 34"), ({"stem": "mnist"}, "got 'mnist'")],
)
def test_what_resnet_there_is_not(options, message):
    with pytest.raises(ValueError, match=message):
        resnet.init(jax.random.key(0), **options)


@pytest.mark.parametrize(("model", "options", "size"), SMALL)
def test_a_divided_batch_is_trained_on_as_a_whole_one(model, options, size, monkeypatch):
    for depth in resnet.BLOCKS:
        monkeypatch.setitem(resnet.BLOCKS, depth, (2, 1, 1, 1))
    init = partial(model.init, dtype=jnp.float64, **options)
    params, state = drawn(jax.jit(init)(jax.random.key(0)))
    images = jnp.asarray(draw(1, (4, size, size, 3)))
    apply = partial(model.apply, params, state, train=True, key=jax.random.key(1))
    logits, moved = jax.jit(apply)(images)
    divided = jax.jit(jax.vmap(partial(apply, axis_name="batch"), axis_name="batch"))
    parts, states = divided(images.reshape(2, 2, size, size, 3))
    assert_close(parts.reshape(logits.shape), logits, 1e-9)
    jax.tree.map(lambda each, whole: assert_close(each[1], whole, 1e-9), states, moved)
