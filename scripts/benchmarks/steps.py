"""Whole steps of training to race: forward, backward and the update by plain SGD."""

import time
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from jaxcnn.models import MODELS
from jaxcnn.training.step import compile_step

# So small that ten steps of MobileNet, whose first gradient has a norm of 86, are not chaotic.
RATE = 1e-4
CLASSES = 10
STEPS = {
    "lenet5": (128, 28, 28, 1),
    "vgg": (128, 32, 32, 3),
    "resnet18": (64, 32, 32, 3),
    "mobilenet": (64, 32, 32, 3),
}


class Step(NamedTuple):
    """A call to time, which takes one step on; and what is known of the program."""

    call: Callable[[], object]
    temporary_bytes: int
    start: list[np.ndarray]  # the parameters
    parameters: list[np.ndarray]  # those after ten steps


def batch(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, the same for all contenders."""
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape, np.float32), rng.integers(0, CLASSES, shape[0])


def in_jax(name: str, ops: ModuleType, shape: tuple[int, ...] | None = None) -> Step:
    """A jitted step of one of `jaxcnn.models`, on the operations of a namespace.

    It is compiled as the steps of train.py are.
    """
    lowered, carry, images, labels = _lowered(name, ops, shape or STEPS[name])
    start = [np.array(leaf) for leaf in jax.tree.leaves(carry[0])]
    compiled = compile_step(lowered)

    def call() -> None:
        nonlocal carry
        carry = compiled(carry, images, labels)
        jax.block_until_ready(carry)

    for _ in range(10):
        call()
    parameters = [np.array(leaf) for leaf in jax.tree.leaves(carry[0])]
    memory = compiled.memory_analysis()
    assert memory is not None
    return Step(call, memory.temp_size_in_bytes, start, parameters)


def compile_seconds(name: str, ops: ModuleType) -> float:
    """How long XLA takes for the program of `in_jax`: anew each time, and without the tracing."""
    lowered, *_ = _lowered(name, ops, STEPS[name])
    began = time.perf_counter()
    compile_step(lowered)
    return time.perf_counter() - began


def _lowered(
    name: str, ops: ModuleType, shape: tuple[int, ...]
) -> tuple[jax.stages.Lowered, Any, Array, Array]:
    """The step before it is compiled, and what it is first called with."""
    model, options = MODELS[name]
    images, labels = map(jnp.asarray, batch(shape))
    optimizer = optax.sgd(RATE)

    @partial(jax.jit, donate_argnums=0)
    def step(carry: Any, images: Any, labels: Any) -> Any:
        params, state, optimizer_state, key = carry
        key, dropout_key = jax.random.split(key)

        def loss(params: Any) -> Any:
            logits, moved = model.apply(params, state, images, ops=ops, train=True, key=dropout_key)
            return ops.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), moved

        grads, moved = jax.grad(loss, has_aux=True)(params)
        updates, optimizer_state = optimizer.update(grads, optimizer_state)
        return optax.apply_updates(params, updates), moved, optimizer_state, key

    init = jax.jit(partial(model.init, channels=shape[-1], **options))
    params, state = init(jax.random.key(0))
    carry = params, state, optimizer.init(params), jax.random.key(1)
    return step.lower(carry, images, labels), carry, images, labels


def in_torch(name: str, compiled: bool) -> Callable[[], object]:
    """The same step of the same network in PyTorch, eager or by `torch.compile`."""
    import torch

    from benchmarks import torch_models

    torch.manual_seed(0)
    shape = STEPS[name]
    images, labels = batch(shape)
    x = torch.from_numpy(images).permute(0, 3, 1, 2)
    x = x.contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels)
    model = getattr(torch_models, name)(shape[-1], CLASSES)
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    forward = model
    if compiled:
        torch._dynamo.reset()
        forward = torch.compile(model)

    def call() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(forward(x), y).backward()
        optimizer.step()

    return call


def difference(found: Step, wanted: Step) -> float:
    """After ten steps, the distance between the parameters, relative to how far they have come."""

    def distance(a: list[np.ndarray], b: list[np.ndarray]) -> float:
        pairs = zip(a, b, strict=True)
        return float(np.linalg.norm([np.linalg.norm(x - y) for x, y in pairs]))

    return distance(found.parameters, wanted.parameters) / distance(wanted.parameters, wanted.start)
