import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from checking import assert_close, assert_same_vjp, draw
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jaxcnn
from jaxcnn import convolution

# (size, taps, channels in and out, keywords)
GEOMETRIES = {
    "same": ((5, 4), (3, 3), (2, 3), {}),
    "same, even taps": ((5, 4), (2, 4), (2, 3), {}),
    "same, stride 2": ((6, 5), (3, 3), (2, 3), {"strides": 2}),
    "same lower": ((6, 5), (2, 3), (2, 3), {"strides": 2, "padding": "SAME_LOWER"}),
    "valid": ((6, 5), (3, 2), (2, 3), {"padding": "VALID"}),
    "valid, strides that leave a rest": (
        (8, 7), (3, 2), (2, 3), {"padding": "VALID", "strides": (3, 2)},
    ),
    "explicit pads": ((5, 4), (3, 2), (2, 3), {"padding": ((2, 1), (0, 3))}),
    "negative pads": ((6, 6), (2, 2), (2, 3), {"padding": ((-1, 0), (1, -2))}),
    "one integer for all pads": ((4, 4), (3, 3), (2, 3), {"padding": 2}),
    "an integer an axis": ((4, 4), (3, 3), (2, 3), {"padding": [1, 0], "strides": [1, 2]}),
    "kernel dilation": ((7, 6), (3, 2), (2, 3), {"kernel_dilation": (2, 3)}),
    "stride and dilation": ((9, 8), (2, 3), (2, 3), {"strides": 2, "kernel_dilation": (3, 2)}),
    "1x1": ((3, 3), (1, 1), (3, 2), {}),
    "1x1, stride 2": ((5, 4), (1, 1), (3, 2), {"strides": 2}),
    "one spatial axis": ((9,), (4,), (2, 3), {"strides": 2}),
    "three spatial axes": ((3, 4, 3), (2, 2, 3), (2, 2), {"strides": (1, 2, 1)}),
    "no window fits": ((2, 2), (3, 3), (2, 3), {"padding": "VALID"}),
    # Where the input gradient that autodiff builds makes XLA:CPU abort the process.
    "XLA aborts": ((6, 5), (2, 3), (3, 4), {"strides": 2, "padding": ((1, 2), (0, 1))}),
}  # fmt: skip


def canonical(size, taps, strides=1, padding="SAME", kernel_dilation=1):
    """The geometry as the oracle takes it. Padding strings are resolved by lax."""
    rank = len(size)
    per_axis = [np.broadcast_to(value, rank).tolist() for value in (strides, kernel_dilation)]
    if isinstance(padding, str):
        span = [(k - 1) * d + 1 for k, d in zip(taps, per_axis[1], strict=True)]
        padding = lax.padtype_to_pads(size, span, per_axis[0], padding)
    elif isinstance(padding, int):
        padding = [padding] * rank
    pads = [(pad, pad) if isinstance(pad, int) else pad for pad in padding]
    return per_axis[0], pads, per_axis[1]


def check_against_loop(size, taps, channels, keywords, batch=2):
    x, kernel, bias = draw(0, (batch, *size, channels[0]), (*taps, *channels), channels[1:])
    y, vjp = jax.vjp(lambda *args: jaxcnn.conv(*args, **keywords), x, kernel, bias)
    geometry = canonical(size, taps, **keywords)
    assert_close(y, oracles.conv(x, kernel, *geometry) + bias, what="value")
    dy = draw(1, y.shape)
    dx, dkernel, dbias = vjp(jnp.asarray(dy))
    wanted_dx, wanted_dkernel = oracles.conv_grads(x, kernel, dy, *geometry)
    assert_close(dx, wanted_dx, what="dx")
    assert_close(dkernel, wanted_dkernel, what="dkernel")
    assert_close(dbias, dy.sum(tuple(range(dy.ndim - 1))), what="dbias")


@pytest.mark.parametrize("case", GEOMETRIES)
def test_value_and_cotangents_are_those_of_a_float64_loop(case):
    check_against_loop(*GEOMETRIES[case])


@st.composite
def geometries(draw):
    """A convolution small enough for the loop: its axes are independent, so two are enough."""
    rank = draw(st.integers(1, 2))
    axis = st.tuples(
        st.integers(1, 7),
        st.integers(1, 3),
        st.integers(1, 3),
        st.integers(1, 2),
        st.tuples(st.integers(-1, 3), st.integers(-1, 3)),
    )
    size, taps, strides, dilation, pads = zip(*(draw(axis) for _ in range(rank)), strict=True)
    keywords = {"strides": strides, "kernel_dilation": dilation, "padding": pads}
    return size, taps, (draw(st.integers(1, 3)), draw(st.integers(1, 3))), keywords


@settings(max_examples=25, deadline=None, derandomize=True)
@given(geometries())
def test_any_geometry_is_that_of_a_float64_loop(geometry):
    check_against_loop(*geometry)


@pytest.mark.parametrize("case", ["same, stride 2", "negative pads", "three spatial axes"])
def test_same_as_lax(case):
    size, taps, channels, keywords = GEOMETRIES[case]
    strides, pads, dilation = canonical(size, taps, **keywords)
    spatial = "XYZ"[: len(size)]

    def original(x, kernel):
        layout = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
        return lax.conv_general_dilated(
            x, kernel, strides, pads, rhs_dilation=dilation, dimension_numbers=layout
        )

    x, kernel = draw(0, (2, *size, channels[0]), (*taps, *channels))
    assert_same_vjp(lambda *args: jaxcnn.conv(*args, **keywords), original, x, kernel)


@pytest.mark.parametrize("case", ["same, stride 2", "explicit pads", "stride and dilation"])
def test_same_as_pytorch(case):
    torch = pytest.importorskip("torch")
    size, taps, channels, keywords = GEOMETRIES[case]
    strides, pads, dilation = canonical(size, taps, **keywords)
    x, kernel, bias = draw(0, (2, *size, channels[0]), (*taps, *channels), channels[1:])
    tensors = [torch.tensor(array, requires_grad=True) for array in (x, kernel, bias)]
    images = torch.nn.functional.pad(tensors[0].permute(0, 3, 1, 2), [*pads[1], *pads[0]])
    wanted = torch.nn.functional.conv2d(
        images, tensors[1].permute(3, 2, 0, 1), tensors[2], stride=strides, dilation=dilation
    ).permute(0, 2, 3, 1)
    y, vjp = jax.vjp(lambda *args: jaxcnn.conv(*args, **keywords), x, kernel, bias)
    assert_close(y, wanted.detach().numpy(), what="value")
    dy = draw(1, y.shape)
    wanted.backward(torch.tensor(dy))
    for found, tensor in zip(vjp(jnp.asarray(dy)), tensors, strict=True):
        assert_close(found, tensor.grad.numpy())


def test_parts_of_the_backward_pass_stand_alone():
    size, taps, channels, keywords = GEOMETRIES["stride and dilation"]
    geometry = canonical(size, taps, **keywords)
    x, kernel = draw(0, (2, *size, channels[0]), (*taps, *channels))
    dy = draw(1, oracles.conv(x, kernel, *geometry).shape)
    dx, dkernel = oracles.conv_grads(x, kernel, dy, *geometry)
    assert_close(jaxcnn.conv_input_grad(jnp.asarray(dy), kernel, size, **keywords), dx)
    assert_close(jaxcnn.conv_kernel_grad(x, jnp.asarray(dy), taps, **keywords), dkernel)


def test_forward_and_backward_rules_are_importable_and_pure():
    x, kernel = draw(0, (1, 4, 4, 2), (3, 3, 2, 3))
    window = convolution.Window((4, 4), (3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1))
    y, residuals = convolution.conv_fwd(x, kernel, None, window)
    dx, dkernel, dbias = convolution.conv_bwd(window, 1, None, None, residuals, jnp.ones_like(y))
    wanted = oracles.conv_grads(x, kernel, np.ones(y.shape), *window[2:5])
    assert_close(dx, wanted[0])
    assert_close(dkernel, wanted[1])
    assert dbias is None


def test_no_bias_and_no_bias_gradient():
    x, kernel = draw(0, (1, 4, 4, 2), (3, 3, 2, 3))
    without = jaxcnn.conv(x, kernel)
    assert_close(without, jaxcnn.conv(x, kernel, jnp.zeros(3)))


def test_empty_batch():
    x, kernel = jnp.zeros((0, 5, 5, 2)), draw(0, (3, 3, 2, 4))
    y, vjp = jax.vjp(jaxcnn.conv, x, kernel)
    dx, dkernel = vjp(y)
    assert y.shape == (0, 5, 5, 4)
    assert dx.shape == x.shape
    assert_close(dkernel, np.zeros(kernel.shape))


@pytest.mark.parametrize(
    ("arguments", "keywords", "error", "message"),
    [
        (((2, 8, 8), (3, 3, 3, 4)), {}, ValueError, r"conv: `x` of shape \(2, 8, 8\)"),
        (((2, 8, 8, 3), (3, 3, 2, 4)), {}, ValueError, "conv: `kernel` .* 2 input channels"),
        (((2, 3), (3, 4)), {}, ValueError, r"conv: `kernel` must .* got \(3, 4\)"),
        (((2, 8, 8, 3), (3, 0, 3, 4)), {}, ValueError, "conv: `kernel` must"),
        (((2, 8, 8, 3), (3, 3, 3, 4), (3,)), {}, ValueError, r"conv: `bias` .* \(4,\)"),
        (((2, 8, 3), (3, 3, 4)), {"strides": 0}, ValueError, "conv: `strides` 0"),
        (((2, 8, 3), (3, 3, 4)), {"strides": (1, 1)}, ValueError, r"conv: `strides` \(1, 1\)"),
        (((2, 8, 3), (3, 3, 4)), {"strides": 1.5}, TypeError, "conv: `strides`"),
        (((2, 8, 3), (3, 3, 4)), {"kernel_dilation": -1}, ValueError, "`kernel_dilation` -1"),
        (((2, 8, 3), (3, 3, 4)), {"padding": "FULL"}, ValueError, "conv: `padding` 'FULL'"),
        (((2, 8, 3), (3, 3, 4)), {"padding": ((1, 1), (1, 1))}, ValueError, "conv: `padding`"),
        (((2, 8, 3), (3, 3, 4)), {"padding": (1.5,)}, TypeError, "conv: `padding`"),
    ],
)
def test_bad_shapes_and_geometry_name_function_argument_and_value(
    arguments, keywords, error, message
):
    with pytest.raises(error, match=message):
        jax.eval_shape(
            lambda *arrays: jaxcnn.conv(*arrays, **keywords),
            *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in arguments),
        )


def test_bad_dtypes_name_function_argument_and_dtype():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 1))
    with pytest.raises(TypeError, match="conv: dtypes must be equal, got `x` float32"):
        jaxcnn.conv(x.astype(jnp.float32), kernel)
    with pytest.raises(TypeError, match="conv: `x` must be an array, got list"):
        jaxcnn.conv([1.0], kernel)
    with pytest.raises(ValueError, match=r"conv_input_grad: `dy` must have shape .* got"):
        jaxcnn.conv_input_grad(jnp.ones((1, 5, 4, 1)), kernel, (4, 4))
    with pytest.raises(ValueError, match=r"conv_kernel_grad: `dy` must have shape .* got"):
        jaxcnn.conv_kernel_grad(x, jnp.ones((1, 5, 4, 1)), (3, 3))
