import itertools
import warnings

import ml_dtypes
import numpy as np
import pytest

from jaxcnn.compare.diagnosis import diagnose

N, H, W, C, K, F = 8, 6, 7, 5, 3, 4


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


IMAGES, KERNEL = draw(N, H, W, C), draw(K, K, C, F, seed=1)
DY = draw(N, H - K + 1, W - K + 1, F, seed=2)
SCALE, SQUARE = draw(C, seed=3), draw(K, K, F, F, seed=4)


def conv_gradients():
    """Of `<conv(IMAGES, KERNEL), DY>`, product by product."""
    images, kernel = np.zeros_like(IMAGES), np.zeros_like(KERNEL)
    for n, i, j, a, b in itertools.product(*map(range, (*DY.shape[:3], K, K))):
        images[n, i + a, j + b] += KERNEL[a, b] @ DY[n, i, j]
        kernel[a, b] += np.outer(IMAGES[n, i + a, j + b], DY[n, i, j])
    return images, kernel


DX, DK = conv_gradients()


def say(found, wanted, *, allowed=1e-12, value=None, dys=(DY,), outputs=(), others=None, **values):
    return diagnose(
        np.asarray(found, np.float64),
        np.asarray(wanted, np.float64),
        allowed=allowed,
        value=np.zeros(np.shape(wanted)) + np.arange(np.size(wanted)).reshape(np.shape(wanted))
        if value is None
        else value,
        values=values,
        cotangents=dys,
        outputs=outputs,
        others=others or {},
    )


def changed(array, *places, to=0.0):
    """With `to`, or what it makes of the entries, at these places."""
    array = array.copy()
    for place in places:
        array[place] = to(array[place]) if callable(to) else to
    return array


def softmax(x):
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


LAST, ROW = np.s_[..., -1], np.s_[:, -1]
FLAT = draw(30, 6, seed=5)
MASK = draw(30, 6, seed=6) > 0


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        (np.zeros_like(DK), DK, "all zeros: never computed"),
        (-DK, DK, "the sign is wrong"),
        (-3.0, 3.0, "the sign is wrong"),
        (abs(DK), DK, "the absolute value of the right one"),
        (DK[::-1, ::-1], DK, "spatially flipped along axes 0 and 1"),
        (DX[:, ::-1, ::-1], DX, "spatially flipped along axes 1 and 2"),
        (DX[::-1], DX, "the order along axis 0 is reversed"),
        (FLAT[::-1, ::-1], FLAT, "flipped along axes 0 and 1"),
        (SQUARE.swapaxes(2, 3), SQUARE, "transposed: axes 2 and 3 are swapped"),
        (DK.swapaxes(0, 1), DK, "transposed: axes 0 and 1 are swapped"),
        (SQUARE.transpose(1, 0, 3, 2), SQUARE, "transposed: 1, 0, 3 and 2 is their order"),
        (2 * DK, DK, "off by a constant factor 2"),
        (0.3 * DK, DK, "off by a constant factor 0.3"),
        (-1.5 * DK, DK, "off by a constant factor -1.5"),
        (DK * (1 + 1e-6), DK, "off by a constant factor 1 +1.0e-06"),
        (2 * MASK, MASK, "off by a constant factor 2"),
        (8.0, 1.0, "off by a constant factor 8 = the batch size: a sum where a mean should be"),
        (changed(DX, ROW), DX, "the last row is missing"),
        (changed(DX, np.s_[:, 0]), DX, "the first row is missing"),
        (changed(DX, np.s_[:, :, -2:]), DX, "the last 2 columns are missing"),
        (changed(DX, np.s_[-1:]), DX, "the last slice along axis 0 is missing"),
        (changed(DK, np.s_[:, 1:]), DK, "the last 2 slices along axis 1 are missing"),
        (np.roll(DX, 1, 1), DX, "shifted by 1 along axis 1"),
        (np.pad(DX, ((0, 0), (0, 2), (0, 0), (0, 0)))[:, 2:], DX, "shifted by -2 along axis 1"),
        (np.roll(DX, (1, 1), (1, 2)), DX, "shifted by 1 along axes 1 and 2"),
        (DX.clip(-1, 1), DX, "clipped at 1"),
        (DK + 0.5, DK, "off by a constant 0.5 everywhere"),
        (np.full(5, 0.5), np.zeros(5), "off by a constant 0.5 everywhere"),
        (DK * SCALE[:, None], DK, "off by a factor that depends on axis 2 alone"),
        (DK * draw(K, 1, 1, 1), DK, "off by a factor that depends on axis 0 alone"),
        (changed(FLAT, LAST, to=lambda x: 3 * x), FLAT, "off by a factor 3 at index 5 of axis 1"),
        (FLAT, FLAT * MASK, "not masked: nonzero where it should be 0"),
        (FLAT * MASK, FLAT, f"masked too much: zero at {100 - 100 * MASK.mean():.2g} % of"),
        (FLAT * np.roll(MASK, 1, 0), FLAT * MASK, "zero at other places: another mask"),
        (np.random.default_rng(3).permuted(FLAT), FLAT, "the right numbers, at other places"),
        (changed(np.zeros((30, 6)), 0, to=FLAT[0]), np.zeros((30, 6)), "nonzero at 3.3 % of the"),
        (changed(FLAT * MASK, 0, to=FLAT[0]), FLAT * MASK, "nonzero at "),
        (np.tile(FLAT.mean(1), (6, 1)).T, FLAT, "the same for all of axis 1: an average over it"),
        (np.tile(FLAT.sum(0), (30, 1)), FLAT, "the same for all of axis 0: the sum over it"),
        (FLAT.astype(np.float16), FLAT, "rounded to float16"),
        (FLAT.astype(ml_dtypes.bfloat16), FLAT, "rounded to bfloat16"),
        (FLAT.astype(np.float16).astype(float) * draw(6), FLAT * draw(6), "off by as much as flo"),
        (changed(FLAT, (0, 0), (3, 3), (9, 1), to=np.inf), FLAT, "infinite or NaN at 3 of 180"),
        (changed(FLAT, (0, 0), to=np.nan), FLAT, "infinite or NaN at 1 of 180 places"),
        (DY, np.tanh(DY) * draw(*DY.shape), "it is the cotangent, passed on as it is"),
        (changed(DX, ROW, to=draw(N, W, C)), DX, "wrong only in the last row"),
        (changed(DX, np.s_[:, :, 0], to=draw(N, H, C)), DX, "wrong only in the first column"),
        (changed(DX, 3, to=draw(H, W, C)), DX, "wrong only at index 3 of axis 0"),
        (changed(FLAT, (2, 3), to=7), FLAT, "wrong only at index 2 of axis 0 and index 3 of axi"),
    ],
)
def test_a_mistake_is_named(found, wanted, said):
    assert (say(found, wanted) or "nothing").startswith(said)
    # In single precision too, unless it is too small a mistake for that.
    size = np.abs(wanted).max()
    if np.abs(np.subtract(found, wanted)).max() > 1e-3 * size:
        noise = 1e-7 * size * draw(*np.shape(wanted), seed=9)
        noisy = np.where(np.equal(found, 0) | ~np.isfinite(found), found, found + noise)
        if "float" not in said:
            assert (say(noisy, wanted, allowed=1e-6 * size) or "nothing").startswith(said)


BORDER = np.pad(np.zeros((N, H - 2, W - 2, C)), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1)


def test_a_border():
    found = np.where(BORDER, draw(*DX.shape, seed=7), DX)
    assert say(found, DX) == "wrong only at the border (first and last rows or columns)"


@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (8, "8 = the batch size: a sum where a mean should be"),
        (1 / 8, "1/8 = one over the batch size: a mean where a sum should be"),
        (160, "160 = the number of places: a sum where a mean should be"),
        (1 / 4, "1/4 = one over the number of channels: a mean where a sum should be"),
        (7, "7 = the length of axis 2 of `x`: a sum where a mean should be"),
        (9, "9"),
    ],
)
def test_a_factor_that_is_a_length_is_named(factor, said):
    for allowed in (1e-12, 1e-6):
        assert say(factor * DK, DK, x=IMAGES, allowed=allowed) == f"off by a constant factor {said}"


def test_one_number_has_a_factor_only_if_that_has_a_name():
    assert say(2.718, 1.0) is None
    assert say(np.full(6, 2.718), np.ones(6)) is None
    assert say(np.full(6, 0.125), np.ones(6)).startswith("off by a constant factor 1/8 = one over")


def test_the_gradient_of_another_argument():
    a, b = FLAT, draw(30, 6, seed=8)
    assert say(b, a, others={"kernel": b}) == "it is the gradient of `kernel`"


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        (DX, DX * SCALE, "off by a factor that depends on axis 3 alone: `scale` is missing"),
        (DX * SCALE, DX, "off by a factor that depends on axis 3 alone: `scale` is applied twice"),
        (DX * IMAGES, DX, "multiplied by `x` once more"),
        (DX, DX * IMAGES, "`x` is missing as a factor"),
        (DX * DX.round(1), DX, "multiplied by the cotangent once more"),
        (DX, DX * np.tanh(DX), "the output is missing as a factor"),
    ],
)
def test_a_factor_that_is_an_argument_is_named(found, wanted, said):
    dys, outputs = (DX.round(1),), (np.tanh(DX),)
    assert say(found, wanted, dys=dys, outputs=outputs, x=IMAGES, scale=SCALE) == said


def test_softmax_without_its_inner_product():
    x, dy = draw(N, 10), draw(N, 10, seed=1)
    y = softmax(x)
    wanted = np.stack([(np.diag(p) - np.outer(p, p)) @ d for p, d in zip(y, dy, strict=True)])
    said = say(y * dy, wanted, value=x, x=x, dys=[dy], outputs=[y])
    assert said == "the inner product with the output along the last axis is missing"


def batch_norm_gradient(x, dy):
    """By the Jacobian of a channel: of n = (x - mean) / deviation."""
    rows, channels = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    m = len(rows)
    normal = (rows - rows.mean(0)) / rows.std(0)
    columns = [
        (np.eye(m) - 1 / m - np.outer(n, n) / m) @ d / deviation
        for n, d, deviation in zip(normal.T, channels.T, rows.std(0), strict=True)
    ]
    return np.stack(columns, -1).reshape(x.shape)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ((1, 0), "a term that is constant over axes 0, 1 and 2 is missing: the sum over them"),
        ((0, 1), "the inner product with `x` less its mean along axes 0, 1 and 2 is missing"),
        ((1, 1), "the sum and the inner product with `x` less its mean along axes 0, 1 and 2 are"),
    ],
)
def test_batch_norm_without_a_term(terms, said):
    x, dy = IMAGES[:3], 3 * draw(*IMAGES[:3].shape, seed=1) + 1
    axes, deviation = (0, 1, 2), x.std((0, 1, 2))
    normal = (x - x.mean(axes)) / deviation
    left_out = terms[0] * dy.mean(axes) + terms[1] * normal * (normal * dy).mean(axes)
    wanted = batch_norm_gradient(x, dy)
    assert say(wanted + left_out / deviation, wanted, value=x, x=x, dys=[dy]).startswith(said)


def test_weight_decay_and_other_terms():
    assert say(DX + 0.01 * IMAGES, DX, x=IMAGES) == "off by 0.01 times `x`"
    said = say(DX + SCALE, DX)
    assert said == "off by a term that is constant over axes 0, 1 and 2"


X = np.array([[3.0, 3, 1, 0], [2, 5, 5, 5], [7, 1, 4, 7], [6, 9, 8, 0]])
WINNERS = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
LAST_WINNERS = np.array([[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1], [0, 1, 0, 0]])
TIED = X.max(1, keepdims=True) == X
G = draw(4, 1, seed=3)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (TIED * G, "tied values each take the whole gradient"),
        (TIED / TIED.sum(1, keepdims=True) * G, "tied values share the gradient"),
        (LAST_WINNERS * G, "another of the tied values takes the gradient"),
    ],
)
def test_the_maximum_of_a_row_in_a_tie(found, said):
    assert say(found, WINNERS * G, value=X) == said
    # No ties there: not their fault.
    assert "tied" not in (say(found, WINNERS * G, value=draw(4, 4)) or "")


SHAPES = [(), (1,), (2,), (3,), (7,), (2, 2), (1, 6), (5, 3), (3, 3, 2, 2), (4, 5, 5, 3)]


DRAWS = 20


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_said_of_a_gradient_that_is_just_another(shape):
    for seed, allowed in zip(range(DRAWS), itertools.cycle((1e-13, 1e-6, 1e-3, 2e-2))):
        rng = np.random.default_rng(seed)
        found, wanted, x, y, dy, other = (rng.standard_normal(shape) for _ in range(6))
        given = {"value": x, "x": x, "b": draw(3), "dys": [dy], "outputs": [y]}
        assert say(found, wanted, allowed=allowed, others={"y": other}, **given) is None
        # The same zeros in both: their places say nothing either.
        sparse = rng.random(shape) < 0.5
        if sparse.any():
            assert say(found * sparse, wanted * sparse, **given) is None


@pytest.mark.parametrize("shape", [(2,), (3,), (2, 2)])
def test_few_entries_known_to_a_digit_or_two_fit_by_accident(shape):
    for seed in range(100):
        rng = np.random.default_rng(seed)
        found, wanted, x, dy = (rng.standard_normal(shape) for _ in range(4))
        assert say(found, wanted, allowed=2e-2, value=x, x=x, dys=[dy]) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_said_of_a_right_gradient(shape):
    for seed in range(50):
        wanted, noise = np.random.default_rng(seed).standard_normal((2, *shape))
        for allowed in (0.0, 1e-12, 1e-3):
            said = say(wanted + allowed * noise.clip(-1, 1), wanted, allowed=allowed, x=wanted)
            assert said is None
    assert say(np.zeros(shape), np.zeros(shape), allowed=0.0) is None


def test_what_changes_nothing_is_no_mistake():
    symmetrical = FLAT[:6] + FLAT[:6].T
    palindrome = DX + DX[:, ::-1]
    other = draw(6, 6, seed=7)
    assert "swapped" not in (say(symmetrical + other, symmetrical) or "")
    assert say(symmetrical.T, symmetrical) is None
    assert say(palindrome[:, ::-1], palindrome) is None
    assert say(palindrome[:, ::-1, ::-1], palindrome) == "the order along axis 2 is reversed"


def test_of_an_only_entry_no_place_is_named():
    one = changed(np.zeros(9), 4, to=2.0)
    moved = say(np.roll(one, 1), one) or ""
    assert "shifted" not in moved
    assert "reversed" not in moved


def test_nothing_is_said_where_there_is_nothing_to_say_it_of():
    assert say(np.zeros((0, 3)), np.zeros((0, 3))) is None
    assert say(np.ones(3), np.full(3, np.nan)) is None
    assert say(np.ones(3), np.ones(4)) is None


def test_zeros_and_infinite_values_give_no_warnings():
    x = changed(FLAT, np.s_[:, 0], to=-np.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert say(FLAT, FLAT[::-1] ** 2, value=x, x=x, dys=[np.zeros((30, 6))]) is None
