"""One step of training, compiled as one: forward, backward and the optimiser's update."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike

import jaxcnn

Tree = Any  # a nested dict of arrays, such as a model's parameters


class Carry(NamedTuple):
    """What a step takes and gives back. The step reuses its memory: the one given is gone."""

    params: Tree
    state: Tree
    optimizer_state: Tree
    key: Array
    loss: Array  # summed over the images seen in this epoch, on the device
    correct: Array  # how many of them were classified right


def start(
    init: Callable[[Array], tuple[Tree, Tree]],
    optimizer: optax.GradientTransformation,
    seed: int,
) -> Carry:
    """The carry before the first step, of the parameters and the state that `init` draws."""
    init_key, key = jax.random.split(jax.random.key(seed))
    params, state = jax.jit(init)(init_key)
    return Carry(params, state, optimizer.init(params), key, jnp.zeros(()), jnp.zeros((), int))


def new_epoch(carry: Carry) -> Carry:
    """The same carry with no image seen."""
    return carry._replace(loss=jnp.zeros(()), correct=jnp.zeros((), int))


def mean_loss(
    params: Tree,
    state: Tree,
    x: Array,
    labels: Array,
    key: Array,
    *,
    model: ModuleType,
    ops: ModuleType,
) -> tuple[Array, tuple[Tree, Array]]:
    """The mean cross entropy of a batch, and beside it the new state and the logits."""
    logits, state = model.apply(params, state, x, ops=ops, train=True, key=key)
    return ops.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), (state, logits)


def make_train_step(
    model: ModuleType, ops: ModuleType, optimizer: optax.GradientTransformation
) -> jax.stages.Wrapped:
    """A jitted `train_step(carry, x, labels) -> carry, gradients`, which donates its carry.

    `jax.value_and_grad` finds the rules of `ops`: with `ops=jaxcnn` the whole backward pass of the
    model is hand-derived, with `ops=jaxcnn.reference` it is autodiff's.
    """

    def train_step(carry: Carry, x: Array, labels: Array) -> tuple[Carry, Tree]:
        key, step_key = jax.random.split(carry.key)
        value_and_grad = jax.value_and_grad(mean_loss, has_aux=True)
        (loss, (state, logits)), grads = value_and_grad(
            carry.params, carry.state, x, labels, step_key, model=model, ops=ops
        )
        updates, optimizer_state = optimizer.update(grads, carry.optimizer_state, carry.params)
        params = optax.apply_updates(carry.params, updates)
        total = carry.loss + loss * len(labels)
        correct = carry.correct + (logits.argmax(-1) == labels).sum()
        return Carry(params, state, optimizer_state, key, total, correct), grads

    return jax.jit(train_step, donate_argnums=0)


def make_test_step(model: ModuleType, ops: ModuleType) -> jax.stages.Wrapped:
    """A jitted `test_step(params, state, x, labels) -> loss, predictions`, both `(N,)`."""

    def test_step(params: Tree, state: Tree, x: Array, labels: Array) -> tuple[Array, Array]:
        logits, _ = model.apply(params, state, x, ops=ops)
        loss = ops.softmax_cross_entropy_with_integer_labels(logits, labels)
        return loss, logits.argmax(-1)

    return jax.jit(test_step)


def gradient_errors(
    model: ModuleType, carry: Carry, x: ArrayLike, labels: ArrayLike
) -> dict[str, float]:
    """Hand-derived against autodiff's gradient, `max|a - b| / max|b|` for each parameter.

    A gradient of zeros counts as right only if the other is zero as well.
    """

    def gradients(ops: ModuleType) -> dict[str, np.ndarray]:
        gradient = jax.jit(jax.grad(lambda *a: mean_loss(*a, model=model, ops=ops), has_aux=True))
        return flat(gradient(carry.params, carry.state, x, labels, carry.key)[0])

    ours, autodiff = gradients(jaxcnn), gradients(jaxcnn.reference)
    tiny = np.finfo(np.float32).tiny
    return {
        name: float(np.abs(ours[name] - b).max() / max(np.abs(b).max(), tiny))
        for name, b in autodiff.items()
    }


def flat(tree: Tree) -> dict[str, np.ndarray]:
    """A tree's leaves on the host, by names such as `conv1/kernel`.

    >>> flat({"conv1": {"bias": jnp.zeros(2)}})
    {'conv1/bias': array([0., 0.], dtype=float32)}
    """
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.array(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
