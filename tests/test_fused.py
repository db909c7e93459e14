from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from checking import assert_close, assert_same_vjp, draw

import jaxcnn
from jaxcnn import fused, reference

# (x, kernel, options of the convolution)
CONVOLUTIONS = {
    "same": ((2, 6, 5, 2), (3, 3, 2, 3), {}),
    "strides": ((2, 7, 6, 2), (3, 2, 2, 3), {"strides": (2, 1), "padding": "VALID"}),
    "groups": ((2, 6, 6, 4), (3, 3, 2, 4), {"feature_group_count": 2}),
    "dilation": ((2, 7, 7, 1), (2, 2, 1, 3), {"kernel_dilation": 2, "padding": 1}),
    "one axis": ((2, 9, 2), (3, 2, 3), {}),
    "three axes": ((1, 4, 5, 4, 2), (2, 3, 2, 2, 3), {}),
}
POOLS = {
    "side by side": {"pool_shape": 2},
    "overlapping": {"pool_shape": 3, "pool_strides": 2, "pool_padding": "SAME"},
    "stride 1": {"pool_shape": 2, "pool_strides": 1},
}


def arrays(x, kernel):
    return [jnp.asarray(a) for a in draw(0, x, kernel, kernel[-1:])]  # the bias is not 0


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conv_relu_is_autodiff(case, with_bias):
    *shapes, options = CONVOLUTIONS[case]
    assert_same_vjp(
        lambda *args: jaxcnn.conv_relu(*args, **options),
        lambda *args: reference.conv_relu(*args, **options),
        *arrays(*shapes)[: 2 + with_bias],
    )


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_conv_relu_max_pool_is_autodiff(case, pool):
    *shapes, options = CONVOLUTIONS[case]
    assert_same_vjp(
        lambda *args: jaxcnn.conv_relu_max_pool(*args, **options, **POOLS[pool]),
        lambda *args: reference.conv_relu_max_pool(*args, **options, **POOLS[pool]),
        *arrays(*shapes),
    )


# On a CPU, many images of few channels in float32 are evaluated in a way of their own.
MANY = [
    pytest.param((16, 12, 9, 1), (5, 5, 1, 6), {"padding": "SAME"}, id="same"),
    pytest.param((17, 11, 8, 6), (5, 4, 6, 9), {"padding": "VALID", "strides": (1, 2)}, id="valid"),
]


def second_order(ops, options, x, kernel, bias):
    """The gradient of a gradient's norm."""

    def loss(*args):
        return (ops.conv_relu_max_pool(*args, pool_shape=2, **options) ** 3).mean()

    def norm(*args):
        grads = jax.grad(loss, (0, 1, 2))(*args)
        return sum((g**2).sum() for g in grads)

    return jax.grad(norm, (0, 1, 2))(x, kernel, bias)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize(("x", "kernel", "options"), MANY)
def test_many_images_of_few_channels_are_autodiff_in_float64(x, kernel, options, with_bias):
    wide = arrays(x, kernel)[: 2 + with_bias]
    narrow = [a.astype(np.float32) for a in wide]
    wide = [a.astype(np.float64) for a in narrow]

    def results(ops, *args):
        f = partial(ops.conv_relu_max_pool, pool_shape=2, **options)
        y, vjp = jax.vjp(f, *args)
        return y, *vjp(jnp.asarray(draw(1, y.shape), y.dtype))

    found, wanted = results(jaxcnn, *narrow), results(reference, *wide)
    jax.tree.map(partial(assert_close, rtol=1e-6), found, wanted)


@pytest.mark.parametrize(("x", "kernel", "options"), MANY)
def test_many_images_of_few_channels_in_second_order(x, kernel, options):
    wide = [jnp.asarray(a, jnp.float64) for a in (a.astype(np.float32) for a in arrays(x, kernel))]
    narrow = [a.astype(np.float32) for a in wide]
    found = second_order(jaxcnn, options, *narrow)
    wanted = second_order(reference, options, *wide)
    jax.tree.map(partial(assert_close, rtol=1e-5), found, wanted)


def test_of_equal_maxima_of_many_images_the_first_has_the_gradient():
    x = jnp.ones((16, 4, 4, 1), jnp.float32)
    kernel = jnp.zeros((3, 3, 1, 1), jnp.float32).at[1, 1].set(1.0)
    dx = jax.grad(lambda x: jaxcnn.conv_relu_max_pool(x, kernel, pool_shape=2).sum())(x)
    first = np.zeros((16, 4, 4, 1))
    first[:, ::2, ::2] = 1
    np.testing.assert_array_equal(dx, first)


def test_a_nan_in_one_of_many_images_stays_there():
    x = jnp.ones((16, 6, 6, 1), jnp.float32).at[3, 2, 2].set(jnp.nan)
    kernel = jnp.ones((3, 3, 1, 2), jnp.float32)
    y, vjp = jax.vjp(lambda x: jaxcnn.conv_relu_max_pool(x, kernel, pool_shape=2), x)
    assert not np.isfinite(y[3, 1, 1]).any()
    (dx,) = vjp(jnp.ones_like(y))
    for found in (y, dx):
        assert np.isfinite(np.delete(found, 3, 0)).all()


def test_conv_relu_max_pool_is_a_float64_loop():
    x, kernel, bias = draw(0, (2, 6, 6, 2), (3, 3, 2, 3), (3,))
    geometry = (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1
    z = oracles.general_conv(x, kernel, *geometry) + bias
    pool = (2, 2), (2, 2), ((0, 0), (0, 0))
    dy = draw(1, (2, 3, 3, 3))
    y, of_relu = oracles.max_pool(np.maximum(z, 0), dy, *pool)
    dz = np.where(z > 0, of_relu, 0)
    dx, dkernel = oracles.general_conv_grads(x, kernel, dz, *geometry)
    found, vjp = jax.vjp(
        lambda *args: jaxcnn.conv_relu_max_pool(*args, pool_shape=2),
        *map(jnp.asarray, (x, kernel, bias)),
    )
    assert_close(found, y)
    for cotangent, wanted in zip(
        vjp(jnp.asarray(dy)), (dx, dkernel, dz.sum((0, 1, 2))), strict=True
    ):
        assert_close(cotangent, wanted)


ONE = np.ones((1, 1, 1))


def gradient(values, *, pool_shape=2):
    """Of the sum over a pool of an image of one row, convolved with 1."""
    x = jnp.array(values).reshape(1, -1, 1)

    def total(x):
        return jaxcnn.conv_relu_max_pool(x, ONE, pool_shape=pool_shape).sum()

    return jax.grad(total)(x).ravel().tolist()


def test_of_equal_maxima_the_first_takes_all_and_nothing_passes_from_zero_down():
    assert gradient([2.0, 2.0, 0.0, 0.0]) == [1, 0, 0, 0]
    assert gradient([-1.0, -1.0, -2.0, 3.0]) == [0, 0, 0, 1]
    x = jnp.array([-1.0, 0.0, 2.0]).reshape(1, 3, 1)
    assert jax.grad(lambda x: jaxcnn.conv_relu(x, ONE).sum())(x).ravel().tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["conv_relu", "conv_relu_max_pool"])
def test_at_the_kink_nothing_passes_in_second_order(name):
    options = {"pool_shape": 2} if "pool" in name else {}
    x = jnp.zeros((1, 2, 1))

    def scaled(scale, x):
        return scale * getattr(jaxcnn, name)(x, ONE, **options).sum()

    def dscale(x):  # with dx beside it, so that the forward rule is differentiated
        return jax.grad(scaled, (0, 1))(1.0, x)[0]

    assert jax.grad(dscale)(x).ravel().tolist() == [0, 0]


def test_nan_goes_through_and_passes_nothing_back():
    x = jnp.array([jnp.nan, 1.0, 2.0, 3.0]).reshape(1, 4, 1)
    y = jaxcnn.conv_relu_max_pool(x, ONE, pool_shape=2)
    np.testing.assert_array_equal(y.ravel(), [np.nan, 3.0])
    np.testing.assert_array_equal(jaxcnn.conv_relu(x, ONE).ravel(), x.ravel())
    assert gradient([np.nan, 1.0, 2.0, 3.0]) == [0, 0, 0, 1]


def test_what_is_kept_is_the_output_or_a_byte_of_it():
    x, kernel, bias = (a.astype(np.float32) for a in draw(0, (2, 4, 4, 2), (3, 3, 2, 3), (3,)))
    at = fused.check_conv("", x, kernel, bias, 1, "SAME", 1, 1, 1)
    y, (_, kept) = fused.conv_relu_fwd(x, kernel, bias, at)
    assert kept is y
    pool = at._replace(size=(4, 4), taps=(2, 2), strides=(2, 2), pads=((0, 0), (0, 0)))
    y, (_, kept) = fused.conv_relu_max_pool_fwd(x, kernel, bias, at, pool)
    assert (kept.shape, kept.dtype) == (y.shape, np.int8)


@pytest.mark.parametrize(
    ("error", "options", "message"),
    [
        (ValueError, {"pool_shape": (2, 2)}, "conv_relu_max_pool: `pool_shape` (2, 2) must have 1"),
        (ValueError, {"pool_shape": 0}, "conv_relu_max_pool: `pool_shape` 0 must be at least 1"),
        (TypeError, {"pool_shape": 2.5}, "conv_relu_max_pool: `pool_shape` must hold integers"),
        (
            ValueError,
            {"pool_shape": 2, "pool_padding": 2},
            "conv_relu_max_pool: `pool_padding` 2 must leave no window of `pool_shape` 2 with",
        ),
    ],
)
def test_bad_pools(error, options, message):
    with pytest.raises(error) as raised:
        jaxcnn.conv_relu_max_pool(np.ones((1, 4, 1)), ONE, **options)
    assert str(raised.value).startswith(message)


def test_integers_have_no_relu_here():
    with pytest.raises(TypeError, match="conv_relu: `x` must have a floating dtype"):
        jaxcnn.conv_relu(jnp.ones((1, 4, 1), int), ONE.astype(int))
