import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, assert_same_vjp, draw
from jax import lax

import jaxcnn

NHWC = ("NHWC", "HWIO", "NHWC")

# (shape of lhs, shape of rhs, keywords)
CASES = {
    "channels first, in groups": (
        (2, 4, 7, 6), (6, 2, 3, 3),
        {"window_strides": (2, 1), "padding": "SAME", "feature_group_count": 2},
    ),
    "in groups of the batch": (
        (4, 4, 7, 6), (6, 4, 3, 2),
        {"window_strides": [1, 2], "padding": [(1, -1), (2, 0)], "batch_group_count": 2,
         "rhs_dilation": [2, 1]},
    ),
    "input dilation": (
        (2, 4, 5, 4), (3, 3, 4, 6),
        {"window_strides": (1, 2), "padding": ((1, 3), (2, 0)), "lhs_dilation": (2, 3),
         "dimension_numbers": NHWC},
    ),
    "input dilation, negative pads, groups": (
        (2, 4, 5, 4), (2, 3, 2, 6),
        {"window_strides": (3, 2), "padding": ((-2, 4), (1, -1)), "lhs_dilation": (3, 2),
         "rhs_dilation": (2, 1), "dimension_numbers": NHWC, "feature_group_count": 2},
    ),
    "another layout of the result": (
        (2, 7, 6, 4), (3, 3, 4, 6),
        {"window_strides": (1, 2), "padding": "SAME_LOWER",
         "dimension_numbers": ("NHWC", "HWIO", "CWNH")},
    ),
    "depthwise, one axis": (
        (2, 4, 9), (8, 1, 3),
        {"window_strides": (1,), "padding": "VALID", "feature_group_count": 4,
         "precision": lax.Precision.HIGHEST},
    ),
    "three axes": (
        (1, 2, 4, 3, 5), (3, 2, 2, 2, 2), {"window_strides": (1, 2, 1), "padding": "valid"},
    ),
    "no spatial axis": ((2, 4), (6, 4), {"window_strides": (), "padding": "SAME"}),
    "a window larger than the image": (
        (2, 3, 2, 2), (3, 3, 5, 5), {"window_strides": (1, 1), "padding": "VALID"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_same_as_lax(case):
    *shapes, keywords = CASES[case]
    lhs, rhs = draw(0, *shapes)
    if case == "a window larger than the image":  # lax has a value there, and no gradient
        assert jaxcnn.conv_general_dilated(lhs, rhs, **keywords).shape == (2, 3, 0, 0)
        dlhs, drhs = jax.grad(
            lambda *args: jaxcnn.conv_general_dilated(*args, **keywords).sum(), (0, 1)
        )(lhs, rhs)
        assert_close(dlhs, np.zeros(lhs.shape))
        assert_close(drhs, np.zeros(rhs.shape))
        return
    assert_same_vjp(
        lambda *args: jaxcnn.conv_general_dilated(*args, **keywords),
        lambda *args: lax.conv_general_dilated(*args, **keywords),
        lhs,
        rhs,
    )


def test_complex_arrays():
    shapes = (2, 4, 9), (6, 4, 3)
    parts = zip(draw(0, *shapes), draw(1, *shapes), strict=True)
    lhs, rhs = (real + 1j * imaginary for real, imaginary in parts)
    cotangent = jnp.asarray(draw(2, (2, 6, 9)) + 1j * draw(3, (2, 6, 9)))
    pairs = []
    for module in (jaxcnn, lax):
        y, vjp = jax.vjp(lambda *a, m=module: m.conv_general_dilated(*a, (1,), "SAME"), lhs, rhs)
        pairs.append((y, *vjp(cotangent)))
    for found, wanted in zip(*pairs, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-10)


def test_integers_have_a_value_and_no_gradient():
    lhs, rhs = jnp.arange(8).reshape(1, 1, 8), jnp.ones((1, 1, 3), int)
    y = jaxcnn.conv_general_dilated(lhs, rhs, (1,), "SAME")
    assert y.ravel().tolist() == [1, 3, 6, 9, 12, 15, 18, 13]
    with pytest.raises(TypeError, match="grad requires real- or complex-valued inputs"):
        jax.grad(lambda x: jaxcnn.conv_general_dilated(x, rhs, (1,), "SAME").sum())(lhs)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("preferred", [None, "float32", "float64"])
def test_narrow_dtypes_accumulate_as_preferred(dtype, preferred):
    lhs, rhs = (jnp.asarray(array, dtype) for array in draw(0, (2, 4, 9), (6, 4, 3)))

    def call(lhs, rhs):
        return jaxcnn.conv_general_dilated(lhs, rhs, (1,), "SAME", preferred_element_type=preferred)

    y, vjp = jax.vjp(call, lhs, rhs)
    assert y.dtype == (preferred or dtype)
    exact, exact_vjp = jax.vjp(
        lambda *args: lax.conv_general_dilated(*args, (1,), "SAME"),
        lhs.astype(jnp.float64),
        rhs.astype(jnp.float64),
    )
    dy = jnp.asarray(draw(1, y.shape), dtype)
    rtol = 8 * float(jnp.finfo(dtype).eps)
    assert_close(y.astype(jnp.float64), exact, rtol)
    pairs = zip(vjp(dy.astype(y.dtype)), exact_vjp(dy.astype(jnp.float64)), strict=True)
    for found, wanted in pairs:
        assert found.dtype == dtype
        assert_close(found.astype(jnp.float64), wanted, rtol)


TRANSPOSED = [
    {"padding": "SAME"},
    {"padding": "VALID"},
    {"padding": ((1, 2), (0, 1))},
    {"padding": ((1, 2), (0, 1)), "use_consistent_padding": True},
    {"padding": "SAME", "transpose_kernel": True, "rhs_dilation": (2, 1)},
    {"padding": "VALID", "dimension_numbers": ("NCHW", "OIHW", "NCHW"), "transpose_kernel": True},
]


@pytest.mark.parametrize("strides", [(2, 2), (1, 4)])
@pytest.mark.parametrize("keywords", TRANSPOSED)
def test_conv_transpose_is_lax_s(keywords, strides):
    assert_same_vjp(
        lambda *args: jaxcnn.conv_transpose(*args, strides, **keywords),
        lambda *args: lax.conv_transpose(*args, strides, **keywords),
        *draw(0, (2, 3, 3, 3), (3, 3, 3, 3)),
    )


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (((2, 3, 8), (4, 2, 3)), {}, "`rhs` of shape .* 2 input channels"),
        (((2, 3, 8), (4, 3, 3, 3)), {}, "`lhs` and `rhs` must have the same rank"),
        (((2, 4, 8), (5, 2, 3)), {"feature_group_count": 2}, "`feature_group_count` 2"),
        (((2, 4, 8), (4, 4, 3)), {"feature_group_count": 0}, "`feature_group_count` 0"),
        (((3, 4, 8), (4, 4, 3)), {"batch_group_count": 2}, "`batch_group_count` 2"),
        (((2, 3, 8), (4, 3, 3)), {"window_strides": (0,)}, r"`window_strides` \(0,\)"),
        (((2, 3, 8), (4, 3, 3)), {"window_strides": (1, 1)}, r"`window_strides` \(1, 1\)"),
        (((2, 3, 8), (4, 3, 3)), {"rhs_dilation": (-1,)}, r"`rhs_dilation` \(-1,\)"),
        (((2, 3, 8), (4, 3, 3)), {"padding": "FULL"}, "`padding` 'FULL'"),
        (((2, 3, 8), (4, 3, 3)), {"lhs_dilation": (2,)}, "`padding` 'SAME' must be pads"),
        (((2, 3, 8), (4, 3, 3)), {"dimension_numbers": ("NC", "OI", "NC")}, "`dimension_numbers`"),
    ],
)
def test_bad_arguments_name_function_argument_and_value(arguments, keywords, message):
    keywords = {"window_strides": (1,), "padding": "SAME"} | keywords
    with pytest.raises((TypeError, ValueError), match=f"conv_general_dilated: {message}"):
        jaxcnn.conv_general_dilated(*map(jnp.ones, arguments), **keywords)


def test_mixed_dtypes_and_unknown_padding():
    x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 2, 1))
    with pytest.raises(TypeError, match="conv_general_dilated: dtypes must be equal, got `lhs`"):
        jaxcnn.conv_general_dilated(x.astype(jnp.float32), kernel, (1, 1), "SAME")
    with pytest.raises(ValueError, match="conv_transpose: `padding` 'FULL'"):
        jaxcnn.conv_transpose(x, kernel, (2, 2), "FULL")
