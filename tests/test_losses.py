import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checking import assert_close, assert_same_vjp, draw, probabilities

import jaxcnn


@pytest.mark.parametrize("labels", [(3, 4), (4,), (3, 1)])
def test_sigmoid_binary_cross_entropy_is_optax_s(labels):
    logits, y = draw(0, (3, 4)), probabilities(1, labels)
    assert_same_vjp(
        jaxcnn.sigmoid_binary_cross_entropy, optax.sigmoid_binary_cross_entropy, logits, y
    )


def test_labels_may_be_integers():
    logits = draw(0, (3, 4))
    y = np.eye(4, dtype=np.int32)[[1, 0, 3]]
    for name in ("sigmoid_binary_cross_entropy", "softmax_cross_entropy"):
        assert_same_vjp(getattr(jaxcnn, name), getattr(optax, name), logits, y)


@pytest.mark.parametrize(
    ("labels", "axis"),
    [((3, 4, 2), -1), ((3, 4, 2), 0), ((3, 4, 2), (1, 2)), ((3, 4, 2), None), ((2,), -1)],
)
def test_softmax_cross_entropy_is_optax_s(labels, axis):
    logits, y = draw(0, (3, 4, 2)), probabilities(1, labels)
    assert_same_vjp(
        lambda *args: jaxcnn.softmax_cross_entropy(*args, axis=axis),
        lambda *args: optax.softmax_cross_entropy(*args, axis=axis),
        logits,
        y,
    )


def test_logits_may_be_broadcast_to_the_labels():
    logits, y = draw(0, (4,)), probabilities(1, (3, 4))
    assert_same_vjp(jaxcnn.softmax_cross_entropy, optax.softmax_cross_entropy, logits, y)


def test_safe_softmax_cross_entropy_is_optax_s():
    logits, y = draw(0, (3, 4)), probabilities(1, (3, 4))
    y[:, 1] = 0
    manual, original = jaxcnn.safe_softmax_cross_entropy, optax.safe_softmax_cross_entropy
    assert_same_vjp(manual, original, logits, y)
    logits[:, 1] = -np.inf
    assert_same_vjp(lambda z: manual(z, y), lambda z: original(z, y), logits)


def test_smooth_labels_on_the_outside():
    logits, y = draw(0, (3, 4)), np.eye(4)[[1, 0, 3]]
    assert_same_vjp(
        lambda z: jaxcnn.softmax_cross_entropy(z, optax.smooth_labels(y, 0.1)),
        lambda z: optax.softmax_cross_entropy(z, optax.smooth_labels(y, 0.1)),
        logits,
    )


def test_softmax_cross_entropy_over_some_classes():
    """optax's value; the gradient as if the others were not there (optax's own is NaN)."""
    logits, y = draw(0, (3, 4)), probabilities(1, (3, 4))
    mask = np.array([True, False, True, True])
    where = mask[None].repeat(3, 0)
    loss, vjp = jax.vjp(lambda *args: jaxcnn.softmax_cross_entropy(*args, where=where), logits, y)
    assert_close(loss, optax.softmax_cross_entropy(logits, y, where=where))
    _, wanted = jax.vjp(optax.softmax_cross_entropy, logits[:, mask], y[:, mask])
    dloss = jnp.asarray(draw(2, (3,)))
    for found, some in zip(vjp(dloss), wanted(dloss), strict=True):
        assert_close(found[:, mask], some)
        assert (found[:, ~mask] == 0).all()


@pytest.mark.parametrize(("axis", "labels"), [(-1, (3, 4)), (0, (4, 5)), ((1, 2), (3,))])
def test_integer_labels_are_optax_s(axis, labels):
    logits = draw(0, (3, 4, 5))
    y = np.random.default_rng(1).integers(0, 3, labels)
    assert_same_vjp(
        lambda logits: jaxcnn.softmax_cross_entropy_with_integer_labels(logits, y, axis=axis),
        lambda logits: optax.softmax_cross_entropy_with_integer_labels(logits, y, axis=axis),
        logits,
    )


def test_integer_labels_over_some_classes_are_optax_s():
    logits, y = draw(0, (4, 3)), np.array([0, 1, 2, 0])
    where = np.array([[1, 1, 1], [1, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    assert_same_vjp(
        lambda z: jaxcnn.softmax_cross_entropy_with_integer_labels(z, y, where=where),
        lambda z: optax.softmax_cross_entropy_with_integer_labels(z, y, where=where),
        logits,
    )


def test_integer_labels_out_of_range_are_optax_s():
    logits, y = draw(0, (4, 3)), np.array([-1, -3, 3, -4])
    assert_same_vjp(
        lambda z: jaxcnn.softmax_cross_entropy_with_integer_labels(z, y),
        lambda z: optax.softmax_cross_entropy_with_integer_labels(z, y),
        logits,
    )


EXTREME = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]], jnp.float32)


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("sigmoid_binary_cross_entropy", [[0, 1, 1], [1, 0, 0]]),
        ("softmax_cross_entropy", [[0, 1, 0], [1, 0, 0]]),
        ("softmax_cross_entropy_with_integer_labels", [1, 0]),
    ],
)
def test_logits_of_1e4_give_finite_losses_and_gradients_in_float32(name, labels):
    loss, vjp = jax.vjp(lambda z: getattr(jaxcnn, name)(z, jnp.array(labels)), EXTREME)
    dz = vjp(jnp.ones_like(loss))[0]
    wanted, original = jax.vjp(lambda z: getattr(optax, name)(z, jnp.array(labels)), EXTREME)
    assert jnp.isfinite(loss).all()
    assert jnp.isfinite(dz).all()
    assert_close(loss, wanted, rtol=1e-6)
    assert_close(dz, original(jnp.ones_like(loss))[0], rtol=1e-6)
    assert loss.max() >= 1e4


def test_a_confident_and_right_prediction_keeps_its_small_gradient():
    """sigmoid(z) - 1 would be 0 in float32; written without the difference it is -exp(-30)."""
    loss = jaxcnn.sigmoid_binary_cross_entropy
    dz = jax.grad(loss)(jnp.float32(30.0), jnp.float32(1.0))
    assert_close(dz, -np.exp(-30.0), rtol=1e-6)


def test_second_derivatives():
    logits, y = draw(0, (2, 3)), np.array([1, 2])
    name = "softmax_cross_entropy_with_integer_labels"
    manual = jax.hessian(lambda z: getattr(jaxcnn, name)(z, y).sum())(logits)
    assert_close(manual, jax.hessian(lambda z: getattr(optax, name)(z, y).sum())(logits))


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("sigmoid_binary_cross_entropy", ((2,), (3,)), ValueError, r"`labels` of shape \(3,\)"),
        ("softmax_cross_entropy", ((2, 3), (2, 3), 2), ValueError, "`axis` 2 does not name"),
        (
            "softmax_cross_entropy_with_integer_labels", ((2, 3), (3,)),
            ValueError, r"`labels` must have shape \(2,\)",
        ),
        (
            "softmax_cross_entropy_with_integer_labels", ((2, 3), (2,), None),
            ValueError, "`axis` must be an integer",
        ),
    ],
)  # fmt: skip
def test_bad_shapes_name_function_argument_and_value(name, arguments, error, message):
    shapes, axis = arguments[:2], arguments[2:]
    integer = name.endswith("integer_labels")
    labels = jnp.zeros(shapes[1], int if integer else float)
    with pytest.raises(error, match=f"{name}: {message}"):
        getattr(jaxcnn, name)(jnp.ones(shapes[0]), labels, *axis)


def test_bad_dtypes():
    with pytest.raises(TypeError, match="`labels` must have an integer dtype, got float64"):
        jaxcnn.softmax_cross_entropy_with_integer_labels(jnp.ones((2, 3)), jnp.ones(2))
    with pytest.raises(TypeError, match="`logits` must have a floating dtype, got int64"):
        jaxcnn.sigmoid_binary_cross_entropy(jnp.arange(3), jnp.ones(3))
