"""Run by test_transformations.py: gradients over four forced host devices."""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxcnn
from jaxcnn import reference
from jaxcnn._cpu import choice, depthwise, parts, patches, pooled_convolution, winograd
from jaxcnn.models import lenet5


def loss(params, images, labels, ops=jaxcnn):
    logits, _ = lenet5.apply(params, {}, images, ops=ops)
    return ops.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def problem(batch):
    params, _ = jax.jit(partial(lenet5.init, dtype=jnp.float64))(jax.random.key(0))
    rng = np.random.default_rng(0)
    return params, rng.normal(size=(batch, 28, 28, 1)), rng.integers(0, 10, batch)


def loss_of_every_evaluation(params, images, labels, ops=jaxcnn):
    """Each evaluation of a convolution that a CPU has, and padded pools."""
    x = ops.conv(images, params["patches"], strides=2)
    x = ops.max_pool(x, (3, 3), padding="SAME")
    x = ops.conv(x, params["both"])  # its kernel's gradient by rows of x and of dy
    x = ops.conv_relu(x, params["winograd"], params["bias"])
    x = ops.conv(x, params["wider"])
    x = ops.conv(x, params["wide"])  # Winograd's way by blocks of features: few rows for them
    x = ops.conv(x, params["narrower"])
    x = ops.conv(x, params["depthwise"], feature_group_count=32)
    if "groups" in params:
        x = ops.conv(x, params["groups"], feature_group_count=16)
    x = ops.conv(x, params["dilated"], kernel_dilation=2)
    x = ops.conv(x, params["narrow"])
    x = ops.conv(x[..., None], params["volume"])[..., 0]
    x = ops.conv_relu_max_pool(x, params["pooled"], pool_shape=2)
    logits = ops.flatten(ops.avg_pool(x, x.shape[1:3]))
    return ops.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def problem_of_every_evaluation(batch):
    rng = np.random.default_rng(0)
    shapes = {
        "patches": (3, 3, 16, 16),
        "both": (3, 3, 16, 32),
        "winograd": (3, 3, 32, 48),
        "bias": (48,),
        "wider": (1, 1, 48, 256),
        "wide": (3, 3, 256, 256),
        "narrower": (1, 1, 256, 32),
        "depthwise": (3, 3, 1, 32),
        "groups": (3, 3, 2, 32),
        "dilated": (3, 3, 32, 32),
        "volume": (3, 3, 3, 1, 1),
        "narrow": (1, 1, 32, 16),
        "pooled": (3, 3, 16, 8),
    }
    params = {name: rng.normal(size=shape) / 12 for name, shape in shapes.items()}
    images, labels = rng.normal(size=(batch, 16, 16, 16)), rng.integers(0, 8, batch)
    return jax.tree.map(jnp.float32, params), jnp.float32(images), labels


def problem_without_groups(batch):
    params, images, labels = problem_of_every_evaluation(batch)
    del params["groups"]
    return params, images, labels


def assert_same(found, wanted):
    def close(a, b):
        exact = b.dtype == np.float64
        np.testing.assert_allclose(
            a, b, rtol=1e-9 if exact else 1e-3, atol=1e-12 if exact else 1e-6
        )

    jax.tree.map(close, found, wanted)


def check_shard_map(check_vma, loss=loss, problem=problem):
    """With the types checked, the cotangent of what is replicated is summed over the devices."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    specs = {"in_specs": (P(), P("data"), P("data")), "out_specs": P()}

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, check_vma=check_vma, **specs)
    def gradient(*args):
        grads = jax.grad(loss)(*args)
        if check_vma:
            return jax.tree.map(lambda g: g / 4, grads)
        return jax.lax.pmean(grads, "data")

    args = problem(8)
    assert_same(gradient(*args), jax.jit(jax.grad(partial(loss, ops=reference)))(*args))


def check_sharded_batch(batch, axis_type, loss=loss, problem=problem):
    """The compiler, or the types of a mesh with explicit axes, divide the work."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(axis_type,))
    params, images, labels = problem(batch)
    with jax.set_mesh(mesh):
        params = jax.device_put(params, NamedSharding(mesh, P()))
        images = jax.device_put(images, NamedSharding(mesh, P("data")))
        labels = jax.device_put(labels, NamedSharding(mesh, P("data")))
        compiled = jax.jit(jax.grad(loss)).lower(params, images, labels).compile()
        assert "all-gather" not in compiled.as_text()
        found = compiled(params, images, labels)
    wanted = jax.jit(jax.grad(partial(loss, ops=reference)))(*problem(batch))
    assert_same(jax.device_get(found), wanted)


def check_divided_features():
    """Each device has some of the features: kernel and bias vary where the images do not."""
    mesh = jax.make_mesh((4,), ("features",), axis_types=(AxisType.Auto,))
    rng = np.random.default_rng(0)
    shapes = (8, 12, 12, 32), (3, 3, 32, 128), (128,)
    args = [jnp.float32(rng.normal(size=shape) / 12) for shape in shapes]
    specs = P(), P(None, None, None, "features"), P("features")

    def gradient(*args, ops=jaxcnn):
        return jax.grad(lambda *args: (ops.conv_relu(*args) ** 2).sum(), (0, 1, 2))(*args)

    divided = jax.shard_map(gradient, mesh=mesh, in_specs=specs, out_specs=specs)
    assert_same(jax.jit(divided)(*args), gradient(*args, ops=reference))


if __name__ == "__main__":
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_disable_most_optimizations", True)
    for check_vma in (True, False):
        check_shard_map(check_vma)
    for batch in (32, 24, 12):
        check_sharded_batch(batch, AxisType.Auto)
    check_sharded_batch(8, AxisType.Explicit)

    # Loops, even of so little.
    parts.CACHE = choice.COPY = patches.PART = patches.LEAST = winograd.ROWS = winograd.PART = 1
    choice.OUTPUTS = pooled_convolution.COLUMNS = pooled_convolution.IMAGES = depthwise.WHOLE = 1
    depthwise.CACHE = 1
    every = {"loss": loss_of_every_evaluation, "problem": problem_of_every_evaluation}
    for check_vma in (True, False):
        check_shard_map(check_vma, **every)
    for batch in (32, 24, 12):
        check_sharded_batch(batch, AxisType.Auto, **every)
    # But groups: XLA's convolution, which explicit sharding keeps, gathers images for them.
    check_sharded_batch(8, AxisType.Explicit, **every | {"problem": problem_without_groups})
    check_divided_features()
