import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from checking import assert_close, assert_same_vjp, draw
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxcnn
from jaxcnn import pooling

# (size, window, strides, pads)
GEOMETRIES = {
    "2x2, stride 2": ((4, 6), (2, 2), (2, 2), ((0, 0), (0, 0))),
    "a rest that no window meets": ((5, 7), (2, 3), (2, 3), ((0, 0), (0, 0))),
    "overlapping": ((6, 5), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "stride 1": ((5, 4), (3, 2), (1, 1), ((1, 1), (0, 1))),
    "stride above the window": ((7, 7), (2, 1), (3, 2), ((0, 0), (0, 0))),
    "pads wider than the window": ((3, 3), (2, 2), (1, 1), ((3, 2), (0, 3))),
    "negative pads": ((6, 6), (2, 2), (1, 2), ((-1, 0), (-2, 1))),
    "one axis": ((9,), (4,), (2,), ((1, 2),)),
    "three axes": ((3, 4, 3), (2, 2, 3), (1, 2, 1), ((0, 0), (0, 0), (1, 1))),
    "no window fits": ((2, 2), (3, 3), (1, 1), ((0, 0), (0, 0))),
}


def check_max_pool(size, taps, strides, pads, x=None):
    x = draw(0, (2, *size, 3)) if x is None else x
    y, vjp = jax.vjp(lambda x: jaxcnn.max_pool(x, taps, strides, pads), x)
    dy = draw(1, y.shape)
    wanted, dx = oracles.max_pool(x, dy, taps, strides, pads)
    np.testing.assert_array_equal(y, wanted)
    assert_close(vjp(jnp.asarray(dy))[0], dx)


def check_avg_pool(size, taps, strides, pads, count_include_pad=True):
    x = draw(0, (2, *size, 3))
    y, vjp = jax.vjp(lambda x: jaxcnn.avg_pool(x, taps, strides, pads, count_include_pad), x)
    dy = draw(1, y.shape)
    wanted, dx = oracles.avg_pool(x, dy, taps, strides, pads, count_include_pad)
    met = ~np.isnan(y)  # a window of nothing but padding has no mean, if that does not count
    assert_close(np.where(met, y, 0), wanted)
    assert_close(vjp(jnp.asarray(dy))[0], dx)


@pytest.mark.parametrize("case", GEOMETRIES)
def test_max_pool_is_a_float64_loop(case):
    check_max_pool(*GEOMETRIES[case])


@pytest.mark.parametrize("count_include_pad", [True, False])
@pytest.mark.parametrize("case", GEOMETRIES)
def test_avg_pool_is_a_float64_loop(case, count_include_pad):
    check_avg_pool(*GEOMETRIES[case], count_include_pad)


axes = st.tuples(
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(1, 4),
    st.tuples(st.integers(-1, 3), st.integers(-1, 3)),
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.lists(axes, min_size=1, max_size=2))
def test_any_geometry_is_that_of_a_float64_loop(geometry):
    geometry = tuple(zip(*geometry, strict=True))
    check_max_pool(*geometry)
    check_avg_pool(*geometry)


@pytest.mark.parametrize(
    ("strides", "batch", "padding"),
    [
        (None, (2,), "VALID"),
        ((2, 2), (2,), ((1, 0), (1, 1))),
        ((2, 1), (), ((1, 0), (1, 1))),
        ((2, 2), (2, 3), "SAME"),
    ],
)
@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
def test_same_as_flax(name, strides, batch, padding):
    manual, original = getattr(jaxcnn, name), getattr(flax.linen, name)
    x = draw(0, (*batch, 5, 4, 2))
    arguments = ((2, 3), strides, padding)
    assert_same_vjp(lambda x: manual(x, *arguments), lambda x: original(x, *arguments), x)


def test_avg_pool_without_the_padding_is_flax_s():
    x = draw(0, (2, 5, 4, 2))
    arguments = ((2, 3), (2, 1), "SAME", False)
    assert_same_vjp(
        lambda x: jaxcnn.avg_pool(x, *arguments),
        lambda x: flax.linen.avg_pool(x, *arguments),
        x,
    )


def test_the_first_of_equal_maxima_takes_the_gradient():
    """Few values, so that most windows have several equal maxima."""
    x = np.random.default_rng(0).integers(0, 2, (2, 6, 6, 2)).astype(np.float64)
    check_max_pool((6, 6), (3, 3), (2, 2), ((1, 1), (1, 1)), x)
    dx = jax.grad(lambda x: jaxcnn.max_pool(x, (2, 2)).sum())(jnp.ones((1, 2, 2, 1)))
    assert dx[0, :, :, 0].tolist() == [[1, 0], [0, 0]]


def test_ties_as_in_pytorch():
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).integers(0, 2, (2, 6, 6, 2)).astype(np.float64)
    tensor = torch.tensor(x, requires_grad=True)
    y = torch.nn.functional.max_pool2d(tensor.permute(0, 3, 1, 2), 3, 2, 1)
    dy = draw(1, (2, 3, 3, 2))
    y.backward(torch.tensor(dy).permute(0, 3, 1, 2))
    _, vjp = jax.vjp(lambda x: jaxcnn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))), x)
    assert_close(vjp(jnp.asarray(dy))[0], tensor.grad.numpy())


def test_padding_never_wins():
    x = jnp.full((1, 2, 2, 1), -jnp.inf)
    y, vjp = jax.vjp(lambda x: jaxcnn.max_pool(x, (2, 2), (2, 2), ((1, 1), (1, 1))), x)
    assert (y == -jnp.inf).all()
    assert (vjp(jnp.ones_like(y))[0] == 1).all()


def test_nan_goes_through_and_takes_the_gradient():
    x = jnp.array([1.0, jnp.nan, 3.0, jnp.nan])[None, :, None]
    y, vjp = jax.vjp(lambda x: jaxcnn.max_pool(x, (4,)), x)
    assert jnp.isnan(y).all()
    assert vjp(jnp.ones_like(y))[0].ravel().tolist() == [0, 1, 0, 0]


def test_the_residual_is_one_byte_an_output_element():
    window = pooling.Window((8, 8), (2, 2), (2, 2), ((0, 0), (0, 0)), (1, 1), (1, 1))
    y, winner = pooling.max_pool_fwd(draw(0, (2, 8, 8, 3)), window)
    assert winner.dtype == jnp.int8
    assert winner.shape == y.shape


def test_windows_of_more_than_128_taps():
    check_max_pool((12, 12), (12, 11), (1, 1), ((0, 0), (0, 0)))


@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
def test_empty_batch(name):
    x = jnp.zeros((0, 4, 4, 2))
    y, vjp = jax.vjp(lambda x: getattr(jaxcnn, name)(x, (2, 2)), x)
    assert y.shape == (0, 3, 3, 2)
    assert vjp(y)[0].shape == x.shape


@pytest.mark.parametrize("name", ["max_pool", "avg_pool"])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (((2, 2, 2, 2),), ValueError, r"`x` of shape \(1, 4, 4, 1\) .* `window_shape`"),
        (((0, 2),), ValueError, r"`window_shape` \(0, 2\)"),
        (((2, 2), (0, 1)), ValueError, r"`strides` \(0, 1\)"),
        (((2, 2), (1,)), ValueError, r"`strides` \(1,\)"),
        (((2, 2), None, "FULL"), ValueError, "`padding` 'FULL'"),
        (((2, 2), None, ((1, 1, 1), (0, 0))), TypeError, "`padding`"),
    ],
)
def test_bad_arguments_name_function_argument_and_value(name, arguments, error, message):
    with pytest.raises(error, match=f"{name}: {message}"):
        getattr(jaxcnn, name)(jnp.ones((1, 4, 4, 1)), *arguments)


def test_integers_are_refused():
    with pytest.raises(TypeError, match="max_pool: `x` must have a floating dtype, got int32"):
        jaxcnn.max_pool(jnp.ones((1, 4, 4, 1), jnp.int32), (2, 2))


@pytest.mark.parametrize("name", ["max_pool", "min_pool"])
def test_a_dilated_window_s_winner_takes_the_gradient(name):
    """By a loop over the taps: autodiff has no gradient here."""
    x = draw(0, (2, 7, 6, 3))
    y, vjp = jax.vjp(lambda x: getattr(jaxcnn, name)(x, (2, 2), window_dilation=(2, 3)), x)
    dy = draw(1, y.shape)
    wanted = np.zeros(x.shape)
    for n, i, j, c in np.ndindex(y.shape):
        taps = [(n, i + 2 * row, j + 3 * column, c) for row in (0, 1) for column in (0, 1)]
        winner = (max if name == "max_pool" else min)(taps, key=lambda tap: x[tap])
        assert y[n, i, j, c] == x[winner]
        wanted[winner] += dy[n, i, j, c]
    assert_close(vjp(jnp.asarray(dy))[0], wanted)
