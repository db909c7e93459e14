"""One step of training, and the comparison of the two gradients before the first."""

import re
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import Array

import jaxcnn
from jaxcnn.models import MODELS
from jaxcnn.training.step import (
    NEVER,
    PIECE,
    Recipe,
    compile_step,
    flat,
    gradient_errors,
    make_test_step,
    make_train_step,
    new_epoch,
    pixels,
    start,
)

RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(6, 2, 2, 1)).astype(np.float32), RNG.integers(0, 3, 6)


def init(key: Array) -> tuple[dict[str, Any], dict[str, Any]]:
    kernel = jax.random.normal(key, (4, 3)) / 2
    return {"logits": {"kernel": kernel, "bias": kernel[0]}}, {"steps": jnp.zeros(())}


def apply(
    params: dict[str, Any],
    state: dict[str, Any],
    x: Array,
    *,
    ops: ModuleType,
    train: bool = False,
    key: Array | None = None,
    axis_name: Any = None,
) -> tuple[Array, dict[str, Any]]:
    return ops.dense(ops.flatten(x), **params["logits"]), {"steps": state["steps"] + train}


MODEL: Any = SimpleNamespace(init=init, apply=apply)  # one dense layer: compiled in no time


def by_hand(params: dict[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The losses and the gradients of their mean, in float64."""
    x, p = X.reshape(6, 4).astype(float), {name: np.float64(v) for name, v in params.items()}
    logits = x @ p["logits/kernel"] + p["logits/bias"]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    dlogits = (probabilities - np.eye(3)[LABELS]) / 6
    losses = -np.log(probabilities[np.arange(6), LABELS])
    return losses, {"logits/bias": dlogits.sum(0), "logits/kernel": x.T @ dlogits}


@pytest.mark.parametrize("ops", [jaxcnn, jaxcnn.reference])
def test_a_step_is_the_parameters_minus_rate_times_gradient_to_the_last_bit(
    ops: ModuleType,
) -> None:
    optimizer = optax.sgd(0.3)
    carry = start(init, optimizer, seed=0)
    before = jax.tree.map(jnp.copy, carry.params)
    losses, expected = by_hand(flat(before))
    carry, gradients, _ = make_train_step(MODEL, ops, Recipe(optimizer))(carry, X, LABELS)
    update = jax.jit(lambda w, g: jax.tree.map(lambda w, g: w - 0.3 * g, w, g))
    for name, value in flat(update(before, gradients)).items():
        np.testing.assert_array_equal(flat(carry.params)[name], value)
        np.testing.assert_allclose(flat(gradients)[name], expected[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(carry.loss, losses.sum(), rtol=1e-5)


def test_a_step_counts_what_it_sees_and_donates_its_carry() -> None:
    optimizer = optax.sgd(0.3, momentum=0.9)
    step = make_train_step(MODEL, jaxcnn, Recipe(optimizer))
    first = start(init, optimizer, seed=0)
    second, *_ = step(first, X, LABELS)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first.params))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first.optimizer_state))
    params, seen, correct = flat(second.params), float(second.loss), int(second.correct)
    losses, _ = by_hand(params)
    third, *_ = step(second, X, LABELS)
    np.testing.assert_allclose(third.loss, seen + losses.sum(), rtol=1e-5)
    logits = X.reshape(6, 4) @ params["logits/kernel"] + params["logits/bias"]
    assert third.correct == correct + (logits.argmax(1) == LABELS).sum()
    assert third.state["steps"] == third.step == 2
    assert (third.broken == NEVER).all()
    assert new_epoch(third).loss == new_epoch(third).correct == 0


def test_the_test_step_gives_each_image_its_loss_and_logits() -> None:
    carry = start(init, optax.sgd(0.3), seed=1)
    params = flat(carry.params)
    losses, logits = make_test_step(MODEL, jaxcnn)(carry.params, carry.state, X, LABELS)
    np.testing.assert_allclose(losses, by_hand(params)[0], rtol=1e-5)
    expected = X.reshape(6, 4) @ params["logits/kernel"] + params["logits/bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_bytes_become_numbers_from_0_to_1() -> None:
    images = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(pixels(images), np.arange(256) / 255, rtol=1e-6)
    halves = pixels(images, jnp.bfloat16)
    assert halves.dtype == jnp.bfloat16
    np.testing.assert_array_equal(pixels(X), X)


@pytest.mark.parametrize(("value", "loss_breaks"), [(np.inf, True), (1e25, False)])
def test_the_first_step_with_something_not_finite_is_noted(value: float, loss_breaks: bool) -> None:
    optimizer = optax.sgd(0.3)
    step = make_train_step(MODEL, jaxcnn, Recipe(optimizer))
    carry, _, broken = step(start(init, optimizer, seed=0), X, LABELS)
    assert (broken == NEVER).all()
    worse = X.copy()
    worse[3, 1, 1, 0] = value
    carry, gradients, broken = step(carry, worse, LABELS)
    finite = [np.isfinite(gradients["logits"][name]).all() for name in ("bias", "kernel")]
    expected = [2 if loss_breaks else NEVER, *(NEVER if each else 2 for each in finite)]
    np.testing.assert_array_equal(broken, expected)
    _, _, later = step(carry, worse, LABELS)
    np.testing.assert_array_equal(np.minimum(later, broken), later)
    assert (later[broken == 2] == 2).all()


def test_half_precision_is_of_the_passes_and_not_of_the_parameters() -> None:
    optimizer = optax.sgd(0.3)
    recipes = Recipe(optimizer), Recipe(optimizer, dtype="bfloat16")
    (exact, _, _), (half, gradients, _) = (
        make_train_step(MODEL, jaxcnn, recipe)(start(init, optimizer, 0), X, LABELS)
        for recipe in recipes
    )
    for name, value in flat(half.params).items():
        assert value.dtype == flat(gradients)[name].dtype == np.float32
        np.testing.assert_allclose(value, flat(exact.params)[name], rtol=0.02, atol=0.02)
        assert (value != flat(exact.params)[name]).any()


def test_pictures_are_moved_and_mirrored_in_training_alone() -> None:
    optimizer = optax.sgd(0.3)
    plain, moved, mirrored = (
        flat(
            make_train_step(MODEL, jaxcnn, Recipe(optimizer, **options))(
                start(init, optimizer, 0), X, LABELS
            )[0].params
        )["logits/kernel"]
        for options in ({}, {"crop": 1}, {"flip": True})
    )
    assert (plain != moved).any()
    assert (plain != mirrored).any()


def test_another_seed_gives_other_parameters() -> None:
    one, same, other = (
        flat(start(init, optax.sgd(0.3), seed).params)["logits/kernel"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()


def test_gradient_errors_find_a_wrong_rule() -> None:
    carry = start(init, optax.sgd(0.3), seed=0)
    errors = gradient_errors(MODEL, carry, X, LABELS)
    assert list(errors) == ["logits/bias", "logits/kernel"]
    assert max(errors.values()) < 1e-12

    def wrong(params: Any, state: Any, x: Array, *, ops: ModuleType, **rest: Any) -> Any:
        # The same values, but the hand-derived gradient of the bias is a hundredth too large.
        logits = dict(params["logits"])
        if ops is jaxcnn:
            more = 0.01 * logits["bias"]
            logits["bias"] += more - jax.lax.stop_gradient(more)
        return apply({"logits": logits}, state, x, ops=ops, **rest)

    model: Any = SimpleNamespace(apply=wrong)
    errors = gradient_errors(model, carry, X, LABELS)
    assert errors["logits/bias"] == pytest.approx(0.01, rel=1e-3)
    assert errors["logits/kernel"] < 1e-12


@pytest.mark.parametrize("name", MODELS)
def test_a_step_takes_each_model(name: str) -> None:
    model, options = MODELS[name]
    optimizer = optax.sgd(0.3)

    def step(images: Array, labels: Array) -> tuple[Any, Any]:
        carry = start(partial(model.init, channels=1, **options), optimizer, seed=0)
        return carry, make_train_step(model, jaxcnn, Recipe(optimizer))(carry, images, labels)

    # Traced, and not compiled: which for a ResNet-50 takes half a minute.
    images = jax.ShapeDtypeStruct((4, 28, 28, 1), "float32")
    labels = jax.ShapeDtypeStruct((4,), "int32")
    before, (after, gradients, _) = jax.eval_shape(step, images, labels)
    assert after == before
    assert gradients == before.params


def test_temporary_memory_is_in_pieces_that_malloc_keeps(tmp_path: Path) -> None:
    def deep(params: Any, state: Any, x: Array, **_: Any) -> tuple[Array, Any]:
        for _ in range(4):
            x = jnp.tanh(x @ params["kernel"])  # 10 MiB each, kept for the backward pass
        return x[:, 0, :3], state

    def init(key: Array) -> tuple[Any, Any]:
        return {"kernel": jnp.eye(512)}, {}

    optimizer = optax.sgd(0.3)
    step = make_train_step(SimpleNamespace(apply=deep), jaxcnn, Recipe(optimizer))  # type: ignore[arg-type]
    images, labels = jnp.zeros((10, 512, 512)), jnp.zeros(10, int)
    carry = start(init, optimizer, seed=0)
    dump: dict[str, Any] = {"xla_dump_to": str(tmp_path), "xla_dump_hlo_as_text": True}
    program = compile_step(step.lower(carry, images, labels), **dump)
    (text,) = (path.read_text() for path in tmp_path.glob("*buffer-assignment.txt"))
    pieces = [int(size) for size in re.findall(r"size (\d+), preallocated-temp", text)]
    assert sum(pieces) == program.memory_analysis().temp_size_in_bytes > PIECE
    assert max(pieces) <= PIECE
