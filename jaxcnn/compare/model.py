"""A model's gradients: each call that it makes on its own, then each parameter."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

import jaxcnn
from jaxcnn import reference
from jaxcnn.compare.calls import Call, Ops, evaluate, inputs, recording
from jaxcnn.compare.differences import Arrays
from jaxcnn.compare.rows import Row, cast, compare_function, pull
from jaxcnn.compare.tolerance import composed_bound, operations_per_entry, rounding_bound

LOSS = "softmax_cross_entropy_with_integer_labels"


def compare_model(
    model: ModuleType,
    params: Any,
    state: Any,
    x: ArrayLike,
    labels: ArrayLike,
    *,
    manual: Ops = jaxcnn,
    autodiff: Ops = reference,
    dtype: Any = jnp.float32,
    key: Array,
) -> list[Row]:
    """Compares the gradients of the calls that `model` makes and of the loss that they lead to.

    Each call of the forward pass, and that of the loss, is compared on the data that it has there
    and with a random cotangent: which shows the layer that is wrong. The parameters' gradients are
    those of the mean loss.

    Args:
        model: a module with `apply(params, state, x, ops=..., train=..., key=...)`.
        params, state: from the model's `init`. Draw biases that are not zero (`draw_biases`):
            zeros put ties and zeros where the differences are taken.
        x, labels: a batch, and its classes.
        manual: the namespace under test.
        autodiff: the namespace that autodiff differentiates.
        dtype: of the parameters and images. Differences are taken in float64 whatever it is.
        key: draws the cotangents and the directions.

    Returns:
        A row for each floating argument of each call, in order, then one for each parameter.
    """
    # In 64 bits from end to end, since a process's default is 32; each array keeps its own dtype.
    with jax.enable_x64(True):
        dtype = np.dtype(dtype)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        named, loss = _by_name(model, params, state, x, labels, dtype, key)
        calls: list[Call] = []
        loss(recording(autodiff, calls), named)

        rows, bounds = [], []
        for number, call in enumerate(calls, 1):
            name = "loss" if number == len(calls) else call.name
            at_call = partial(evaluate, call)
            values = inputs(call)
            cotangent = _normal_like(jax.eval_shape(partial(at_call, autodiff), values), rng)
            found = compare_function(
                f"{number} {name}: ",
                at_call,
                values,
                cotangent,
                manual=manual,
                autodiff=autodiff,
                bound=partial(_call_bound, at_call, autodiff, dtype=dtype),
                size=lambda a: np.abs(a).max(initial=0),
                rng=rng,
            )
            bounds.append(max((row.allowed for row in found), default=0.0))
            rows += found
        return rows + compare_function(
            "",
            loss,
            named,
            np.ones((), dtype),
            manual=manual,
            autodiff=autodiff,
            bound=lambda *_: composed_bound(bounds, dtype),
            size=np.linalg.norm,
            rng=rng,
        )


def draw_biases(params: Any, seed: int) -> Any:
    """`params` with normal numbers, a tenth in size, in the leaves that are all zeros."""
    rng = np.random.default_rng(seed)

    def draw(leaf: Array) -> Array:
        drawn = (0.1 * rng.standard_normal(leaf.shape)).astype(leaf.dtype)
        return leaf if np.asarray(leaf).any() else jnp.asarray(drawn)

    return jax.tree.map(draw, params)


def _call_bound(
    f: Callable[[Ops, Arrays], Any],
    autodiff: Ops,
    values: Arrays,
    name: str,
    cotangent: Any,
    *,
    dtype: np.dtype,
) -> float:
    def gradient(x: Array, cotangent: Any) -> Array:
        return pull(lambda ops, x: f(ops, {**values, **x}), autodiff, {name: x}, cotangent)[name]

    return rounding_bound(operations_per_entry(gradient, values[name], cotangent), dtype)


def _by_name(
    model: ModuleType,
    params: Any,
    state: Any,
    x: Any,
    labels: ArrayLike,
    dtype: np.dtype,
    key: Array,
) -> tuple[Arrays, Callable[[Ops, Arrays], Array]]:
    """The parameters by name, in `dtype`, and the mean loss as a function of them."""
    params, state, x = cast((params, state, x), dtype)
    leaves, tree = jax.tree.flatten_with_path(params)
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    names = list(named)

    def loss(ops: Any, values: Arrays) -> Array:
        params = jax.tree.unflatten(tree, [values[name] for name in names])
        # In float64, the same images: rounded to `dtype` first.
        same = cast((state, x), jnp.result_type(*values.values()))
        logits, _ = model.apply(params, *same, ops=ops, train=True, key=key)
        return getattr(ops, LOSS)(logits, labels).mean()

    return named, loss


def _normal_like(tree: Any, rng: np.random.Generator) -> Any:
    return jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(leaf.dtype), tree)
