"""Every function under every transformation that its reference is right under."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, draw

import jaxcnn
from jaxcnn import reference
from jaxcnn.models import lenet5

LABELS = np.array([[1, 0], [2, 1]])

# name: (how it is called, shapes of its differentiable arguments)
CALLS = {
    "conv": (lambda ops, *a: ops.conv(*a, strides=(2, 1)), (2, 5, 4, 2), (3, 2, 2, 3), (3,)),
    "conv in groups": (lambda ops, *a: ops.conv(*a, feature_group_count=2), (2, 4, 4), (3, 2, 4)),
    "depthwise": (lambda ops, *a: ops.conv(*a, feature_group_count=4), (2, 9, 2, 4), (3, 2, 1, 4)),
    "conv in groups of two": (
        lambda ops, *a: ops.conv(*a, feature_group_count=2), (2, 9, 4), (3, 2, 4)
    ),
    "conv_general_dilated": (
        lambda ops, *a: ops.conv_general_dilated(*a, (1, 1), "SAME"), (2, 2, 4, 3), (3, 2, 3, 3),
    ),
    "conv_transpose": (
        lambda ops, *a: ops.conv_transpose(*a, (2, 2), "SAME"), (2, 3, 2, 2), (3, 3, 2, 3),
    ),
    "conv_relu": (lambda ops, *a: ops.conv_relu(*a), (2, 5, 4, 2), (3, 2, 2, 3), (3,)),
    "conv_relu_max_pool": (
        lambda ops, *a: ops.conv_relu_max_pool(*a, pool_shape=2), (2, 5, 4, 2), (3, 2, 2, 3), (3,),
    ),
    "max_pool": (lambda ops, x: ops.max_pool(x, (3, 2), (2, 2), "SAME"), (2, 5, 4, 2)),
    "min_pool": (lambda ops, x: ops.min_pool(x, (2, 2)), (2, 5, 4, 2)),
    "avg_pool": (lambda ops, x: ops.avg_pool(x, (3, 2), (2, 1), "SAME"), (2, 5, 4, 2)),
    "dense": (lambda ops, *a: ops.dense(*a), (2, 3), (3, 4), (4,)),
    "batch_norm": (lambda ops, *a: ops.batch_norm(*a)[0], (2, 3, 2), (2,), (2,)),
    "batch_norm_relu_conv": (
        lambda ops, *a: ops.batch_norm_relu_conv(*a)[0], (2, 5, 4, 2), (2,), (2,), (3, 2, 2, 3),
    ),
    "layer_norm": (lambda ops, *a: ops.layer_norm(*a), (2, 3, 2), (2,), (2,)),
    "group_norm": (lambda ops, *a: ops.group_norm(*a, num_groups=2), (2, 3, 4), (4,)),
    "dropout": (lambda ops, x: ops.dropout(jax.random.key(1), x, 0.4), (2, 3)),
    "flatten": (lambda ops, x: ops.flatten(x), (2, 3, 2)),
    "relu": (lambda ops, x: ops.relu(x), (2, 3)),
    "leaky_relu": (lambda ops, *a: ops.leaky_relu(*a), (2, 3), (3,)),
    "gelu": (lambda ops, x: ops.gelu(x), (2, 3)),
    "glu": (lambda ops, x: ops.glu(x), (2, 4)),
    "softmax": (lambda ops, x: ops.softmax(x), (2, 3)),
    "log_softmax": (lambda ops, x: ops.log_softmax(x), (2, 3)),
    "logsumexp": (lambda ops, x: ops.logsumexp(x, axis=-1), (2, 3)),
    "sigmoid_binary_cross_entropy": (
        lambda ops, *a: ops.sigmoid_binary_cross_entropy(*a), (2, 3), (2, 3),
    ),
    "softmax_cross_entropy": (lambda ops, *a: ops.softmax_cross_entropy(*a), (2, 3), (2, 3)),
    "softmax_cross_entropy_with_integer_labels": (
        lambda ops, x: ops.softmax_cross_entropy_with_integer_labels(x, LABELS[0]), (2, 3),
    ),
    "huber_loss": (lambda ops, *a: ops.huber_loss(*a), (2, 3), (2, 3)),
}  # fmt: skip


def pair(name):
    call, *shapes = CALLS[name]
    arrays = draw(0, *shapes) if len(shapes) > 1 else [draw(0, *shapes)]
    return (partial(call, jaxcnn), partial(call, reference)), [jnp.asarray(a) for a in arrays]


def weighted(f, *args):
    """A scalar with a random cotangent for `f`'s output, and curvature in it."""
    y = f(*args)
    return jnp.vdot(jnp.asarray(draw(9, y.shape)), y * y)


def gradients(f, arrays):
    return jax.grad(partial(weighted, f), tuple(range(len(arrays))))(*arrays)


def assert_same(transformed, name):
    functions, arrays = pair(name)
    found, wanted = (jax.tree.leaves(transformed(f, arrays)) for f in functions)
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b)


@pytest.mark.parametrize("name", CALLS)
def test_jit_scan_and_remat(name):
    def transformed(f, arrays):
        def body(carry, scale):
            grads = gradients(jax.checkpoint(f), [scale * a for a in arrays])
            return jax.tree.map(jnp.add, carry, grads), None

        start = tuple(map(jnp.zeros_like, arrays))
        return jax.jit(lambda: jax.lax.scan(body, start, jnp.array([0.5, 1.0]))[0])()

    assert_same(transformed, name)


@pytest.mark.parametrize("name", CALLS)
def test_vmap_over_any_subset_of_the_arguments(name):
    def transformed(f, arrays):
        results = []
        for mapped in range(1, 2 ** len(arrays)):
            axes = [0 if mapped >> i & 1 else None for i in range(len(arrays))]
            stacked = [
                jnp.stack([a, 2 * a, -a]) if axis == 0 else a
                for a, axis in zip(arrays, axes, strict=True)
            ]
            results.append(jax.vmap(lambda *a: gradients(f, a), axes)(*stacked))
        return results

    assert_same(transformed, name)


@pytest.mark.parametrize("name", CALLS)
def test_reverse_over_reverse_and_forward_over_reverse(name):
    def transformed(f, arrays):
        directions = tuple(jnp.asarray(draw(5 + i, a.shape)) for i, a in enumerate(arrays))

        def slope(*args):
            return sum(map(jnp.vdot, gradients(f, args), directions))

        everything = tuple(range(len(arrays)))
        forward = jax.jvp(lambda *a: gradients(f, a), tuple(arrays), directions)[1]
        return jax.grad(slope, everything)(*arrays), forward

    assert_same(transformed, name)


def test_a_cotangent_of_another_dtype_is_never_returned():
    for name in CALLS:
        (manual, _), arrays = pair(name)
        narrow = [a.astype(jnp.float32) for a in arrays]
        for grad, a in zip(gradients(manual, narrow), narrow, strict=True):
            assert (grad.dtype, grad.shape) == (a.dtype, a.shape), name


def test_export_with_a_symbolic_batch():
    params, _ = jax.jit(lenet5.init)(jax.random.key(0))
    (batch,) = jax.export.symbolic_shape("batch")

    def loss(params, images, labels):
        logits, _ = lenet5.apply(params, {}, images)
        return jaxcnn.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    exported = jax.export.export(jax.jit(jax.grad(loss)))(
        params,
        jax.ShapeDtypeStruct((batch, 28, 28, 1), jnp.float32),
        jax.ShapeDtypeStruct((batch,), jnp.int32),
    )
    images, labels = jnp.asarray(draw(0, (3, 28, 28, 1)), jnp.float32), jnp.arange(3, dtype="int32")
    found = exported.call(params, images, labels)
    jax.tree.map(
        lambda a, b: assert_close(a, b, 1e-5), found, jax.grad(loss)(params, images, labels)
    )


def contractions(compiled):
    """On a CPU, a small convolution is a matrix multiplication."""
    return sum(compiled.as_text().count(f" {name}(") for name in ("convolution", "dot"))


def test_no_input_gradient_is_computed_for_the_first_layer():
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    loss = lambda kernel, x: (jaxcnn.conv(x, kernel) ** 2).sum()  # noqa: E731
    only, both = (jax.jit(jax.grad(loss, args)).lower(kernel, x).compile() for args in (0, (0, 1)))
    assert (contractions(only), contractions(both)) == (2, 3)


def test_nor_in_eager_code(monkeypatch):
    """The backward pass of an eager `jax.grad` is one jitted call: what is in it is looked at."""
    x, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((3, 3, 3, 4))
    _, vjp = jax.vjp(lambda kernel: jaxcnn.conv(x, kernel), kernel)
    jaxpr = str(jax.make_jaxpr(vjp)(jnp.ones((2, 8, 8, 4))))
    compiled = jax.jit(vjp).lower(jnp.ones((2, 8, 8, 4))).compile()
    assert "conv_general_dilated" in jaxpr
    assert contractions(compiled) == 1


def test_on_four_devices():
    """In a process of its own: the number of devices is set before JAX starts."""
    script = Path(__file__).with_name("four_devices.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
