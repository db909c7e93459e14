"""Every evaluation of a convolution, against a float64 loop and against lax, and what is chosen."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from checking import assert_close, draw
from jax import lax

from jaxcnn._cpu import choice, cuts, depthwise, parts, patches, pooled_convolution, winograd
from jaxcnn._window import Window


def window(size, taps, strides=1, pads=1, dilation=1):
    axes = len(size)
    each = (value if isinstance(value, tuple) else (value,) * axes for value in (strides, dilation))
    strides, dilation = each
    pads = pads if isinstance(pads, tuple) else ((pads, pads),) * axes
    return Window(size, taps, strides, pads, dilation, (1,) * axes)


def numbers(at, batch, channels, features, groups=1):
    x = draw(0, (batch, *at.size, channels))
    kernel = draw(1, (*at.taps, channels // groups, features))
    return x, kernel, draw(2, (batch, *at.outputs, features))


def by_loop(x, kernel, dy, at, groups=1):
    geometry = (at.strides, at.pads, at.dilation, at.input_dilation, groups)
    y = oracles.general_conv(x, kernel, *geometry)
    return y, *oracles.general_conv_grads(x, kernel, dy, *geometry)


GEOMETRIES = [
    pytest.param(window((6, 5), (3, 3)), id="same"),
    pytest.param(window((7, 9), (2, 3), pads=((0, 1), (2, 0))), id="uneven"),
    pytest.param(window((9, 8), (5, 4), pads=0), id="no padding"),
    pytest.param(window((8, 7), (3, 2), strides=(2, 1)), id="strides"),
    pytest.param(window((9, 9), (3, 3), strides=2, pads=((1, 0), (-1, 2))), id="cropped"),
    pytest.param(window((7, 6), (1, 1), strides=2, pads=0), id="strides that skip"),
    pytest.param(window((8, 5), (3, 2), strides=(3, 2), pads=((1, 0), (0, 1))), id="side by side"),
    pytest.param(window((2, 1), (1, 1), strides=2, pads=((0, 0), (-1, 1))), id="nothing met"),
    pytest.param(window((9, 8), (3, 2), dilation=(2, 3), pads=2), id="dilation"),
    pytest.param(window((11,), (3,), strides=2, dilation=3), id="both"),
    pytest.param(window((23,), (6,), strides=2, pads=2), id="one axis"),
    pytest.param(window((4, 3, 5), (2, 3, 2), strides=(1, 2, 1)), id="three axes"),
]


@pytest.mark.parametrize("at", GEOMETRIES)
@pytest.mark.parametrize(("channels", "features", "groups"), [(1, 2, 1), (4, 6, 2)])
@pytest.mark.parametrize(("part", "least"), [(1, 1), (1, patches.LEAST), (100, 1)])
def test_patches(at, channels, features, groups, part, least, monkeypatch):
    # With the first two, bands of a row, of one image or all; with the last, of a few rows.
    monkeypatch.setattr(patches, "PART", part)
    monkeypatch.setattr(patches, "LEAST", least)
    x, kernel, dy = numbers(at, 3, channels, features, groups)
    y, dx, dkernel = by_loop(x, kernel, dy, at, groups)
    assert_close(jax.jit(partial(patches.forward, window=at, groups=groups))(x, kernel), y)
    found = jax.jit(partial(patches.kernel_grad, window=at, groups=groups))(x, dy)
    assert_close(found, dkernel)
    found = jax.jit(partial(patches.input_grad, window=at, groups=groups))(dy, kernel)
    assert_close(found, dx)


ALONG_LAST = [
    pytest.param(window((9, 12), (3, 2), strides=(1, 3), pads=((2, 0), (1, 1))), id="strides"),
    pytest.param(window((6, 5), (1, 3)), id="nothing to divide"),
]


@pytest.mark.parametrize(
    "at",
    [g for g in GEOMETRIES if max(g.values[0].strides) == 1 < len(g.values[0].taps)] + ALONG_LAST,
)
@pytest.mark.parametrize("part", [1, 30, patches.PART])
@pytest.mark.parametrize(("channels", "features"), [(4, 2), (1, 6)])
def test_kernel_grad_by_rows_of_both(at, part, channels, features, monkeypatch):
    monkeypatch.setattr(patches, "PART", part)  # bands of a row, bands of some, all at once
    x, kernel, dy = numbers(at, 3, channels, features)
    _, _, dkernel = by_loop(x, kernel, dy, at)
    assert_close(jax.jit(partial(patches.kernel_grad_of_both, window=at))(x, dy), dkernel)


@pytest.mark.parametrize(("batch", "halves"), [(8, True), (9, False)])
@pytest.mark.parametrize(("channels", "features"), [(3, 5), (5, 3)])
def test_kernel_grad_in_halves_of_the_rows(batch, halves, channels, features, monkeypatch):
    monkeypatch.setattr(patches, "HALVED", range(16))
    monkeypatch.setattr(patches, "SHORT", 3)
    at = window((5, 3), (1, 1), pads=0)
    x, kernel, dy = numbers(at, batch, channels, features)
    kernel_grad = jax.jit(partial(patches.kernel_grad, window=at))
    _, _, dkernel = by_loop(x, kernel, dy, at)
    assert_close(kernel_grad(x, dy), dkernel)
    assert (f"[2,{batch * 15 // 2}," in str(kernel_grad.trace(x, dy).jaxpr)) is halves


def test_halves_are_of_many_rows_for_few_entries():
    assert patches._in_halves(50176, 256, 64)
    assert not patches._in_halves(784, 512, 2048)
    assert not patches._in_halves(50175, 256, 64)  # an odd number
    assert not patches._in_halves(50176, 64, 64)


@pytest.mark.parametrize(("images", "loops"), [(3, False), (4, True)])
def test_few_parts_are_one(images, loops, monkeypatch):
    at = window((6, 6), (3, 3))
    x, kernel, dy = numbers(at, images, 2, 5)
    monkeypatch.setattr(patches, "PART", 6 * 6 * 9 * 2)  # an image's rows
    monkeypatch.setattr(patches, "LEAST", 1)
    monkeypatch.setattr(winograd, "ROWS", 3 * 4)  # three images' tiles
    monkeypatch.setattr(winograd, "PART", 1)
    for evaluation, a, b in (
        (patches.forward, x, kernel),
        (patches.kernel_grad, x, dy),
        (winograd.kernel_grad, x, dy),
    ):
        program = str(jax.jit(partial(evaluation, window=at)).trace(a, b).jaxpr)
        assert ("scan[" in program or "while[" in program) is loops


@pytest.mark.parametrize("at", [g for g in GEOMETRIES if max(g.values[0].strides) == 1])
@pytest.mark.parametrize("products", [1, patches.PRODUCTS])
def test_to_few_channels(at, products, monkeypatch):
    monkeypatch.setattr(patches, "PRODUCTS", products)  # with the first, an image a part
    x, kernel, dy = numbers(at, 3, 4, 2)
    y, _, _ = by_loop(x, kernel, dy, at)
    assert_close(jax.jit(partial(patches.forward_to_few, window=at))(x, kernel), y)


@pytest.mark.parametrize(
    "at",
    [
        pytest.param(window((4, 3), (1, 1), pads=0), id="no strides"),
        pytest.param(window((7, 6), (1, 1), strides=(2, 3), pads=0), id="strides"),
        pytest.param(window((7, 6), (1, 1), strides=2, pads=((1, 3), (-1, -2))), id="pads, crops"),
        pytest.param(window((2, 1), (1, 1), strides=2, pads=((0, 0), (-1, 1))), id="nothing met"),
        pytest.param(window((9,), (1,), strides=4, pads=2), id="one axis"),
    ],
)
def test_input_grad_of_one_tap(at):
    x, kernel, dy = numbers(at, 3, 4, 2)
    _, dx, _ = by_loop(x, kernel, dy, at)
    assert_close(jax.jit(partial(patches.input_grad_of_one_tap, window=at))(dy, kernel), dx)


@pytest.mark.parametrize("at", GEOMETRIES)
def test_depthwise(at):
    x, kernel, dy = numbers(at, 3, 2, 2, groups=2)
    y, dx, dkernel = by_loop(x, kernel, dy, at, groups=2)
    assert_close(jax.jit(partial(depthwise.forward, window=at))(x, kernel), y)
    assert_close(jax.jit(partial(depthwise.input_grad, window=at))(dy, kernel), dx)
    assert_close(jax.jit(partial(depthwise.kernel_grad, window=at))(x, dy), dkernel)


@pytest.mark.parametrize(
    "at",
    [
        *GEOMETRIES,
        pytest.param(window((16, 3), (3, 3)), id="rows by eights"),
        pytest.param(window((25, 4), (3, 2), strides=2), id="rows that do not divide"),
        pytest.param(window((37,), (5,), strides=2), id="of one axis"),
    ],
)
@pytest.mark.parametrize(("terms", "cache"), [(depthwise.TERMS, parts.CACHE), (16, 1)])
@pytest.mark.parametrize("within", [1, 3])
def test_depthwise_kernel_grad_by_rows(at, terms, cache, within, monkeypatch):
    monkeypatch.setattr(depthwise, "SMALL", 0)
    monkeypatch.setattr(depthwise, "TERMS", terms)  # with the second, two of them a loop or more
    monkeypatch.setattr(depthwise, "CACHE", cache)  # and an image a part
    x, kernel, dy = numbers(at, 3, 2 * within, 2 * within, groups=2)
    _, _, dkernel = by_loop(x, kernel, dy, at, groups=2)
    found = jax.jit(partial(depthwise.kernel_grad, window=at, within=within))(x, dy)
    assert_close(found, dkernel)


@pytest.mark.parametrize("at", GEOMETRIES)
@pytest.mark.parametrize("within", [2, 4])
def test_forward_in_groups_of_few_channels(at, within):
    x, kernel, dy = numbers(at, 3, 3 * within, 3 * within, groups=3)
    y, _, _ = by_loop(x, kernel, dy, at, groups=3)
    assert_close(jax.jit(partial(depthwise.forward, window=at))(x, kernel), y)


@pytest.mark.parametrize("taps", [(3, 3), (2, 5), (4, 2)])
@pytest.mark.parametrize("pads", [((1, 1), (1, 1)), ((0, 2), (3, -1))])
@pytest.mark.parametrize("rows", [1, winograd.ROWS])
def test_winograd(taps, pads, rows, monkeypatch):
    monkeypatch.setattr(winograd, "ROWS", rows)
    at = window((9, 6), taps, pads=pads)
    x, kernel, dy = numbers(at, 3, 2, 3)
    y, dx, dkernel = by_loop(x, kernel, dy, at)
    adjoint = choice.Problem(3, 2, 3, at, 1, exact=False).adjoint.window
    turned = {"window": adjoint, "turned": True}
    assert_close(jax.jit(partial(winograd.forward, window=at))(x, kernel), y)
    assert_close(jax.jit(partial(winograd.forward, **turned))(dy, kernel), dx)
    monkeypatch.setattr(winograd, "BLOCK", 72 * 2)  # entries of U for two of six features
    wide = jnp.concatenate([kernel, -kernel], -1)
    found = jax.jit(partial(winograd.forward_by_features, window=at))(x, wide)
    assert_close(found, np.concatenate([y, -y], -1))
    monkeypatch.setattr(winograd, "BLOCK", 108 * 2)  # and for two of four channels
    wide = jnp.concatenate([kernel, -kernel], -2)
    found = jax.jit(partial(winograd.forward_by_features, **turned))(dy, wide)
    assert_close(found, np.concatenate([dx, -dx], -1))
    assert_close(jax.jit(partial(winograd.kernel_grad, window=at))(x, dy), dkernel)
    monkeypatch.setattr(winograd, "PRODUCTS", 72)  # those of one of three features
    assert_close(jax.jit(partial(winograd.kernel_grad, window=at))(x, dy), dkernel)
    monkeypatch.setattr(winograd, "ALONE", 0)  # and all points at once
    assert_close(jax.jit(partial(winograd.kernel_grad, window=at))(x, dy), dkernel)


@pytest.mark.parametrize("images", [4, 6, 7])
@pytest.mark.parametrize("height", [9, 16])  # as one, and in bands
@pytest.mark.parametrize("narrow", [True, False])
def test_winograd_in_halves_of_a_part(images, height, narrow, monkeypatch):
    for name, value in [
        ("ROWS", 1),
        ("PART", 3 * 8),
        ("DIVIDED", 9 * narrow),
        ("ALONE", 9 * narrow),
    ]:
        monkeypatch.setattr(winograd, name, value)
    at = window((height, 6), (3, 3))
    x, kernel, dy = numbers(at, images, 2, 3)
    y, dx, dkernel = by_loop(x, kernel, dy, at)
    adjoint = choice.Problem(images, 2, 3, at, 1, exact=False).adjoint.window
    for f, settings, (a, b), wanted in [
        (winograd.forward, {"window": at}, (x, kernel), y),
        (winograd.forward, {"window": adjoint, "turned": True}, (dy, kernel), dx),
        (winograd.kernel_grad, {"window": at}, (x, dy), dkernel),
    ]:
        program = jax.jit(partial(f, **settings)).trace(a, b)
        assert_close(program.lower().compile()(a, b), wanted)
        moved = jax.jvp(jax.jit(partial(f, **settings)), (a, b), (a, b))[1]
        assert_close(moved, 2 * wanted)  # linear in each
        halves = narrow and images * winograd.bands(at, 3) % 2 == 0
        assert str(program.jaxpr).count("dot_general") == (3 if halves else 2)  # one is by points


def test_winograd_is_differentiated():
    at = window((9, 6), (3, 3))
    x, kernel, dy = map(jnp.asarray, numbers(at, 3, 2, 3))
    y, dx, dkernel = by_loop(x, kernel, dy, at)
    forward, kernel_grad = (
        jax.jit(partial(f, window=at)) for f in (winograd.forward, winograd.kernel_grad)
    )
    for f, arguments, wanted in [(forward, (x, kernel), y), (kernel_grad, (x, dy), dkernel)]:
        assert_close(jax.jvp(f, arguments, arguments)[1], 2 * wanted)  # linear in each
    for f, arguments, cotangent, wanted in [
        (forward, (x, kernel), dy, (dx, dkernel)),
        (kernel_grad, (x, dy), kernel, (dx, y)),
    ]:
        for found, each in zip(jax.vjp(f, *arguments)[1](cotangent), wanted, strict=True):
            assert_close(found, each)


def test_winograd_by_one_feature_after_another_is_not_worth_it():
    assert winograd._blocks(24, 6, 36 * 12) == 2
    assert winograd._blocks(28, 7, 36 * 14) == 1  # for there are no blocks but of one each


@pytest.mark.parametrize(
    ("taps", "pads", "height", "bands"),
    [
        ((3, 3), ((1, 1), (1, 1)), 24, 6),
        ((5, 3), ((2, 2), (0, 0)), 12, 6),
        ((5, 3), ((0, 4), (0, 0)), 12, 3),  # not 6, of which two would be behind a band
        ((2, 2), ((0, 1), (0, 1)), 10, 2),
        ((4, 4), ((3, 0), (1, 2)), 9, 3),
        ((3, 3), ((0, 0), (1, 1)), 24, 1),  # fewer outputs: as one
        ((3, 3), ((3, -1), (1, 1)), 24, 1),
        ((3, 3), ((1, 1), (1, 1)), 23, 1),  # no whole tiles
    ],
)
def test_winograd_by_bands(taps, pads, height, bands, monkeypatch):
    monkeypatch.setattr(winograd, "PART", 1)
    monkeypatch.setattr(winograd, "ROWS", 1)
    at = window((height, 6), taps, pads=pads)
    x, kernel, dy = numbers(at, 3, 2, 3)
    pieces, band = winograd._bands(jnp.asarray(x), 3, at)
    assert {len(piece) for piece in pieces} == {3 * bands}
    assert bands * band.outputs[0] == at.outputs[0]
    y, _, dkernel = by_loop(x, kernel, dy, at)
    assert_close(jax.jit(partial(winograd.forward, window=at))(x, kernel), y)
    assert_close(jax.jit(partial(winograd.kernel_grad, window=at))(x, dy), dkernel)


@pytest.mark.parametrize("at", [g for g in GEOMETRIES if min(g.values[0].outputs) > 1])
@pytest.mark.parametrize("beside", [1, 2, 3])
@pytest.mark.parametrize("least", [1, pooled_convolution.IMAGES])
def test_pooled_convolution(at, beside, least, monkeypatch):
    monkeypatch.setattr(pooled_convolution, "COLUMNS", 1)
    monkeypatch.setattr(pooled_convolution, "IMAGES", least)  # with the first, an image a part
    taps = tuple(min(beside, n) for n in at.outputs)
    pool = window(at.outputs, taps, strides=taps, pads=0)
    x, kernel, dz = numbers(at, 3, 2, 3)
    bias = draw(3, (3,))
    z, _, _ = by_loop(x, kernel, dz, at)
    dy = draw(4, (3, *pool.outputs, 3))
    y, dz = oracles.max_pool(np.maximum(z + bias, 0), dy, taps, taps, pool.pads)
    dz = np.where(z + bias > 0, dz, 0)
    _, dx, dkernel = by_loop(x, kernel, dz, at)

    def relu(u, winner):
        return jnp.maximum(u, 0), jnp.where(u > 0, winner, -1)

    static = {"window": at, "pool": pool}
    forward = jax.jit(partial(pooled_convolution.forward, finish=relu, **static))
    found, winner = forward(x, kernel, bias)
    assert_close(found, y)
    assert winner.dtype == np.int8
    found = jax.jit(partial(pooled_convolution.grads, **static))(x, kernel, winner, dy)
    for cotangent, wanted in zip(
        found, (dx, dkernel, dz.sum((0, *range(1, dz.ndim - 1)))), strict=True
    ):
        assert_close(cotangent, wanted)
    without, _ = forward(x, kernel, None)
    assert_close(without, oracles.max_pool(np.maximum(z, 0), dy, taps, taps, pool.pads)[0])


CUTS = [
    pytest.param(cuts.by_strides, GEOMETRIES[number].values[0], id=GEOMETRIES[number].id)
    for number in (3, 4, 9, 10, 11)
] + [pytest.param(cuts.by_dilation, window((9, 8), (3, 2), dilation=(2, 3), pads=2), id="dilation")]


FINISHED = [
    pytest.param(window((24, 6), (3, 3)), 32, 32, 1, id="winograd, in bands"),
    pytest.param(window((9, 6), (3, 3)), 32, 32, 1, id="winograd"),
    pytest.param(window((4, 4), (3, 3)), 32, 32, 1, id="winograd, by features"),
    pytest.param(window((12, 12), (3, 3), dilation=2, pads=2), 32, 32, 1, id="dilation"),
    pytest.param(window((16, 16), (5, 5), strides=2, pads=2), 3, 64, 1, id="strides"),
    pytest.param(window((6, 6), (3, 3)), 16, 4, 1, id="to few"),
    pytest.param(window((6, 5), (3, 3)), 6, 6, 6, id="depthwise"),
    pytest.param(window((6, 5), (3, 3)), 4, 6, 2, id="groups"),
    pytest.param(window((6, 5), (3, 3)), 6, 6, 3, id="groups of two"),
    pytest.param(window((6, 5), (3, 3)), 3, 8, 1, id="patches"),
    pytest.param(window((3, 8, 8), (3, 3, 3)), 16, 16, 1, id="volumes"),
    pytest.param(
        window((3, 4), (3, 3))._replace(input_dilation=(2, 2)), 4, 6, 1, id="input dilation"
    ),
]


@pytest.mark.parametrize(("at", "channels", "features", "groups"), FINISHED)
def test_what_is_done_to_parts_is_done_to_all(at, channels, features, groups, monkeypatch):
    for module, name in [
        (winograd, "ROWS"),
        (winograd, "PART"),
        (patches, "PART"),
        (patches, "LEAST"),
        (parts, "CACHE"),
        (depthwise, "WHOLE"),
        (choice, "COPY"),
    ]:
        monkeypatch.setattr(module, name, 1)
    x, kernel, dy = numbers(at, 4, channels, features, groups)
    y = by_loop(x, kernel, dy, at, groups)[0]
    problem = choice.Problem(4, channels, features, at, groups, exact=False)
    bias = np.arange(features)
    of_elements = choice._forward(problem, lambda y: jnp.maximum(y + bias, 0))
    assert_close(jax.jit(of_elements)(x, kernel), np.maximum(y + bias, 0))

    def of_images(y):
        return y.sum(range(1, y.ndim - 1)), jnp.cumsum(y, 1)

    sums, sums_so_far = jax.jit(choice._forward(problem, of_images, of_elements=False))(x, kernel)
    assert_close(sums, y.sum(tuple(range(1, y.ndim - 1))))
    assert_close(sums_so_far, np.cumsum(y, 1))


@pytest.mark.parametrize("strides", [1, 2])
def test_what_is_chosen_for_groups_of_two(strides):
    at = window((7, 6), (3, 2), strides=strides)
    x, kernel, dy = numbers(at, 3, 6, 6, groups=3)
    y, dx, dkernel = by_loop(x, kernel, dy, at, groups=3)
    problem = choice.Problem(3, 6, 6, at, 3, exact=False)
    assert_close(jax.jit(choice._forward(problem))(x, kernel), y)
    assert_close(jax.jit(choice._kernel_grad(problem))(x, dy), dkernel)
    assert_close(jax.jit(choice._input_grad(problem))(jnp.asarray(dy), kernel), dx)


@pytest.mark.parametrize("rows", [9, 11, 17])  # outputs, which eights, and so on, do not divide
def test_what_asks_for_a_precision_keeps_infinity_apart(rows):
    at = window((rows + 2, 4), (3, 3), pads=0)
    x, kernel, dy = (np.array(a) for a in numbers(at, 2, 4, 4, groups=2))
    x[:, -1, :, 0] = np.inf  # which the first two rows of taps do not meet, nor the second group
    problem = choice.Problem(2, 4, 4, at, 2, exact=True)
    y = np.asarray(jax.jit(choice._forward(problem))(x, kernel))
    assert np.isfinite(y[..., 2:]).all()
    assert not np.isfinite(y[:, -1, :, :2]).any()
    dkernel = np.asarray(jax.jit(choice._kernel_grad(problem))(x, dy))
    assert np.isfinite(dkernel[:2]).all()
    assert not np.isfinite(dkernel[2, :, 0, :2]).any()


VOLUMES = [
    pytest.param(window((4, 3, 3), (3, 2, 2)), id="volume"),
    pytest.param(window((5, 3, 2), (3, 2, 1), strides=(2, 1, 1)), id="volume-strides"),
    pytest.param(window((6, 3, 2), (2, 2, 1), dilation=(3, 1, 1)), id="volume-dilation"),
    pytest.param(window((8, 3, 2), (2, 2, 1), strides=(3, 1, 1), pads=0), id="volume-unread"),
]


@pytest.mark.parametrize(
    ("cut", "at"),
    CUTS + [pytest.param(cuts.by_first_axis, *at.values, id=at.id) for at in VOLUMES],
)
def test_a_cut_is_the_same_convolution(cut, at):
    x, kernel, dy = map(jnp.asarray, numbers(at, 2, 2, 3))
    y, dx, dkernel = by_loop(x, kernel, dy, at)
    same = cut(at)
    assert max(same.window.strides) == max(same.window.dilation) == 1

    def inner(x, kernel):
        spatial = "XYZ"[: len(same.window.size)]
        layout = f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"
        ones = (1,) * len(spatial)
        return lax.conv_general_dilated(x, kernel, ones, same.window.pads, None, None, layout)

    image, taps = same.image(x), same.kernel(kernel)
    assert image.shape[1:-1] == same.window.size
    assert taps.shape[:-2] == same.window.taps
    found, vjp = jax.vjp(inner, image, taps)
    assert_close(same.joined_output(found), y)
    dimage, dtaps = vjp(same.output(dy))
    assert_close(same.image_grad(dimage), dx)
    assert_close(same.kernel_grad(dtaps), dkernel)


@pytest.mark.parametrize("at", VOLUMES)
def test_volumes_by_parts_of_the_batch(at, monkeypatch):
    monkeypatch.setattr(choice, "COPY", 1)
    x, kernel, dy = map(jnp.asarray, numbers(at, 3, 2, 3))
    y, dx, dkernel = by_loop(x, kernel, dy, at)
    problem = choice.Problem(3, 2, 3, at, 1, exact=False)
    assert_close(jax.jit(choice._forward(problem))(x, kernel), y)
    assert_close(jax.jit(choice._kernel_grad(problem))(x, dy), dkernel)
    assert_close(jax.jit(choice._input_grad(problem))(dy, kernel), dx)


def test_one_tap_is_a_product_whatever_its_strides():
    at = window((7, 6), (1, 1), strides=2, pads=0)
    found = choice._input_grad(choice.Problem(64, 8, 16, at, 1, exact=False))
    assert found.func is patches.input_grad_of_one_tap


def evaluation(problem, choose):
    found = choose(problem)
    return found and getattr(found, "func", found).__module__.rpartition(".")[2]


@pytest.mark.parametrize(
    ("channels", "features", "at", "groups", "expected"),
    [
        (64, 64, window((32, 32), (3, 3)), 1, ("winograd", "winograd", "winograd")),
        (64, 64, window((32, 32), (3, 3)), 64, ("depthwise", "depthwise", "choice")),
        (128, 128, window((28, 28), (3, 3)), 32, ("depthwise", "depthwise", "choice")),
        (128, 128, window((28, 28), (3, 3), strides=2), 32, ("depthwise", "depthwise", "patches")),
        (128, 128, window((4, 4), (3, 3)), 32, ("depthwise", "patches", "choice")),
        (256, 256, window((14, 14), (3, 3)), 32, ("patches", "patches", "choice")),
        (32, 32, window((32, 32), (5, 5), pads=2), 16, ("depthwise", "depthwise", "choice")),
        (64, 64, window((28, 28), (5, 5), pads=2), 16, ("patches", "patches", "choice")),
        (64, 256, window((56, 56), (1, 1), pads=0), 1, ("patches", "patches", "patches")),
        (64, 64, window((32, 32), (3, 3), strides=2), 1, (None, "patches", "patches")),
        (64, 128, window((16, 16), (3, 3), strides=2), 1, ("patches", "patches", "patches")),
        (8, 16, window((32, 32), (3, 3)), 1, (None, "patches", "choice")),
        (16, 16, window((32, 32), (3, 3)), 1, (None, "patches", None)),
        (16, 32, window((32, 32), (3, 3)), 1, (None, "patches", None)),
        (32, 32, window((28, 28), (5, 5), pads=2), 1, ("winograd", "patches", "winograd")),
        (32, 32, window((32, 32), (3, 3)), 1, ("winograd", "winograd", "winograd")),
        (1, 6, window((28, 28), (5, 5), pads=2), 1, ("patches", "patches", "choice")),
        (6, 16, window((14, 14), (5, 5), pads=0), 1, (None, "patches", "choice")),
        (64, 64, window((4096,), (9,), pads=4), 1, (None, None, None)),
        (64, 64, window((4096,), (3,)), 1, (None, "patches", None)),
        (512, 512, window((4, 4), (3, 3)), 1, ("winograd", "winograd", "winograd")),
        (1024, 1024, window((4, 4), (3, 3)), 1, (None, "patches", None)),
        (512, 512, window((2, 2), (3, 3)), 1, ("patches", None, "choice")),
        (16, 16, window((16, 16, 16), (3, 3, 3)), 1, ("choice", "choice", "choice")),
        (16, 16, window((16, 16, 16), (3, 3, 3), strides=2), 1, ("patches", "patches", "patches")),
    ],
)
def test_what_is_chosen(channels, features, at, groups, expected):
    problem = choice.Problem(64, channels, features, at, groups, exact=False)
    choices = (choice._forward, choice._kernel_grad, choice._input_grad)
    assert tuple(evaluation(problem, choose) for choose in choices) == expected
    exact = problem._replace(exact=True)
    assert "winograd" not in {evaluation(exact, choose) for choose in choices}
    assert groups in (1, channels) or evaluation(exact, choice._forward) != "depthwise"


@pytest.mark.parametrize("precision", [None, "highest", lax.Precision.HIGHEST])
def test_a_precision_that_is_asked_for_is_given(precision):
    at = window((16, 16), (3, 3))
    x, kernel, _ = (a.astype(np.float32) for a in numbers(at, 2, 32, 32))
    wanted = oracles_in_float64(x, kernel)
    found = choice.forward(
        jnp.asarray(x), jnp.asarray(kernel), at, 1, precision, lambda x, k: jnp.float32(wanted)
    )
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert error < (1e-5 if precision is None else 1e-7)


def oracles_in_float64(x, kernel):
    return lax.conv_general_dilated(
        x.astype(np.float64), kernel.astype(np.float64), (1, 1), "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
