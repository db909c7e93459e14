"""A batch of no images: every function gives nothing, and parameters a gradient of zeros."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn

IMAGES, VECTORS = jnp.zeros((0, 8, 8, 4)), jnp.zeros((0, 5))
KERNEL, CHANNELS = jnp.ones((3, 3, 4, 4)), jnp.ones(4)
ACTIVATIONS = [
    "relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "sigmoid", "log_sigmoid", "glu",
    "softplus", "tanh", "hard_tanh", "hard_sigmoid", "hard_swish", "mish", "softmax", "log_softmax",
]  # fmt: skip
LOSSES = [
    "softmax_cross_entropy", "safe_softmax_cross_entropy", "sigmoid_binary_cross_entropy",
    "squared_error", "l2_loss", "huber_loss", "binary_cross_entropy", "categorical_cross_entropy",
]  # fmt: skip


def pool(name):
    return partial(getattr(jaxcnn, name), window_shape=(3, 3), strides=(2, 2), padding="SAME")


def channels_first(x, kernel):
    lhs, rhs = x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1)
    return jaxcnn.conv_general_dilated(lhs, rhs, (1, 1), "SAME")


def integer_labels(logits):
    labels = jnp.zeros(logits.shape[:1], int)
    return jaxcnn.softmax_cross_entropy_with_integer_labels(logits, labels)


CASES = {
    "conv": (jaxcnn.conv, IMAGES, KERNEL, CHANNELS),
    "strided": (partial(jaxcnn.conv, strides=2), IMAGES, KERNEL),
    "depthwise": (partial(jaxcnn.conv, feature_group_count=4), IMAGES, KERNEL[:, :, :1]),
    "conv_general_dilated": (channels_first, IMAGES, KERNEL),
    "conv_transpose": (
        partial(jaxcnn.conv_transpose, strides=(2, 2), padding="SAME"),
        IMAGES,
        KERNEL,
    ),
    "max_pool": (pool("max_pool"), IMAGES),
    "min_pool": (pool("min_pool"), IMAGES),
    "avg_pool": (pool("avg_pool"), IMAGES),
    "dense": (jaxcnn.dense, VECTORS, jnp.ones((5, 3)), jnp.ones(3)),
    "flatten": (jaxcnn.flatten, IMAGES),
    "dropout": (lambda x: jaxcnn.dropout(jax.random.key(0), x, 0.5), IMAGES),
    "batch_norm": (lambda *args: jaxcnn.batch_norm(*args)[0], IMAGES, CHANNELS, CHANNELS),
    "batch_norm_inference": (jaxcnn.batch_norm_inference, IMAGES, *[CHANNELS] * 4),
    "layer_norm": (jaxcnn.layer_norm, IMAGES, CHANNELS, CHANNELS),
    "group_norm": (partial(jaxcnn.group_norm, num_groups=2), IMAGES, CHANNELS, CHANNELS),
    "logsumexp": (partial(jaxcnn.logsumexp, axis=-1), VECTORS),
    "integer labels": (integer_labels, VECTORS),
    **{name: (getattr(jaxcnn, name), IMAGES) for name in ACTIVATIONS},
    **{name: (getattr(jaxcnn, name), VECTORS, VECTORS) for name in LOSSES},
}


@pytest.mark.parametrize("name", CASES)
def test_no_images(name):
    function, *arrays = CASES[name]
    y, vjp = jax.vjp(function, *arrays)
    assert y.size == 0
    for found, array in zip(vjp(jnp.ones_like(y)), arrays, strict=True):
        np.testing.assert_array_equal(found, jnp.zeros_like(array))
