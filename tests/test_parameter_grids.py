"""The parameters that JAX's and flax's own tests run these functions with, as far as they apply.

They are those of JAX's `lax_test`, `lax_autodiff_test`, `lax_scipy_test` and `nn_test`, and of
flax's tests of pools and convolutions. Values and cotangents must be the original's, in float64. Of
each grid so many cases are run that every two values of two parameters meet in one.
"""

import math
from functools import partial
from itertools import combinations, permutations, product

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checking import assert_close, draw
from jax import lax

import jaxcnn


def pairwise(**choices):
    """Of all combinations a few, as dictionaries: each two values of two names are in one."""
    grid = list(product(*(range(len(values)) for values in choices.values())))
    pairs = {case: set(combinations(enumerate(case), 2)) for case in grid}
    missing = set().union(*pairs.values())
    while missing:
        best = max(grid, key=lambda case: len(missing & pairs[case]))
        missing -= pairs[best]
        yield {
            name: list(values)[i] for (name, values), i in zip(choices.items(), best, strict=True)
        }


def assert_same(cases):
    """`assert_same_vjp` for a list of `(manual, original, arrays, name)`.

    All compile as one, which takes a third of the time.
    """

    def results(position, arrays):
        for case, args in zip(cases, arrays, strict=True):
            y, vjp = jax.vjp(case[position], *args)
            yield y, *vjp(jnp.asarray(draw(99, y.shape), y.dtype))

    manual, original = (
        jax.jit(lambda arrays, i=i: list(results(i, arrays)))([case[2] for case in cases])
        for i in (0, 1)
    )
    for found, wanted, (*_, name) in zip(manual, original, cases, strict=True):
        for position, (a, b) in enumerate(zip(found, wanted, strict=True)):
            what = f"{name}: {'cotangent' if position else 'value'} {position}"
            assert_close(a, b, what=what)
            assert a.dtype == b.dtype, what


def test_a_grid_s_pairs_all_meet():
    grid = {"a": [0, 1, 2], "b": "xyz", "c": [0, 1], "d": [0, 1]}
    for first, second in combinations(grid, 2):
        met = {(case[first], case[second]) for case in pairwise(**grid)}
        assert met == set(product(grid[first], grid[second]))
    assert len(list(pairwise(**grid))) <= 12


# Convolution, by JAX -----------------------------------------------------------------------------


def convolution(lhs, rhs, *geometry, **keywords):
    def of(module):
        return lambda *arrays: module.conv_general_dilated(*arrays, *geometry, **keywords)

    return of(jaxcnn), of(lax), draw(0, lhs, rhs), (lhs, rhs, geometry, keywords)


def laid_out(shape, standard, layout):
    return tuple(shape[standard.index(letter)] for letter in layout)


CHANNELS_FIRST = ("NCHW", "OIHW", "NCHW")
CHANNELS_LAST = ("NHWC", "HWIO", "NHWC")


def grouped(
    size, taps, b, i, j, strides, padding,
    groups=(1, 1), layout=CHANNELS_FIRST, lhs=None, rhs=None,
):  # fmt: skip
    """A batch of `b` a group, `i` and `j` channels a group in and out, dilated by `lhs`, `rhs`."""
    batch, features = groups
    return convolution(
        laid_out((b * batch, i * features, *size), "NCHW", layout[0]),
        laid_out((j * batch * features, i, *taps), "OIHW", layout[1]),
        strides,
        padding,
        lhs,
        rhs,
        layout,
        feature_group_count=features,
        batch_group_count=batch,
    )


CHANNELS = {"b": [2, 3], "i": [2, 3], "j": [2, 3]}
STRIDES = [(1, 1), (1, 2), (2, 1)]
NO_PADS = ((0, 0), (0, 0))
GROUPS = [(1, 1), (2, 1), (1, 2)]  # of the batch and of the features


def test_paddings_by_name():
    grid = pairwise(strides=STRIDES, padding=["VALID", "SAME", "SAME_LOWER"], **CHANNELS)
    assert_same([grouped((9, 10), (4, 5), **case) for case in grid])


def test_pads_and_dilations():
    grid = pairwise(
        strides=STRIDES, padding=[NO_PADS, ((1, 2), (2, 0))], lhs=[(1, 1), (1, 2), (2, 2)],
        rhs=[(1, 1), (1, 2), (2, 2)], b=[1, 2, 3], i=[1, 2, 3], j=[1, 2, 3],
    )  # fmt: skip
    assert_same([grouped((9, 10), (4, 5), **case) for case in grid])


@pytest.mark.parametrize("width", [0, 10])
def test_groups_layouts_and_wide_pads(width):
    grid = pairwise(
        groups=GROUPS, layout=[CHANNELS_FIRST, CHANNELS_LAST, ("NCHW", "HWIO", "NHWC")],
        strides=[(1, 1), (2, 1)], padding=[((1, 2), (2, 0)), ((10, 8), (7, 13))], **CHANNELS,
        lhs=[(1, 1), (1, 2), (1, 4)], rhs=[(1, 1), (1, 2), (1, 4)],
    )  # fmt: skip
    assert_same([grouped((9, width), (4, 5), **case) for case in grid])


@pytest.mark.parametrize("size", [(6, 7), (0, 4)])
def test_groups_layouts_and_negative_pads(size):
    grid = pairwise(
        groups=GROUPS, layout=[CHANNELS_FIRST, CHANNELS_LAST, ("NHWC", "OIHW", "NCHW")],
        padding=[NO_PADS, ((1, 0), (0, 1)), *([((0, -1), (0, 0))] if size[0] else [])],
        strides=STRIDES,
        lhs=[(1, 1), (2, 1)], rhs=[(1, 1), (2, 2)], b=[1, 2], i=[1, 2], j=[1, 2],
    )  # fmt: skip
    assert_same([grouped(size, (1, 2), **case) for case in grid])


def test_small_convolutions():
    named = pairwise(strides=STRIDES, padding=["VALID", "SAME"], **CHANNELS)
    pads = [NO_PADS, ((-1, 0), (0, -1)), ((1, 0), (0, 1))]
    dilated = pairwise(strides=STRIDES, padding=pads, lhs=[(1, 1), (2, 1)], **CHANNELS)
    line = product([[(1, 1)], [(0, 0)]], [(1,), (2,)], [(1,), (2,)])  # padding and dilations
    assert_same([
        *(grouped((3, 4), (1, 2), **case) for case in [*named, *dilated]),
        *(convolution((4, 2, 1), (3, 2, 1), (1,), *case) for case in line),
    ])  # fmt: skip


def test_no_spatial_axes():
    grid = pairwise(groups=GROUPS, **CHANNELS)
    nothing = {"strides": (), "padding": (), "layout": ("NC", "OI", "NC")}
    numbers = lax.ConvDimensionNumbers((0, 1), (1, 0), (0, 1))
    conv, _, arrays, name = convolution((10, 5), (5, 7), (), (), (), (), numbers)
    assert_same([
        *(grouped((), (), **nothing, **case) for case in grid),
        (conv, jnp.dot, arrays, name),
    ])  # fmt: skip


@pytest.mark.parametrize("rank", [1, 2])
def test_orders_of_axes(rank):
    """Of images, kernel and result, independently: all for one spatial axis, a third for two."""
    orders = [list(permutations(axes[: rank + 2])) for axes in ("NCHW", "OIHW", "NCHW")]
    rng = np.random.default_rng(0)
    shuffled = (map("".join, rng.permutation(order)) for order in orders)
    layouts = list(zip(*shuffled, strict=True))[:8]
    assert_same([
        convolution(
            laid_out((2, 4, 7, 6), "NCHW", layout[0]),
            laid_out((5, 4, 2, 3), "OIHW", layout[1]),
            (1, 2)[:rank],
            ("SAME", "VALID")[number % 2],
            None,
            (2, 1)[:rank],
            layout,
        )
        for number, layout in enumerate(layouts)
    ])  # fmt: skip


WIDER = {
    "float16": ["float16", "float32", "float64"],
    "bfloat16": ["bfloat16", "float32", "float64"],
    "float32": ["float32", "float64"],
    "float64": ["float64"],
    "complex64": ["complex64", "complex128"],
    "complex128": ["complex128"],
    "int8": ["int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"],
    "int16": ["int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"],
    "int32": ["int32", "int64", "float32", "float64"],
    "int64": ["int64", "float64"],
}


@pytest.mark.parametrize("dtype", WIDER)
def test_preferred_element_types(dtype):
    """The result is as if the arguments had that type."""
    arrays = [
        jnp.asarray(5 * array).astype(dtype) for array in draw(0, (2, 3, 9, 10), (3, 3, 4, 5))
    ]

    @jax.jit
    def results(lhs, rhs):
        conv = partial(jaxcnn.conv_general_dilated, window_strides=(1, 1), padding="VALID")
        original = partial(lax.conv_general_dilated, window_strides=(1, 1), padding="VALID")
        return [
            (
                conv(lhs, rhs, preferred_element_type=wider),
                original(lhs.astype(wider), rhs.astype(wider)),
            )
            for wider in WIDER[dtype]
        ]

    for wider, (y, wanted) in zip(WIDER[dtype], results(*arrays), strict=True):
        assert y.dtype == wider
        if jnp.issubdtype(wider, jnp.integer):
            np.testing.assert_array_equal(y, wanted)
        else:
            error = np.abs(y - wanted).max() / np.abs(wanted).max()
            assert error <= 8 * jnp.finfo(wider).eps, wider


# Transposed convolution, by JAX ------------------------------------------------------------------


def transposed(size, k, b, i, j, transpose_kernel=False, **keywords):
    axes = "HW"[: len(size)]
    keywords |= {"dimension_numbers": (f"N{axes}C", f"{axes}IO", f"N{axes}C")}
    lhs = (b, *size, i)
    rhs = (*(k for _ in size), *((j, i) if transpose_kernel else (i, j)))

    def of(module):
        return lambda *arrays: module.conv_transpose(
            *arrays, transpose_kernel=transpose_kernel, **keywords
        )

    return of(jaxcnn), of(lax), draw(0, lhs, rhs), (lhs, rhs, transpose_kernel, keywords)


def test_conv_transpose():
    pads = list(product(range(3), repeat=2))[::2]
    plane = pairwise(
        strides=[(1, 1), (1, 2), (2, 1), (2, 2), (3, 3)], rhs_dilation=[None, (2, 2)],
        padding=[*zip(pads, pads[::-1], strict=True), "VALID", "SAME"],
        k=[3, 4, 5], transpose_kernel=[False, True], use_consistent_padding=[True], **CHANNELS,
    )  # fmt: skip
    line = pairwise(
        strides=[(1,), (2,), (3,)], rhs_dilation=[None, (2,)], padding=["VALID", "SAME"],
        k=[3, 4, 5], **CHANNELS,
    )  # fmt: skip
    point = pairwise(
        strides=[()], rhs_dilation=[None, ()], padding=["VALID", "SAME"], k=[1], **CHANNELS
    )
    assert_same([
        transposed(size, **case)
        for size, grid in [((9, 10), plane), ((10,), line), ((), point)]
        for case in grid
    ])  # fmt: skip


# Pools, by JAX and by flax -----------------------------------------------------------------------


POOLS = {
    "max_pool": (-jnp.inf, lax.max),
    "min_pool": (jnp.inf, lax.min),
    "avg_pool": (0.0, lax.add),
}


def windows(shape, name, dims, strides, padding, dilation):
    """Over all axes of `shape`; jaxcnn's pools want one of channels besides."""
    keywords = {"window_dilation": dilation} if name == "avg_pool" else {}  # no others in JAX's
    count = math.prod(dims) if name == "avg_pool" else 1

    def manual(x):
        return getattr(jaxcnn, name)(x[..., None], dims, strides, padding, **keywords)[..., 0]

    def original(x):
        return lax.reduce_window(x, *POOLS[name], dims, strides, padding, **keywords) / count

    return manual, original, [draw(0, shape)], (name, shape, dims, strides, padding, keywords)


def test_windows():
    plane = pairwise(
        name=POOLS, dims=[(2, 1), (1, 2)], strides=STRIDES, dilation=[(1, 1), (1, 2)],
        padding=["VALID", "SAME", ((0, 3), (1, 2))],
    )  # fmt: skip
    four_axes = pairwise(
        name=POOLS, dims=[(1, 1, 2, 1), (2, 1, 2, 1)], strides=[(1, 2, 2, 1), (1, 1, 1, 1)],
        padding=["VALID", "SAME", ((0, 1), (1, 0), (2, 3), (0, 2))],
        dilation=[(1, 1, 1, 1), (1, 2, 2, 1)],
    )  # fmt: skip
    assert_same(
        [windows((4, 6), **case) for case in plane]
        + [windows((3, 2, 4, 6), **case) for case in four_axes]
    )


@pytest.mark.parametrize("shape", [(1, 3, 3, 1), (3, 3, 1)])
@pytest.mark.parametrize("count_include_pad", [True, False])
def test_avg_pool_of_equal_elements(shape, count_include_pad):
    pool = partial(jaxcnn.avg_pool, window_shape=(2, 2), count_include_pad=count_include_pad)
    x = jnp.full(shape, 2.0)
    y, vjp = jax.vjp(pool, x)
    assert (y == 2).all()
    quarters = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    np.testing.assert_array_equal(vjp(jnp.ones_like(y))[0], quarters.reshape(shape))


@pytest.mark.parametrize("counts", [[4, 4, 4, 4], [4, 2, 2, 1]], ids=["all", "inside"])
def test_avg_pool_at_the_border(counts):
    x = jnp.arange(1.0, 5).reshape(1, 2, 2, 1)
    y = jaxcnn.avg_pool(x, (2, 2), padding="SAME", count_include_pad=counts[-1] == 4)
    np.testing.assert_array_equal(y.ravel(), np.array([10, 6, 7, 4]) / counts)


def test_max_pool_of_a_ramp():
    x = jnp.arange(9.0).reshape(1, 3, 3, 1)
    y, vjp = jax.vjp(lambda x: jaxcnn.max_pool(x, (2, 2)), x)
    assert y.ravel().tolist() == [4, 5, 7, 8]
    assert vjp(jnp.ones_like(y))[0].ravel().tolist() == [0, 0, 0, 0, 1, 1, 0, 1, 1]


@pytest.mark.parametrize("batch", [(1, 8), ()])
def test_pools_of_any_batch(batch):
    x = jnp.zeros((*batch, 32, 32, 3), jnp.float32)
    assert jaxcnn.max_pool(x, (2, 2), (2, 2)).shape == (*batch, 16, 16, 3)


# flax's convolution layers -----------------------------------------------------------------------


def layer(shape, features, kernel_size, mask=None, use_bias=True, **keywords):
    """flax's layer, on jaxcnn's convolution and on lax's, as a function of input and parameters."""
    groups = keywords.get("feature_group_count", 1)
    kernel = (*kernel_size, shape[-1] // groups, features)

    def of(convolution):
        conv = flax.linen.Conv(
            features, kernel_size, use_bias=use_bias, mask=mask, conv_general_dilated=convolution,
            dtype=jnp.float64, param_dtype=jnp.float64, **keywords,
        )  # fmt: skip
        names = ("kernel", "bias")
        return lambda x, *params: conv.apply({"params": dict(zip(names, params))}, x)  # noqa: B905

    arrays = draw(0, shape, kernel, (features,))
    manual, original = of(jaxcnn.conv_general_dilated), of(lax.conv_general_dilated)
    return manual, original, arrays if use_bias else arrays[:2], (shape, kernel, keywords)


def test_flax_layers():
    """Of one image, with and without all that a layer can have."""
    grid = pairwise(
        strides=[None, (2, 3)], padding=["VALID", "CIRCULAR", "REFLECT", (4, 2)],
        use_bias=[True, False], mask=[None, np.tril(np.ones((7, 4, 1, 6)))],
        input_dilation=[None, (2, 3)],
    )  # fmt: skip
    cases = []
    for case in grid:
        if case["input_dilation"]:
            case["padding"] = (4, 2)  # a dilated input has no padding by name
        cases.append(
            layer(
                (24, 9, 3), 6, (7, 4), kernel_dilation=(2, 3), feature_group_count=3,
                precision=lax.Precision.HIGHEST, **case,
            )
        )  # fmt: skip
    assert_same(cases)


def test_flax_layers_with_circular_and_causal_padding():
    grid = pairwise(n=[1, 3], features=[1, 2], k=[1, 2, 3, 9], i=[1, 3], size=[1, 8])
    circular = {"padding": "CIRCULAR"}
    assert_same([
        *(layer((c["n"], c["size"], c["i"]), c["features"], (c["k"],), **circular) for c in grid),
        layer((1, 5, 1), 1, (3,), strides=(3,), **circular),
        layer((1, 5, 1), 1, (3,), kernel_dilation=(3,), **circular),
        layer((1, 3, 3, 1), 1, (3, 3), **circular),
        layer((1, 8, 4), 4, (3,), padding="CAUSAL"),
        layer((1, 8, 4), 4, (3,), padding="VALID", feature_group_count=2),
        layer((2, 5, 8, 3), 4, (3,), padding="VALID"),
        layer((8, 3), 4, (3,), padding="VALID"),
    ])  # fmt: skip


# Activations, by JAX -----------------------------------------------------------------------------

# name: (the points of its gradients, and their orders)
POINTS = {
    "softplus": ([1e-8], 4),
    "mish": ([1e-8], 4),
    "relu": ([1.0, -1.0], 3),
    "relu6": ([1.0, -1.0], 3),
    "elu": ([1e4], 4),
    "tanh": ([0.0, 1000.0], 2),
    "sigmoid": ([-0.3, 2.0], 2),
}


@pytest.mark.parametrize("name", POINTS)
def test_derivatives_of_higher_order(name):
    points, order = POINTS[name]

    def derivatives(f):
        found = []
        for _ in range(order):
            f = jax.grad(f)
            found.append(jax.vmap(f)(jnp.array(points)))
        return found

    found, wanted = (
        jax.jit(derivatives, static_argnums=0)(getattr(m, name)) for m in (jaxcnn, jax.nn)
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["softplus", "mish"])
def test_gradients_at_what_is_not_finite(name):
    x = jnp.array([0.0, jnp.inf, -jnp.inf, jnp.nan])
    found, wanted = (jax.vmap(jax.grad(getattr(module, name)))(x) for module in (jaxcnn, jax.nn))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_values_at_special_points():
    assert jaxcnn.softplus(89.0) == 89
    assert_close(jaxcnn.mish(1e3), 1e3)
    assert jaxcnn.elu(1e4) == 1e4
    assert jaxcnn.glu(jnp.array([1.0, 0.0]), axis=0) == 0.5
    assert jax.grad(jaxcnn.relu6)(0.0) == jax.grad(jaxcnn.relu6)(6.0) == 0


@pytest.mark.parametrize("dtype", ["int8", "int64", "bfloat16", "float16", "float32", "float64"])
def test_softplus_and_mish_of_zero(dtype):
    zero = jnp.zeros((), dtype)
    y = jaxcnn.softplus(zero)
    np.testing.assert_allclose(y.astype(float), math.log(2), rtol=float(jnp.finfo(y.dtype).eps))
    assert jaxcnn.mish(zero) == 0


@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_over_a_long_interval(approximate):
    """Its left tail is small, and must not cancel: so it is compared point by point."""
    x = jnp.linspace(-12, 5, 10_000, dtype=jnp.float32)
    y = jaxcnn.gelu(x, approximate)
    exact = [v * math.erfc(-v / math.sqrt(2)) / 2 for v in np.asarray(x, np.float64)]
    np.testing.assert_allclose(y, exact, rtol=2e-5, atol=1e-3 if approximate else 0)
    assert jaxcnn.gelu(jnp.array(-1), approximate) == jaxcnn.gelu(jnp.array(-1.0), approximate)


@pytest.mark.parametrize("name", ["elu", "hard_tanh"])
def test_traced_arrays_take_no_memory(name):
    jax.make_jaxpr(lambda: getattr(jaxcnn, name)(jnp.ones((10**12,))))()


def test_no_tracer_leaks_from_a_scan():
    @jax.jit
    def run():
        a = jnp.array(1.0)
        return lax.scan(lambda x, _: (jaxcnn.sigmoid(x + a), None), jnp.array(0.0), None, 2)

    with jax.checking_leaks():
        run()


# Softmax and its relatives, by JAX ---------------------------------------------------------------

SOFTMAXES = ["softmax", "log_softmax"]
LOGITS = np.array([5.5, 1.3, -4.2, 0.9])


@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax_of_nothing(name):
    softmax = getattr(jaxcnn, name)
    assert softmax(jnp.zeros(0)).shape == (0,)
    y = softmax(jnp.array(LOGITS), where=jnp.zeros(4, bool))
    assert (y == (0 if name == "softmax" else -jnp.inf)).all()


@pytest.mark.parametrize("name", SOFTMAXES)
def test_softmax_over_some_elements(name):
    """As if the others were not there: in value, and in the gradients of two orders."""
    softmax, original = getattr(jaxcnn, name), getattr(jax.nn, name)
    some = np.array([0, 2, 3])
    where = jnp.array([True, False, True, True])

    def results(f):
        return f(LOGITS[some]), jax.jacrev(f)(LOGITS[some]), jax.hessian(f)(LOGITS[some])

    def masked(x):
        return softmax(jnp.zeros(4).at[some].set(x), where=where)[some]

    found, wanted = (jax.jit(results, static_argnums=0)(f) for f in (masked, original))
    jax.tree.map(assert_close, found, wanted)


@pytest.mark.parametrize("name", SOFTMAXES)
def test_a_large_logit_that_takes_no_part_has_no_gradient(name):
    x = jnp.array([36.0, 10000.0])
    dx = jax.grad(lambda x: getattr(jaxcnn, name)(x, where=x < 1000)[0])(x)
    assert dx.tolist() == [0, 0]


def test_softmax_keeps_one_residual():
    _, vjp = jax.vjp(jaxcnn.softmax, jnp.array(LOGITS))
    assert [leaf.shape for leaf in jax.tree.leaves(vjp)] == [(4,)]


def test_logsumexp():
    """With factors whose sum may be negative, and so with its sign."""

    def case(a, b, axis, keepdims):
        def of(function):
            if b is None:
                return lambda a: function(a, axis, keepdims=keepdims)
            return lambda *arrays: function(
                arrays[0], axis, arrays[1], keepdims=keepdims, return_sign=True
            )[0]

        arrays = [draw(0, a)] if b is None else draw(0, a, b)
        return of(jaxcnn.logsumexp), of(jax.nn.logsumexp), arrays, (a, b, axis, keepdims)

    groups = [[(4,)], [(3, 4), (3, 1), (1, 4)], [(2, 3, 4), (2, 1, 4)]]
    shapes = [pair for group in groups for pair in product(group, [None, *group])]
    assert_same([
        case(a, b, number % (2 * len(a)) - len(a), number // 2 % 2 == 1)
        for number, (a, b) in enumerate(shapes)
    ])  # fmt: skip
