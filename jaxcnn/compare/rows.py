"""A function's gradients, manual against autodiff, a row for each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxcnn.compare.calls import Ops
from jaxcnn.compare.differences import Arrays, compare_with_differences


@dataclass(frozen=True)
class Row:
    """One gradient.

    Attributes:
        name: `3 max_pool: x` for an input of the third call, `conv1/kernel` for a parameter.
        shape: the gradient's.
        absolute: the largest |manual - autodiff|. Manual is in the dtype under test, autodiff in
            float64 on the same values.
        relative: for a call's input, that divided by the largest |autodiff|; for a parameter, the
            norm of manual - autodiff divided by that of autodiff.
        allowed: the bound on `relative`: derived in `jaxcnn.compare.tolerance`. Where manual
            exceeds it, autodiff's own error in the dtype under test if that is larger yet.
        difference: the relative error against central differences, both in float64; None where
            each difference straddles a kink.
        ok: whether manual agrees with autodiff, and with the differences.
    """

    name: str
    shape: tuple[int, ...]
    absolute: float
    relative: float
    allowed: float
    difference: float | None
    ok: bool


def compare_function(
    prefix: str,
    f: Callable[[Ops, Arrays], Any],
    values: Arrays,
    cotangent: Any,
    *,
    manual: Ops,
    autodiff: Ops,
    bound: Callable[[Arrays, str, Any], float],
    size: Callable[[np.ndarray], Any],
    rng: np.random.Generator,
) -> list[Row]:
    """A row for each of `values`: the gradients of `<f(ops, values), cotangent>` with either ops.

    Args:
        prefix: of the rows' names, before those of the values.
        f: a function of a namespace and of arrays by name.
        values, cotangent: in the dtype under test.
        manual, autodiff: the namespaces.
        bound: the largest relative error allowed, from the values and the cotangent in float64
            and a name.
        size: of an error and of a gradient, whose ratio is the relative error.
        rng: draws the directions of the differences.
    """
    exact, exact_cotangent = cast((values, cotangent), np.float64)
    output = jax.jit(partial(f, manual))
    pull_manual = jax.jit(partial(pull, f, manual))
    pull_autodiff = jax.jit(partial(pull, f, autodiff))
    ours = cast(pull_manual(values, cotangent), np.float64)
    theirs = cast(pull_autodiff(exact, exact_cotangent), np.float64)
    rows = []
    for name, value in values.items():
        error = ours[name] - theirs[name]
        scale = float(size(theirs[name])) or 1.0
        relative = float(size(error)) / scale
        allowed = bound(exact, name, exact_cotangent)
        if not relative <= allowed:
            rounded = cast(pull_autodiff(values, cotangent), np.float64)
            allowed = max(allowed, float(size(rounded[name] - theirs[name])) / scale)
        difference = compare_with_differences(
            output,
            lambda values: pull_manual(values, exact_cotangent),
            exact,
            name,
            exact_cotangent,
            rng,
        )
        rows.append(
            Row(
                name=prefix + name,
                shape=value.shape,
                absolute=float(np.abs(error).max(initial=0)),
                relative=relative,
                allowed=allowed,
                difference=difference.relative,
                ok=relative <= allowed and difference.ok,  # in this order NaN is not ok
            )
        )
    return rows


def pull(f: Callable[[Ops, Arrays], Any], ops: Ops, values: Arrays, cotangent: Any) -> Arrays:
    return jax.vjp(partial(f, ops), values)[1](cotangent)[0]


def cast(tree: Any, dtype: Any) -> Any:
    """The floating leaves in `dtype`, as NumPy's arrays: no compilation for each shape."""

    def cast(leaf: Any) -> Any:
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return np.asarray(leaf).astype(dtype) if floating else leaf

    return jax.tree.map(cast, tree)
