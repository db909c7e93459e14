"""The calls that a model makes, recorded: each layer's function, arguments and real data."""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from types import ModuleType, SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Ops = ModuleType | SimpleNamespace


@dataclass(frozen=True)
class Call:
    """One call: the function's name in its namespace, and its arguments, bound to their names."""

    name: str
    bound: inspect.BoundArguments


def recording(ops: Ops, calls: list[Call]) -> Any:
    """A namespace that computes with `ops` and appends each call to `calls`.

    >>> from jaxcnn import reference
    >>> calls: list[Call] = []
    >>> y = recording(reference, calls).dense(jnp.ones((2, 3)), kernel=jnp.ones((3, 4)))
    >>> [(call.name, *call.bound.arguments) for call in calls]
    [('dense', 'x', 'kernel')]
    """

    def recorded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(function)

        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append(Call(name, signature.bind(*args, **kwargs)))
            return function(*args, **kwargs)

        return call

    public = {name: value for name, value in vars(ops).items() if not name.startswith("_")}
    functions = {name: value for name, value in public.items() if callable(value)}
    return SimpleNamespace(**{name: recorded(name, f) for name, f in functions.items()})


def inputs(call: Call) -> dict[str, np.ndarray]:
    """The arguments that have a gradient: the floating arrays, by name; none within `*args`."""
    return {
        name: np.asarray(value)
        for name, value in call.bound.arguments.items()
        if isinstance(value, jax.Array | np.ndarray) and jnp.issubdtype(value.dtype, jnp.floating)
    }


def evaluate(call: Call, ops: Ops, values: dict[str, Any]) -> Any:
    """The call made once more: with the function of that name in `ops`, on other `values`."""
    bound = copy.copy(call.bound)
    bound.arguments = {**bound.arguments, **values}
    return getattr(ops, call.name)(*bound.args, **bound.kwargs)
