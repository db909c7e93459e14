"""The loop on a model of one dense layer, against the same loop in NumPy."""

from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import numpy as np
import optax
import pytest
from jax import Array

import jaxcnn
from jaxcnn.training.batches import batches
from jaxcnn.training.data import Split
from jaxcnn.training.loop import Seen, train
from jaxcnn.training.step import Carry, Recipe, flat, start
from jaxcnn.training.stopping import NotFiniteError

RNG = np.random.default_rng(0)
DATA = Split(RNG.normal(size=(10, 2, 2, 1)).astype(np.float32), RNG.integers(0, 3, 10))
TEST = Split(RNG.normal(size=(5, 2, 2, 1)).astype(np.float32), RNG.integers(0, 3, 5))


def init(key: Array) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"logits": {"kernel": jax.random.normal(key, (4, 3)) / 2}}, {}


def apply(
    params: dict[str, Any], state: dict[str, Any], x: Array, *, ops: ModuleType, **rest: Any
) -> tuple[Array, dict[str, Any]]:
    return ops.dense(ops.flatten(x), **params["logits"]), state


MODEL: Any = SimpleNamespace(init=init, apply=apply)


def losses(kernel: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """The loss of each image and the probabilities of its classes, in float64."""
    logits = split.images.reshape(-1, 4) @ kernel
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return -np.log(probabilities[np.arange(len(logits)), split.labels]), probabilities


def run(
    ops: ModuleType = jaxcnn, rate: float = 0.5, carry: Carry | None = None, **options: Any
) -> Any:
    recipe = Recipe(optax.sgd(rate))
    if carry is None:
        carry = start(MODEL.init, recipe.optimizer, seed=0)
    return train(MODEL, ops, recipe, carry, (DATA, TEST), seed=3, **options)


@pytest.mark.parametrize(
    ("ops", "batch_size"),  # the last batch is partial, whole, or the only one
    [(jaxcnn, 4), (jaxcnn, 5), (jaxcnn, 100), (jaxcnn.reference, 4)],
)
def test_every_image_is_trained_on_and_counts_once(ops: ModuleType, batch_size: int) -> None:
    carry = start(MODEL.init, optax.sgd(0.5), seed=0)
    kernel = flat(carry.params)["logits/kernel"].astype(float)
    seen: list[Seen] = []
    epochs = run(ops, epochs=2, batch_size=batch_size, watch=lambda at, _: seen.append(at))
    reader = batches(DATA, batch_size, seed=3, epochs=2)
    ends = {4: [4, 8, 10], 5: [5, 10], 100: [10]}[batch_size]
    for number, epoch in enumerate(epochs, 1):
        total, right = 0.0, 0
        for _ in ends:
            batch = next(reader)
            loss, probabilities = losses(kernel, batch)
            total += loss.sum()
            right += (probabilities.argmax(1) == batch.labels).sum()
            dlogits = (probabilities - np.eye(3)[batch.labels]) / len(batch.labels)
            gradient = batch.images.reshape(-1, 4).T @ dlogits
            kernel = kernel - 0.5 * gradient
        test_loss, probabilities = losses(kernel, TEST)
        assert epoch.metrics["epoch"] == number
        assert epoch.metrics["train_loss"] == pytest.approx(total / 10, rel=1e-5)
        assert epoch.metrics["train_accuracy"] == right / 10
        assert epoch.metrics["test_loss"] == pytest.approx(test_loss.mean(), rel=1e-5)
        assert epoch.metrics["test_accuracy"] == (probabilities.argmax(1) == TEST.labels).mean()
        np.testing.assert_allclose(epoch.losses, test_loss, rtol=1e-4)
        np.testing.assert_array_equal(epoch.logits.argmax(1), probabilities.argmax(1))
        np.testing.assert_allclose(epoch.params["logits/kernel"], kernel, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(epoch.gradients["logits/kernel"], gradient, rtol=1e-3, atol=1e-6)
    assert [(at.epoch, at.images) for at in seen] == [(n, end) for n in (1, 2) for end in ends]
    assert [at.step for at in seen] == list(range(1, 2 * len(ends) + 1))


def test_an_epoch_keeps_its_parameters_when_the_next_one_is_trained() -> None:
    epochs = run(epochs=2, batch_size=4)
    first = next(epochs)
    before = first.params["logits/kernel"].copy()
    second = next(epochs)
    np.testing.assert_array_equal(first.params["logits/kernel"], before)
    assert (second.params["logits/kernel"] != before).any()


def test_what_is_not_finite_stops_the_loop_and_is_named() -> None:
    # The infinite rate breaks the parameters in step 1, and in step 2 they are used.
    with pytest.raises(NotFiniteError) as error:
        list(run(rate=np.inf, epochs=3, batch_size=4))
    message = "the loss and the gradient of logits/kernel: not finite in step 2"
    assert str(error.value) == message


@pytest.mark.parametrize("at", range(1, 6))
def test_a_run_goes_on_from_any_step_to_the_same_bits(at: int) -> None:
    kept: dict[int, Carry] = {}

    def keep(seen: Seen, carry: Carry) -> None:
        kept[seen.step] = jax.tree.map(np.array, carry)

    whole = list(run(epochs=2, batch_size=4, keep=keep))
    assert list(kept) == [1, 2, 3, 4, 5, 6]
    rest = list(run(epochs=2, batch_size=4, carry=kept[at]))
    assert [epoch.metrics["epoch"] for epoch in rest] == ([1, 2] if at < 3 else [2])
    for epoch, same in zip(rest, whole[-len(rest) :], strict=True):
        for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            assert epoch.metrics[name] == same.metrics[name]
        np.testing.assert_array_equal(epoch.params["logits/kernel"], same.params["logits/kernel"])


def test_an_epoch_is_yielded_before_its_last_step_is_kept() -> None:
    told: list[str] = []
    epochs = run(epochs=2, batch_size=5, keep=lambda at, _: told.append(f"step {at.step}"))
    for epoch in epochs:
        told.append(f"epoch {epoch.metrics['epoch']}")
    assert told == ["step 1", "epoch 1", "step 2", "step 3", "epoch 2", "step 4"]
