"""Correct rules for layers, inside of other transformations, and with arguments of other kinds."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

import jaxcnn
from benchmarks.rules.case import Case, Draw, normal, rule
from benchmarks.rules.convolution import (
    IMAGES,
    conv,
    conv_backward,
    grouped,
    grouped_backward,
    kernel_grad,
)
from benchmarks.rules.linear import (
    classes,
    dense,
    dense_backward,
    of_integers,
    of_integers_backward,
)
from benchmarks.rules.normalization import norm, with_moments, with_moments_backward
from benchmarks.rules.pooling import avg_backward, avg_pool
from benchmarks.rules.several import dropout, key_and_normal

sin = rule(jnp.sin, lambda args, y, dy: (jnp.cos(args[0]) * dy,))
tanh = rule(jnp.tanh, lambda args, y, dy: ((1 - y * y) * dy,))
linear = rule(dense, dense_backward)


@jax.custom_jvp
def cube(x: Array) -> Array:
    return x * x * x


cube.defjvps(lambda t, y, x: 3 * x * x * t)


def up(x: Array, kernel: Array) -> Array:
    """A transposed convolution by strides of 2, with a kernel of (3, 3, out, in)."""
    return lax.conv_transpose(
        x, kernel, (2, 2), "VALID", dimension_numbers=IMAGES, transpose_kernel=True
    )


def up_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """The adjoint of a convolution's adjoint is the convolution."""
    x, kernel = args
    dx = lax.conv_general_dilated(dy, kernel, (2, 2), "VALID", dimension_numbers=IMAGES)
    return dx, kernel_grad(dy, kernel, x, strides=2, pad=0)


def corners(image: Array, points: Array) -> list[tuple[Array, Array, Array, Array]]:
    """The four pixels about each point: row, column, and the offsets' shares of each."""
    low = [jnp.clip(jnp.floor(points[:, a]), 0, image.shape[a] - 2) for a in (0, 1)]
    row, column = (i.astype(jnp.int32) for i in low)
    v, h = points[:, 0] - low[0], points[:, 1] - low[1]
    return [
        (row + i, column + j, v if i else 1 - v, h if j else 1 - h) for i in (0, 1) for j in (0, 1)
    ]


def sample(image: Array, points: Array) -> Array:
    """The image between its pixels, bilinearly."""
    parts = [image[r, c] * v * h for r, c, v, h in corners(image, points)]
    return sum(parts[1:], parts[0])


def sample_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """Each dy to its four pixels; and the slope between them."""
    image, points = args
    dimage, slopes = jnp.zeros_like(image), jnp.zeros_like(points)
    for number, (r, c, v, h) in enumerate(corners(image, points)):
        dimage = dimage.at[r, c].add(v * h * dy)
        below, right = (1 if number > 1 else -1), (1 if number % 2 else -1)
        slopes += image[r, c][:, None] * jnp.stack([below * h, right * v], -1)
    return dimage, slopes * dy[:, None]


def image_and_points(rng: np.random.Generator, dtype: Any) -> tuple:
    """Points well inside of the cells between pixels."""
    points = rng.integers(0, 4, (7, 2)) + rng.uniform(0.2, 0.8, (7, 2))
    return *normal((5, 5))(rng, dtype), jnp.asarray(points, dtype)


def table_and_places(rng: np.random.Generator, dtype: Any) -> tuple:
    return *normal((6, 3))(rng, dtype), jnp.asarray(rng.integers(0, 6, (4, 2)), jnp.int32)


def mask_and_two(rng: np.random.Generator, dtype: Any) -> tuple:
    return jnp.asarray(rng.integers(0, 2, (4, 5)), bool), *normal((4, 5), (4, 5))(rng, dtype)


def in_a_dict(*shapes: tuple[int, ...]) -> Draw:
    """One argument, a layer's arrays by name."""
    names = ("x", "kernel", "bias")
    return lambda rng, dtype: (dict(zip(names, normal(*shapes)(rng, dtype), strict=True)),)


def dense_of_dict(layer: dict[str, Array]) -> dict[str, Array]:
    """A dict in, and a dict out."""
    y = dense(layer["x"], layer["kernel"], layer["bias"])
    return {"y": y, "double": 2 * y}


def dense_of_dict_backward(args: tuple, y: Any, dy: Any) -> tuple:
    """The gradients by name, of both outputs."""
    (layer,) = args
    names = ("x", "kernel", "bias")
    arrays = tuple(layer[name] for name in names)
    grads = dense_backward(arrays, y["y"], dy["y"] + 2 * dy["double"])
    return (dict(zip(names, grads, strict=True)),)


def network(x: Array, first: Array, b: Array, second: Array, c: Array) -> Array:
    """The loss of two layers, each with a rule."""
    y = linear(tanh(linear(x, first, b)), second, c)
    return (y * y).mean()


def shifted_norm(x: Array, bias: Array) -> Array:
    """Batch norm takes out the mean, and a bias with it."""
    return norm(x + bias, jnp.ones_like(bias), jnp.zeros_like(bias))


def shifted_norm_backward(args: tuple, y: Array, dy: Array) -> tuple:
    """The bias' gradient is exactly 0."""
    x, bias = args
    (dx,) = with_moments_backward((x + bias,), y, (dy, 0, 0))
    return dx, jnp.zeros_like(bias)


def recurrent(x: Array, h: Array) -> Array:
    """A rule in each step of a scan."""
    return lax.scan(lambda h, x: (tanh(h + x), h * x), h, x)[1]


def either(x: Array) -> Array:
    """One rule or another, by the sum."""
    return lax.cond(x.sum() > 0, sin, tanh, x)


RULES = [
    Case("conv", rule(conv, conv_backward), normal((2, 6, 6, 3), (3, 3, 3, 4), (4,))),
    Case(
        "conv, strides of 2, a row left over",
        rule(partial(conv, strides=2, pad=0), partial(conv_backward, strides=2, pad=0)),
        normal((2, 6, 6, 2), (3, 3, 2, 3), (3,)),
    ),
    Case(
        "conv, dilated",
        rule(partial(conv, pad=2, dilation=2), partial(conv_backward, pad=2, dilation=2)),
        normal((2, 6, 6, 2), (3, 3, 2, 3), (3,)),
    ),
    Case(
        "conv, of two groups",
        rule(grouped, grouped_backward),
        normal((2, 5, 5, 4), (3, 3, 2, 4)),
    ),
    Case("conv, transposed", rule(up, up_backward), normal((2, 3, 3, 3), (3, 3, 2, 3))),
    Case(
        "avg pool, padded",
        rule(
            partial(avg_pool, size=3, strides=1, pad=1),
            partial(avg_backward, size=3, strides=1, pad=1),
        ),
        normal((2, 6, 6, 2)),
    ),
    Case("bilinear sampling", rule(sample, sample_backward), image_and_points),
    Case(
        "embedding",
        rule(
            lambda table, places: table[places],
            lambda args, y, dy: (jnp.zeros_like(args[0]).at[args[1]].add(dy), None),
        ),
        table_and_places,
    ),
    Case(
        "where",
        rule(
            jnp.where,
            lambda args, y, dy: (None, jnp.where(args[0], dy, 0), jnp.where(args[0], 0, dy)),
        ),
        mask_and_two,
    ),
    Case(
        "dropout",
        rule(dropout, lambda args, y, dy: (None, dropout(args[0], dy))),
        key_and_normal,
    ),
    Case("cross entropy of integers", rule(of_integers, of_integers_backward), classes),
    Case(
        "dense of a dict",
        rule(dense_of_dict, dense_of_dict_backward),
        in_a_dict((4, 3), (3, 2), (2,)),
    ),
    Case(
        "batch norm with moments",
        rule(with_moments, with_moments_backward),
        normal((2, 3, 3, 3)),
    ),
    Case(
        "batch norm after a bias",
        rule(shifted_norm, shifted_norm_backward),
        normal((2, 3, 3, 3), (3,)),
    ),
]

INSIDE = [
    Case("network", network, normal((4, 3), (3, 5), (5,), (5, 2), (2,))),
    Case("a custom_jvp and a rule", lambda x: sin(cube(x)), normal((4, 5))),
    Case(
        "a rule in a rule",
        rule(
            lambda x: sin(tanh(x)),
            lambda args, y, dy: (jnp.cos(tanh(*args)) * (1 - tanh(*args) ** 2) * dy,),
        ),
        normal((4, 5)),
    ),
    Case("a rule in a scan", recurrent, normal((6, 3), (3,))),
    Case("a rule in a cond", either, normal((4, 5))),
    Case("a rule in a vmap", jax.vmap(sin), normal((4, 5))),
    Case("a rule in a jit", jax.jit(lambda x, y: sin(x) * tanh(y)), normal((4, 5), (4, 5))),
    Case("a rule in a checkpoint", jax.checkpoint(lambda x: sin(sin(x))), normal((4, 5))),
]

OURS = [
    Case("jaxcnn.conv of 64 channels", jaxcnn.conv, normal((2, 8, 8, 64), (3, 3, 64, 64), (64,))),
    Case(
        "jaxcnn.max_pool",
        lambda x: jaxcnn.max_pool(x, (3, 3), strides=(2, 2)),
        normal((2, 7, 7, 2)),
    ),
    Case(
        "jaxcnn.batch_norm",
        lambda x, scale, bias: jaxcnn.batch_norm(x, scale, bias)[0],
        normal((2, 3, 3, 3), (3,), (3,)),
    ),
    Case(
        "jaxcnn.softmax_cross_entropy_with_integer_labels",
        jaxcnn.softmax_cross_entropy_with_integer_labels,
        classes,
    ),
    Case(
        "jaxcnn.conv_relu_max_pool",
        partial(jaxcnn.conv_relu_max_pool, pool_shape=2),
        normal((2, 6, 6, 3), (3, 3, 3, 4), (4,)),
    ),
    Case("jaxcnn.log_softmax", jaxcnn.log_softmax, normal((3, 6))),
    Case("jaxcnn.dropout", partial(jaxcnn.dropout, rate=0.25), key_and_normal),
    Case("jaxcnn.dense over 30,000", jaxcnn.dense, normal((2, 30_000), (30_000, 2), (2,))),
]

CORRECT = RULES + INSIDE + OURS
