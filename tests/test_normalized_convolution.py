from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, draw
from jax import lax

import jaxcnn

# (x, kernel, options, the same for lax)
CASES = {
    "same": ((3, 6, 5, 2), (3, 3, 2, 4), {}, {"padding": "SAME"}),
    "strides": (
        (3, 7, 6, 2), (3, 2, 2, 3), {"strides": (2, 1), "padding": "VALID"},
        {"window_strides": (2, 1), "padding": "VALID"},
    ),
    "depthwise": (
        (3, 6, 6, 4), (3, 3, 1, 4), {"feature_group_count": 4, "padding": 1},
        {"feature_group_count": 4, "padding": ((1, 1), (1, 1))},
    ),
    "one tap": ((3, 4, 5, 3), (1, 1, 3, 2), {}, {"padding": "SAME"}),
    "dilation": (
        (3, 9, 2), (3, 2, 3), {"kernel_dilation": 2, "padding": [(2, 1)]},
        {"rhs_dilation": (2,), "padding": ((2, 1),)},
    ),
}  # fmt: skip


def in_flax_and_lax(x, scale, bias, kernel, **options):
    """Batch norm of flax, `jax.nn.relu` and lax's convolution."""
    module = nn.BatchNorm(
        use_running_average=False,
        epsilon=1e-5,
        momentum=0.0,
        use_scale=scale is not None,
        use_bias=bias is not None,
        use_fast_variance=False,
        param_dtype=jnp.float64,
    )
    given = {"scale": scale, "bias": bias}
    channels = x.shape[-1]
    variables = {
        "params": {name: a for name, a in given.items() if a is not None},
        "batch_stats": {"mean": jnp.zeros(channels), "var": jnp.ones(channels)},
    }
    h, moved = module.apply(variables, x, mutable=["batch_stats"])
    axes = "XY"[: x.ndim - 2]
    layout = f"N{axes}C", f"{axes}IO", f"N{axes}C"
    settings = {"window_strides": (1,) * len(axes)} | options
    y = lax.conv_general_dilated(jax.nn.relu(h), kernel, dimension_numbers=layout, **settings)
    stats = moved["batch_stats"]
    return y, (stats["mean"], stats["var"])


@pytest.mark.parametrize("with_scale", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_it_is_flax_and_lax(case, with_scale, with_bias):
    shape, taps, options, of_lax = CASES[case]
    x, scale, bias, kernel = draw(0, shape, shape[-1:], shape[-1:], taps)
    args = x, scale if with_scale else None, bias if with_bias else None, kernel
    args = jax.tree.map(jnp.asarray, args)

    def results(function, *args):
        y, vjp = jax.vjp(function, *args)
        leaves, tree = jax.tree.flatten(y)
        return y, vjp(tree.unflatten(jnp.asarray(draw(9 + a.ndim, a.shape)) for a in leaves))

    found = jax.jit(partial(results, partial(jaxcnn.batch_norm_relu_conv, **options)))(*args)
    wanted = jax.jit(partial(results, partial(in_flax_and_lax, **of_lax)))(*args)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree.map(assert_close, found, wanted)


def test_over_a_mapped_axis_the_moments_are_those_of_all():
    x, scale, bias, kernel = map(jnp.asarray, draw(0, (6, 4, 5, 2), (2,), (2,), (3, 3, 2, 3)))

    def loss(x, scale, bias, kernel, axis_name=None):
        y, (mean, var) = jaxcnn.batch_norm_relu_conv(x, scale, bias, kernel, axis_name=axis_name)
        return jnp.square(y - 1).sum(), (mean, var)

    def halves(x, *parameters):
        one = partial(loss, axis_name="halves")
        mapped = jax.vmap(one, (0, None, None, None), axis_name="halves")
        losses, moments = mapped(x.reshape(2, 3, *x.shape[1:]), *parameters)
        return losses.sum(), jax.tree.map(lambda both: both[0], moments)

    args = x, scale, bias, kernel
    found, wanted = (
        jax.value_and_grad(f, (0, 1, 2, 3), has_aux=True)(*args) for f in (halves, loss)
    )
    jax.tree.map(assert_close, found, wanted)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_narrow_dtypes_stay(dtype):
    x, scale, bias, kernel = draw(0, (16, 8, 8, 4), (4,), (4,), (3, 3, 4, 5))
    narrow = [jnp.asarray(a, dtype) for a in (x, scale, bias, kernel)]
    wide = [jnp.asarray(a, jnp.float64) for a in narrow]
    found, vjp = jax.vjp(lambda *args: jaxcnn.batch_norm_relu_conv(*args)[0], *narrow)
    wanted, of_wide = jax.vjp(lambda *args: in_flax_and_lax(*args, padding="SAME")[0], *wide)
    rtol = 1e-5 if dtype == jnp.float32 else 5e-2
    assert found.dtype == dtype
    assert_close(found, wanted, rtol)
    dy = draw(1, found.shape)
    for a, b in zip(vjp(jnp.asarray(dy, dtype)), of_wide(jnp.asarray(dy)), strict=True):
        assert a.dtype == dtype
        assert_close(a, b, rtol)


def test_of_the_images_x_alone_is_kept():
    shapes = (2, 6, 6, 3), (3,), (3,), (3, 3, 3, 4)
    args = [jnp.asarray(a, jnp.float32) for a in draw(0, *shapes)]
    _, vjp = jax.vjp(jaxcnn.batch_norm_relu_conv, *args)
    kept = [leaf for leaf in jax.tree.leaves(vjp) if np.ndim(leaf) == 4]
    assert sorted(leaf.shape for leaf in kept) == [(2, 6, 6, 3), (3, 3, 3, 4)]
    assert any(leaf is args[0] or (leaf == args[0]).all() for leaf in kept)


def test_unused_gradients_are_not_worked_out():
    shapes = [(2, 6, 6, 3), (3,), (3,), (3, 3, 3, 4)]
    args = [jnp.asarray(a, jnp.float32) for a in draw(0, *shapes)]

    def operations(*argnums):
        gradient = jax.jit(jax.grad(lambda *a: jaxcnn.batch_norm_relu_conv(*a)[0].sum(), argnums))
        text = gradient.lower(*args).compile().as_text()
        return sum(text.count(f" {name}(") for name in ("convolution", "dot", "fusion"))

    assert operations(3) < operations(0, 1, 2, 3)


@pytest.mark.parametrize(
    ("error", "shapes", "options", "message"),
    [
        (TypeError, [(2, 4, 3), (3,), (3,), (3, 3, 2)], {"epsilon": "small"}, "`epsilon` must be"),
        (ValueError, [(2, 4, 3), (2,), (3,), (3, 3, 2)], {}, "`scale` must have shape"),
        (ValueError, [(2, 4, 3), (3,), (3,), (3, 4, 2)], {}, "`kernel` of shape (3, 4, 2) has 4"),
        (ValueError, [(2, 4, 3), (3,), (3,), (3, 3, 2)], {"strides": 0}, "`strides` 0 must be"),
    ],
)
def test_bad_input(error, shapes, options, message):
    with pytest.raises(error) as found:
        jaxcnn.batch_norm_relu_conv(*map(jnp.ones, shapes), **options)
    assert str(found.value).startswith("batch_norm_relu_conv: ")
    assert message in str(found.value)
