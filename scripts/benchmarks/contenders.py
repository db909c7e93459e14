"""The contenders for one layer: hand-derived, autodiff and PyTorch, forward and backward apart."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

import jaxcnn
from benchmarks.layers import Layer

Call = Callable[[], object]


class Contender(NamedTuple):
    """Calls to time, and what they should agree on."""

    forward: Call
    backward: Call
    results: list[np.ndarray]  # the output, then each array's gradient, in JAX's layout


def draw(layer: Layer) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The layer's arrays, scaled so that the output is about 1 in size, and its cotangent."""
    rng = np.random.default_rng(0)
    arrays = {
        role: rng.standard_normal(shape, np.float32)
        / np.float32(np.sqrt(np.prod(shape[:-1])) if role in ("kernel", "matrix") else 1)
        for role, shape in layer.arrays.items()
    }
    y = jax.eval_shape(partial(layer.jax, jaxcnn), *arrays.values())
    return arrays, rng.standard_normal(y.shape, np.float32)


def in_jax(layer: Layer, ops: ModuleType) -> Contender:
    """The forward pass alone, and the backward pass from what the forward pass kept."""
    arrays, cotangent = draw(layer)
    args = [jax.numpy.asarray(array) for array in arrays.values()]
    dy = jax.numpy.asarray(cotangent)
    forward = jax.jit(partial(layer.jax, ops))
    y, pull = jax.jit(lambda *args: jax.vjp(partial(layer.jax, ops), *args))(*args)
    backward = jax.jit(lambda pull, dy: pull(dy))
    return Contender(
        lambda: jax.block_until_ready(forward(*args)),
        lambda: jax.block_until_ready(backward(pull, dy)),
        [np.asarray(result) for result in (y, *backward(pull, dy))],
    )


def in_float64(layer: Layer) -> list[np.ndarray]:
    """The results in float64, by autodiff: what those of the contenders come near to."""

    @jax.jit
    def results(dy: jax.Array, *args: jax.Array) -> Any:
        y, pull = jax.vjp(partial(layer.jax, jaxcnn.reference), *args)
        return y, *pull(dy)

    arrays, cotangent = draw(layer)
    with jax.enable_x64(True):
        wide = [jax.numpy.asarray(array, "float64") for array in (cotangent, *arrays.values())]
        return [np.asarray(result) for result in results(*wide)]


def in_torch(layer: Layer, compiled: bool) -> Contender:
    """The same in PyTorch, eager or by `torch.compile`."""
    import torch

    arrays, cotangent = draw(layer)
    args = [to_torch(role, array).requires_grad_() for role, array in arrays.items()]
    function = partial(layer.torch, torch.nn.functional)
    if compiled:
        torch._dynamo.reset()
        function = torch.compile(function)
    dy = to_torch("x", cotangent)
    y = function(*args)

    def backward() -> Any:
        return torch.autograd.grad(y, args, dy, retain_graph=True)

    def forward() -> Any:
        with torch.no_grad():
            return function(*args)

    found = [from_torch("x", y), *map(from_torch, arrays, backward())]
    return Contender(forward, backward, found)


def to_torch(role: str, array: np.ndarray) -> Any:
    """Channels first by the axes, channels last in memory (for 1-D, which has no such format, not).

    A convolution's kernel goes from (*taps, in, out) to (out, in, *taps).
    """
    import torch

    tensor = torch.from_numpy(array)
    axes = tensor.ndim
    if role == "kernel":
        tensor = tensor.permute(axes - 1, axes - 2, *range(axes - 2))
    elif role == "matrix":
        tensor = tensor.T
    elif role == "x" and axes > 2:
        tensor = tensor.permute(0, axes - 1, *range(1, axes - 1))
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return tensor.contiguous(memory_format=formats.get(axes, torch.contiguous_format))


def from_torch(role: str, tensor: Any) -> np.ndarray:
    """The inverse of `to_torch`."""
    array = tensor.detach().numpy()
    axes = array.ndim
    if role == "kernel":
        return array.transpose(*range(2, axes), 1, 0)
    if role == "matrix":
        return array.T
    return array.transpose(0, *range(2, axes), 1) if role == "x" and axes > 2 else array
