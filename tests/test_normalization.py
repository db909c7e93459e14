import os
import subprocess
import sys
from functools import partial
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, draw
from jax import lax

from jaxcnn.normalization import batch_norm, batch_norm_inference, group_norm, layer_norm

SHAPES = [(5, 3), (2, 4, 5, 3), (2, 3, 2, 2, 3)]
PRESENT = [(True, True), (True, False), (False, True), (False, False)]


def parameters(x, present=(True, True)):
    """A scale and a bias for the channels of `x`, or None."""
    both = draw(1, x.shape[-1:], x.shape[-1:])
    return [array if wanted else None for array, wanted in zip(both, present, strict=True)]


def assert_same(manual, original, *args, rtol=1e-10):
    """As `assert_same_vjp`, for any number of outputs and for arguments that are None."""
    leaves, tree = jax.tree.flatten(jax.eval_shape(manual, *args))
    dy = tree.unflatten([jnp.asarray(draw(90 + k, a.shape)) for k, a in enumerate(leaves)])

    def pulled(function):
        y, vjp = jax.vjp(function, *args)
        return y, vjp(dy)

    found, wanted = (jax.jit(pulled, static_argnums=0)(f) for f in (manual, original))
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert_close(a, b, rtol)
        assert a.dtype == b.dtype


def flax_module(module, **options):
    """A function of x, scale and bias, and of mean and var where there are such."""
    options |= {"use_fast_variance": False, "param_dtype": jnp.float64}

    def apply(x, scale, bias, *moments):
        layer = module(use_scale=scale is not None, use_bias=bias is not None, **options)
        given = {"scale": scale, "bias": bias}
        variables = {"params": {name: a for name, a in given.items() if a is not None}}
        if module is not nn.BatchNorm:
            return layer.apply(variables, x)
        mean, var = moments or (jnp.zeros(x.shape[-1]), jnp.ones(x.shape[-1]))
        variables["batch_stats"] = {"mean": mean, "var": var}
        y, after = layer.apply(variables, x, mutable=["batch_stats"])
        stats = after["batch_stats"]
        return y if moments else (y, (stats["mean"], stats["var"]))

    return apply


def flax_batch_norm(epsilon=1e-5):
    """Of momentum 0: its running averages are the moments of the batch."""
    return flax_module(nn.BatchNorm, use_running_average=False, momentum=0.0, epsilon=epsilon)


def check_batch_norm(shape=(2, 4, 5, 3), present=(True, True)):
    x = draw(0, shape)
    assert_same(batch_norm, flax_batch_norm(), x, *parameters(x, present))


def check_batch_norm_jacobian():
    """Against the matrix of partial derivatives, a channel at a time, cotangents of all outputs."""
    x, dy = draw(0, (6, 2), (6, 2))
    scale, bias, dmean, dvar = draw(1, (2,), (2,), (2,), (2,))
    (y, moments), vjp = jax.vjp(partial(batch_norm, epsilon=0.1), x, scale, bias)
    dx, dscale, dbias = vjp((jnp.asarray(dy), (jnp.asarray(dmean), jnp.asarray(dvar))))
    for c in range(2):
        mean = sum(x[:, c]) / 6
        var = sum((x[:, c] - mean) ** 2) / 6
        n = (x[:, c] - mean) / np.sqrt(var + 0.1)
        jacobian = np.zeros((6, 6))
        for i, j in product(range(6), repeat=2):
            jacobian[i, j] = ((i == j) - 1 / 6 - n[i] * n[j] / 6) / np.sqrt(var + 0.1)
        wanted = scale[c] * dy[:, c] @ jacobian + dmean[c] / 6 + 2 * (x[:, c] - mean) * dvar[c] / 6
        assert_close(y[:, c], n * scale[c] + bias[c], what="y")
        assert_close(jnp.stack(moments)[:, c], [mean, var], what="moments")
        assert_close(dx[:, c], wanted, what="dx")
        assert_close(dscale[c], dy[:, c] @ n, what="dscale")
        assert_close(dbias[c], sum(dy[:, c]), what="dbias")


def check_batch_norm_inference(present=(True, True)):
    x = draw(0, (2, 4, 3))
    mean, var = draw(2, (3,)), np.exp(draw(3, (3,)))
    scale, bias = parameters(x, present)
    original = flax_module(nn.BatchNorm, use_running_average=True)
    assert_same(
        batch_norm_inference,
        lambda x, mean, var, scale, bias: original(x, scale, bias, mean, var),
        *(x, mean, var, scale, bias),
    )


def check_layer_norm(axis=-1, present=(True, True)):
    x = draw(0, (4, 3, 2, 5))
    original = flax_module(nn.LayerNorm, reduction_axes=axis)
    assert_same(partial(layer_norm, axis=axis), original, x, *parameters(x, present))


def check_group_norm(num_groups=3, shape=(3, 2, 4, 6), present=(True, True)):
    x = draw(0, shape)
    original = flax_module(nn.GroupNorm, num_groups=num_groups)
    assert_same(partial(group_norm, num_groups=num_groups), original, x, *parameters(x, present))


@pytest.mark.parametrize("shape", SHAPES)
def test_batch_norm_is_flax_s(shape):
    check_batch_norm(shape)


@pytest.mark.parametrize("present", PRESENT[1:])
def test_batch_norm_without_scale_or_bias(present):
    check_batch_norm((4, 3), present)


def test_batch_norm_has_the_jacobian_of_the_definition():
    check_batch_norm_jacobian()


@pytest.mark.parametrize("present", PRESENT)
def test_batch_norm_inference_is_flax_s(present):
    check_batch_norm_inference(present)


@pytest.mark.parametrize("axis", [-1, 1, (1, 2), [-1, 0], (0, 1, 2, 3)])
def test_layer_norm_is_flax_s(axis):
    check_layer_norm(axis)


@pytest.mark.parametrize("present", PRESENT[1:])
def test_layer_norm_without_scale_or_bias(present):
    check_layer_norm(-1, present)


@pytest.mark.parametrize("num_groups", [1, 3, 6])
def test_group_norm_is_flax_s(num_groups):
    check_group_norm(num_groups)


@pytest.mark.parametrize("shape", [(4, 6), (2, 3, 6), (2, 3, 1, 2, 6)])
def test_group_norm_of_any_number_of_spatial_axes(shape):
    check_group_norm(2, shape)


@pytest.mark.parametrize("present", PRESENT[1:])
def test_group_norm_without_scale_or_bias(present):
    check_group_norm(2, (2, 3, 6), present)


@pytest.mark.parametrize("name", ["batch_norm", "batch_norm_inference", "layer_norm", "group_norm"])
def test_they_are_pytorch_s(name):
    torch = pytest.importorskip("torch")
    torch_s = torch.nn.functional
    arrays = draw(0, (3, 2, 4, 6), (6,), (6,))
    x, scale, bias = (torch.tensor(array, requires_grad=True) for array in arrays)
    first = x.permute(0, 3, 1, 2)  # channels
    moments = draw(2, (6,)), np.exp(draw(3, (6,)))
    if name == "batch_norm":
        wanted = torch_s.batch_norm(first, None, None, scale, bias, training=True, eps=1e-5)
        manual = lambda *args: batch_norm(*args)[0]  # noqa: E731
    elif name == "batch_norm_inference":
        wanted = torch_s.batch_norm(first, *map(torch.tensor, moments), scale, bias, eps=1e-5)
        manual = lambda x, *args: batch_norm_inference(x, *moments, *args)  # noqa: E731
    elif name == "layer_norm":
        wanted = torch_s.layer_norm(x, (6,), scale, bias, eps=1e-6).permute(0, 3, 1, 2)
        manual = layer_norm
    else:
        wanted = torch_s.group_norm(first, 3, scale, bias, eps=1e-6)
        manual = partial(group_norm, num_groups=3)
    wanted = wanted.permute(0, 2, 3, 1)
    y, vjp = jax.vjp(manual, *arrays)
    assert_close(y, wanted.detach().numpy())
    dy = draw(1, y.shape)
    wanted.backward(torch.tensor(dy))
    for found, tensor in zip(vjp(jnp.asarray(dy)), (x, scale, bias), strict=True):
        assert_close(found, tensor.grad.numpy())


PAIRS = {
    "batch_norm": (batch_norm, flax_batch_norm()),
    "batch_norm_inference": (
        lambda x, scale, bias: batch_norm_inference(x, scale, bias**2, scale, bias),
        lambda x, scale, bias: flax_module(nn.BatchNorm, use_running_average=True, epsilon=1e-5)(
            x, scale, bias, scale, bias**2
        ),
    ),
    "layer_norm": (layer_norm, flax_module(nn.LayerNorm)),
    "group_norm": (partial(group_norm, num_groups=2), flax_module(nn.GroupNorm, num_groups=2)),
}


def scalar(function):
    """A sum of all outputs, curved, and with weights that differ."""

    def total(*args):
        leaves = jax.tree.leaves(function(*args))
        return sum((jnp.asarray(draw(k, a.shape)) * a**2).sum() for k, a in enumerate(leaves))

    return total


@pytest.mark.parametrize("name", PAIRS)
def test_second_derivatives_are_flax_s(name):
    args = draw(5, (3, 4), (4,), (4,))
    direction = draw(6, (3, 4))

    def twice(function):
        first = jax.grad(scalar(function))
        forward = jax.hessian(scalar(function), (0, 1, 2))(*args)
        return forward, jax.grad(lambda *args: (first(*args) * direction).sum(), (0, 1, 2))(*args)

    found, wanted = (jax.tree.leaves(jax.jit(twice, static_argnums=0)(f)) for f in PAIRS[name])
    for a, b in zip(found, wanted, strict=True):
        assert_close(a, b, 1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_vmap_is_a_loop(name):
    manual, _ = PAIRS[name]
    x, scale, bias = draw(0, (3, 2, 5, 4), (3, 4), (4,))
    derivative = jax.jit(jax.grad(scalar(manual), (0, 1, 2)))
    found = jax.jit(jax.vmap(derivative, (0, 0, None)))(x, scale, bias)
    for k in range(3):
        for a, b in zip(found, derivative(x[k], scale[k], bias), strict=True):
            assert_close(a[k], b)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", PAIRS)
def test_narrow_dtypes_round_at_the_end_alone(name, dtype):
    """All of it is computed in float32: what is off is one rounding, and no sum of them."""
    manual, _ = PAIRS[name]
    x, scale, bias = (jnp.asarray(a, dtype) for a in draw(0, (4, 5, 5, 6), (6,), (6,)))
    if name == "batch_norm_inference":
        bias = jnp.abs(bias) + 1  # its square is the variance

    def pulled(*args):
        y, vjp = jax.vjp(manual, *args)
        dy = [jnp.asarray(draw(7, a.shape), dtype).astype(a.dtype) for a in jax.tree.leaves(y)]
        return y, vjp(jax.tree.unflatten(jax.tree.structure(y), dy))

    found, cotangents = jax.jit(pulled)(x, scale, bias)
    y, *moments = jax.tree.leaves(found)
    assert y.dtype == dtype
    assert all(a.dtype == jnp.float32 for a in moments)
    assert {a.dtype for a in cotangents} == {jnp.dtype(dtype)}
    exact = jax.jit(pulled)(*(a.astype(jnp.float64) for a in (x, scale, bias)))
    rtol = 100 * jnp.finfo(jnp.float32).eps + 2 * jnp.finfo(dtype).eps
    for a, b in zip(jax.tree.leaves((found, cotangents)), jax.tree.leaves(exact), strict=True):
        assert_close(a, b, rtol)


def test_parameters_may_be_wider_than_the_input():
    x = jnp.asarray(draw(0, (4, 6)), jnp.bfloat16)
    scale, bias = (jnp.asarray(a, jnp.float32) for a in draw(1, (6,), (6,)))
    for function in (layer_norm, partial(group_norm, num_groups=2), batch_norm):
        y, vjp = jax.vjp(lambda *args, f=function: jax.tree.leaves(f(*args))[0], x, scale, bias)
        assert y.dtype == jnp.bfloat16
        assert [a.dtype for a in vjp(y)] == [jnp.bfloat16, jnp.float32, jnp.float32]


def test_the_variance_survives_a_large_mean():
    """float32 holds no square of such numbers to the units: E[x^2] - mean^2 would be noise."""
    x = jnp.asarray(1e4 + draw(0, (1000, 1)), jnp.float32)
    _, (_, var) = batch_norm(x, None, None)
    assert_close(var, np.asarray(x, np.float64).var(0), 1e-4)
    assert_close(layer_norm(x.T), (x.T - np.mean(x, dtype=float)) / np.std(x, dtype=float), 1e-3)


def test_no_elements():
    x, scale, bias = draw(0, (0, 2, 4), (4,), (4,))
    y, (mean, var) = batch_norm(x, scale, bias)
    assert y.shape == x.shape
    assert np.isnan([mean, var]).all()  # what 0 / 0 gives
    for name, (manual, _) in PAIRS.items():
        dx, dscale, dbias = jax.grad(
            lambda *args, f=manual: jax.tree.leaves(f(*args))[0].sum(), (0, 1, 2)
        )(x, scale, bias)
        assert dx.shape == x.shape
        np.testing.assert_array_equal([dscale, dbias], np.zeros((2, 4)), name)


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_kept_is_x_and_little_else(name):
    x = jnp.ones((8, 16, 16, 4), jnp.bfloat16)
    _, pullback = jax.vjp(lambda x: PAIRS[name][0](x, jnp.ones(4), jnp.ones(4)), x)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(pullback))
    moments = 2 * 4 * 8 * 16 * 16 if name == "layer_norm" else 1000
    assert kept <= x.nbytes + moments + 1000


def test_a_symbolic_batch_can_be_exported():
    (n,) = jax.export.symbolic_shape("n")
    args = [jax.ShapeDtypeStruct(shape, jnp.float64) for shape in ((n, 3, 4), (4,), (4,))]
    x, scale, bias = draw(0, (5, 3, 4), (4,), (4,))

    def total(*args):
        outputs = jax.tree.leaves([manual(*args) for manual, _ in PAIRS.values()])
        return sum((a**2).sum() for a in outputs)

    derivative = jax.jit(jax.grad(total, (0, 1, 2)))
    exported = jax.export.export(derivative)(*args)
    for a, b in zip(exported.call(x, scale, bias), derivative(x, scale, bias), strict=True):
        assert_close(a, b)


ONES = jnp.ones((2, 3, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: batch_norm(ONES, jnp.ones(3), None),
            r"batch_norm: `scale` must have shape \(4,\), one entry for each channel of `x` of "
            r"shape \(2, 3, 4\), got \(3,\)",
        ),
        (lambda: batch_norm(ONES, None, jnp.ones((1, 4))), r"batch_norm: `bias` .* \(1, 4\)"),
        (lambda: batch_norm(jnp.ones(()), None, None), "batch_norm: `x` must have an axis of"),
        (lambda: batch_norm(ONES, None, None, epsilon=-1), "batch_norm: `epsilon` .* got -1"),
        (
            lambda: batch_norm_inference(ONES, jnp.ones(3), jnp.ones(4), None, None),
            r"batch_norm_inference: `mean` must have shape \(4,\)",
        ),
        (
            lambda: batch_norm_inference(ONES, jnp.ones(4), jnp.ones(()), None, None),
            r"batch_norm_inference: `var` must have shape \(4,\)",
        ),
        (lambda: layer_norm(ONES, jnp.ones(3)), r"layer_norm: `scale` must have shape \(4,\)"),
        (lambda: layer_norm(ONES, axis=3), r"layer_norm: `axis` 3 must name axes of `x` of shape"),
        (lambda: layer_norm(ONES, axis=(2, -1)), r"layer_norm: `axis` \(2, -1\) .*, each once"),
        (lambda: group_norm(ONES, num_groups=3), "group_norm: `num_groups` 3 must divide the 4"),
        (lambda: group_norm(ONES, num_groups=0), "group_norm: `num_groups` 0 must divide the 4"),
        (lambda: group_norm(jnp.ones(4), num_groups=2), r"group_norm: `x` must .* got \(4,\)"),
    ],
)
def test_bad_values_name_function_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: batch_norm(ONES.astype(int), None, None), "batch_norm: `x` must have a floating"),
        (lambda: batch_norm(ONES, [1.0] * 4, None), "batch_norm: `scale` must be an array, got"),
        (lambda: batch_norm(ONES, None, None, epsilon="1"), "batch_norm: `epsilon` .* got '1'"),
        (
            lambda: batch_norm_inference(ONES, None, jnp.ones(4), None, None),
            "batch_norm_inference: `mean` must be an array, got None",
        ),
        (lambda: layer_norm(ONES, axis=1.0), "layer_norm: `axis` must hold integers, got 1.0"),
        (lambda: group_norm(ONES, num_groups=2.0), "group_norm: `num_groups` .* got 2.0"),
    ],
)
def test_bad_types_name_function_argument_and_value(call, message):
    with pytest.raises(TypeError, match=message):
        call()


# Over devices: this file, run as a program that has four of them. --------------------------------


def test_over_devices_it_is_what_jax_makes_of_pmean():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    command = [sys.executable, "-W", "error", __file__]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr


def plain_batch_norm(x, scale, bias, *, epsilon=1e-5, axis_name):
    """The definition: differentiated by JAX, it says what is right in each mode."""
    batch = tuple(range(x.ndim - 1))
    mean = lax.pmean(x.mean(batch), axis_name)
    var = lax.pmean(jnp.square(x - mean).mean(batch), axis_name)
    return (x - mean) / jnp.sqrt(var + epsilon) * scale + bias, (mean, var)


def weighted(outputs, weights):
    """A loss, curved, of all outputs."""
    return sum((w * a**2).sum() for w, a in zip(weights, jax.tree.leaves(outputs), strict=True))


def outside(f, mapped):
    """The gradient of a function mapped over devices."""
    return jax.grad(lambda args, weights: weighted(mapped(f)(*args), weights))


def twice(f, mapped):
    once = outside(f, mapped)
    return jax.grad(lambda args, weights: weighted(once(args, weights), args))


def inside(f, mapped):
    """The mapped gradient: each device's own, of its own loss. Scale and bias may be its own."""

    def own(x, scale, bias, *weights):
        def loss(args):
            return weighted(f(*args), weights)

        dx, *others = jax.grad(loss)((x, scale.reshape(2), bias.reshape(2)))
        return dx, *(a[None] for a in others)

    return lambda args, weights: mapped(own)(*args, *weights)


def over_devices():
    """Every mode: (what it is, names of the axes, gradient, how to map, parameters, weights)."""
    P, auto = jax.sharding.PartitionSpec, jax.sharding.AxisType.Auto  # noqa: N806
    line = jax.make_mesh((4,), ("d",), axis_types=(auto,))
    grid = jax.make_mesh((2, 2), ("d", "e"), axis_types=(auto, auto))
    one, each, two = ([draw(k, shape)] * 2 for k, shape in enumerate([(2,), (4, 2), (4,)]))
    d, none = P("d"), P()
    for check_vma in (True, False):

        def mapper(mesh, in_specs, out_specs, check_vma=check_vma):
            options = {"mesh": mesh, "in_specs": in_specs, "out_specs": out_specs}
            return partial(jax.shard_map, check_vma=check_vma, **options)

        what = f"shard_map, check_vma={check_vma}"
        mapped = mapper(line, (d, none, none), (d, (none, none)))
        for gradient in (outside, twice) if check_vma else (outside,):
            yield what, "d", gradient, mapped, one, one
        for parameters, spec in ((one, none), (each, d)):
            mapped = mapper(line, (d, spec, spec, d, d, d), (d, d, d))
            yield what, "d", inside, mapped, parameters, each
        both, e = P(("d", "e")), P("e")
        for axis_name, spec, weights in ((("d", "e"), none, one), ("d", e, two)):
            mapped = mapper(grid, (both, none, none), (both, (spec, spec)))
            yield f"{what}, grid", axis_name, outside, mapped, one, weights
    for axes in (None, 0):  # of the moments, which are the same in all
        mapped = partial(
            jax.vmap, in_axes=(0, None, None), out_axes=(0, (axes, axes)), axis_name="d"
        )
        yield "vmap", "d", outside, mapped, one, one if axes is None else each
    for used, axis in ((one, None), (each, 0)):
        axes = (0, axis, axis, 0, axis, axis)
        mapped = partial(jax.vmap, in_axes=axes, axis_name="d")
        yield "vmap", "d", inside, mapped, used, used


def main():
    x, x_weights = map(jnp.asarray, draw(0, (8, 3, 2), (8, 3, 2)))
    for what, axis_name, gradient, mapped, parameters, weights in over_devices():
        shape = (4, 2, 3, 2) if what == "vmap" else x.shape
        args = (x.reshape(shape), *map(jnp.asarray, parameters))
        weights = [x_weights.reshape(shape), *map(jnp.asarray, weights)]
        found, wanted = (
            jax.jit(gradient(partial(f, axis_name=axis_name), mapped))(args, weights)
            for f in (batch_norm, plain_batch_norm)
        )
        for a, b in zip(found, wanted, strict=True):
            assert_close(a, b, 1e-9, f"{what}, {axis_name}, {gradient.__name__}")


if __name__ == "__main__":
    main()


def test_a_stack_of_batch_norms_keeps_no_more_than_its_inputs_and_outputs():
    x, scale, bias = jnp.ones((64, 16, 16, 32)), jnp.ones(32), jnp.ones(32)
    layers = 6

    def total(x):
        for _ in range(layers):
            x = jax.nn.relu(batch_norm(x, scale, bias)[0])
        return x.sum()

    memory = jax.jit(jax.grad(total)).lower(x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < (layers + 3) * x.nbytes
