"""What is compared: two functions of the same list of floating arrays, and a point.

Trees, integers, keys and whatever else a function takes are folded away here, once: behind this,
a function takes the arrays that have a gradient and gives the outputs that have one.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend import core

from jaxcnn._compiler import known
from jaxcnn.compare.jaxprs import drop_custom_vjp, equations, widened

# What compiles fast: levels are LLVM's, and at 0 the code takes up to ten times as long. Without
# `algsimp` XLA:CPU survives the input gradients of convolutions that it aborts the process on.
QUICK: dict[str, Any] = {
    "xla_backend_optimization_level": 1,
    "xla_disable_hlo_passes": "algsimp",
    "xla_cpu_use_fusion_emitters": False,
}

SALT = 0x6A617863
Arrays = list[Any]
Function = Callable[[Arrays], Arrays]


class Problem(NamedTuple):
    """A function under test, the one to hold it against, and where.

    Attributes:
        f: of the arrays in `values`, with its own rules.
        against: of the same arrays, as autodiff is to differentiate it.
        primal: `f` without its rules.
        names: of the arrays: `kernel`, or `params/conv1/kernel` in a tree.
        values: the arrays.
        cotangents: of the outputs.
        carries: whether there are arrays besides, such as integer labels.
    """

    f: Function
    against: Function
    primal: Function
    names: list[str]
    values: list[np.ndarray]
    cotangents: list[np.ndarray]
    carries: bool = False


def problem(
    f: Callable[..., Any],
    args: tuple[Any, ...],
    against: Callable[..., Any] | None,
    argnums: int | Sequence[int] | None,
    rng: np.random.Generator,
    caller: str = "compare_gradients",
) -> Problem:
    """Folds the arguments away, and draws the cotangents; errors name the caller.

    Raises:
        TypeError: `f` or `against` is no function.
        ValueError: an argnum is out of range, nothing floats, or `against` has other outputs.
    """
    for name, function in (("f", f), ("against", f if against is None else against)):
        if not callable(function):
            raise TypeError(f"{caller}: `{name}` must be a function, got {function!r}")
    chosen = _argnums(argnums, len(args))
    leaves, tree = jax.tree.flatten(args)
    paths = [path for path, _ in jax.tree.flatten_with_path(args)[0]]
    places = [
        place
        for place, (path, leaf) in enumerate(zip(paths, leaves, strict=True))
        if path[0].idx in chosen and _floats(leaf)
    ]
    if not places:
        raise ValueError(f"{caller}: no argument is a floating array, so none has a gradient")

    def flat(function: Callable[..., Any]) -> Function:
        return fold(lambda *leaves: function(*jax.tree.unflatten(tree, leaves)), leaves, places)[0]

    ours, primal = flat(f), flat(drop_custom_vjp(f))
    theirs = primal if against is None else flat(against)
    values = [np.asarray(jnp.asarray(leaves[place])) for place in places]  # a float: JAX's own
    with wide_if(values):
        shapes = jax.eval_shape(ours, values)
        others = jax.eval_shape(theirs, values)
    if not shapes:
        raise ValueError(f"{caller}: no output of `f` is a floating array")
    if [s.shape for s in shapes] != [s.shape for s in others]:
        raise ValueError(
            f"compare_gradients: `f` has outputs of shapes {[s.shape for s in shapes]}, "
            f"`against` of {[s.shape for s in others]}"
        )
    cotangents = [np.asarray(rng.standard_normal(s.shape)).astype(s.dtype) for s in shapes]
    names = _names(f, [paths[place] for place in places])
    carries = any(
        getattr(leaf, "ndim", 0) > 0 for place, leaf in enumerate(leaves) if place not in places
    )
    return Problem(ours, theirs, primal, names, values, cotangents, carries)


def fold(
    f: Callable[..., Any], leaves: Sequence[Any], places: Sequence[int] | None = None
) -> tuple[Function, list[int]]:
    """`f` as a function of a list: of the leaves at `places`, which default to all that float.

    It gives the outputs that float. The other leaves are as they are here.
    """
    chosen = [i for i, leaf in enumerate(leaves) if _floats(leaf)] if places is None else [*places]

    def of_arrays(values: Arrays) -> Arrays:
        wide = any(value.dtype == jnp.float64 for value in values)
        filled = [
            leaf.astype(jnp.float64) if wide and _is_narrow(leaf) else leaf for leaf in leaves
        ]
        for place, value in zip(chosen, values, strict=True):
            filled[place] = value
        results = jax.tree.leaves(f(*filled))
        return [jnp.asarray(result) for result in results if _floats(result)]

    return of_arrays, chosen


def generator(key: Array | None) -> np.random.Generator:
    """What draws cotangents and directions, by a key; not what users draw their arguments with."""
    key = jax.random.key(0) if key is None else key
    return np.random.default_rng([*np.asarray(jax.random.key_data(key)).ravel(), SALT])


def wide_if(values: Sequence[np.ndarray]) -> Any:
    """The context in which arrays of 64 bits keep them; the process's own otherwise."""
    wide = any(value.dtype == np.float64 for value in values)
    return jax.enable_x64(bool(wide or jax.config.jax_enable_x64))  # type: ignore[attr-defined]


def traced_wide(f: Callable[..., Any], *arrays: Arrays) -> tuple[Any, float]:
    """The program for float64, to be widened, and the eps that its constants are rounded to.

    That is 0, unless the function takes no float64: it may mix them with narrower arrays.
    """
    with jax.enable_x64(True):
        try:
            return jax.make_jaxpr(f)(*map(widen, arrays)), 0.0
        except Exception:  # whatever the function raises
            return traced(f, *arrays), max(float(jnp.finfo(x.dtype).eps) for x in arrays[0])


def traced(f: Callable[..., Any], *arrays: Arrays) -> Any:
    """The program in the arrays' own dtypes."""
    with wide_if(arrays[0]):
        return jax.make_jaxpr(f)(*arrays)


class Pull:
    """`(outputs, gradients)` of values and cotangents, in their own dtype and in float64.

    For float64 the function is traced anew with arrays of that dtype, so that its constants are
    not rounded, and then widened, for the narrow floats that it asks for by name. That is done when
    it is asked for: in another thread, perhaps.
    """

    def __init__(self, f: Function, values: Arrays, cotangents: Arrays) -> None:
        def pull(values: Arrays, cotangents: Arrays) -> tuple[Arrays, Arrays]:
            outputs, back = jax.vjp(f, values)
            return outputs, back(cotangents)[0]

        self.program = traced(pull, values, cotangents)
        self.outputs = len(cotangents)
        self._trace_wide = lambda: traced_wide(pull, values, cotangents)

    @cached_property
    def size(self) -> int:
        """The number of equations."""
        return sum(1 for _ in equations(self.program))

    @cached_property
    def _narrow(self) -> Any:
        return quick(core.jaxpr_as_fun(self.program))

    @cached_property
    def _exact(self) -> tuple[Any, float]:
        return self._trace_wide()

    @cached_property
    def _wide(self) -> Any:
        return quick(widened(self._exact[0]))

    @property
    def rounded(self) -> float:
        """The eps to which the constants of the program in float64 are rounded, or 0."""
        return self._exact[1]

    def narrow(self, values: Arrays, cotangents: Arrays) -> tuple[Arrays, Arrays]:
        """As it is."""
        with wide_if(values):
            return self._split(self._narrow(*values, *cotangents))

    def wide(self, values: Arrays, cotangents: Arrays) -> tuple[Arrays, Arrays]:
        """The same program in float64."""
        with jax.enable_x64(True):
            return self._split(self._wide(*widen(values), *widen(cotangents)))

    def _split(self, results: Any) -> tuple[Arrays, Arrays]:
        arrays = [np.asarray(result) for result in results]
        return arrays[: self.outputs], arrays[self.outputs :]


def quick(f: Callable[..., Any], level: int = 1) -> Any:
    """`jax.jit` for what runs a few times, or at level 0 once."""
    return jax.jit(f, compiler_options=known(QUICK) | {"xla_backend_optimization_level": level})


def widen(arrays: Sequence[Any]) -> list[np.ndarray]:
    """The same in float64."""
    return [np.asarray(array).astype(np.float64) for array in arrays]


def _is_narrow(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and _floats(leaf) and leaf.dtype.itemsize < 8


def _floats(leaf: Any) -> bool:
    if isinstance(leaf, float):
        return True
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)


def _argnums(argnums: int | Sequence[int] | None, count: int) -> set[int]:
    if argnums is None:
        return set(range(count))
    chosen = [argnums] if isinstance(argnums, int) else list(argnums)
    for number in chosen:
        if not -count <= number < count:
            raise ValueError(
                f"compare_gradients: `argnums` must be from {-count} to {count - 1} "
                f"for {count} arguments, got {number}"
            )
    return {number % count for number in chosen}


def _names(f: Callable[..., Any], paths: Sequence[Any]) -> list[str]:
    """By the names of the function's parameters, where they can be known."""
    try:
        parameters = list(inspect.signature(f).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    plain = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    known = [parameter.name for parameter in parameters if parameter.kind in plain]

    def name(path: Any) -> str:
        number = path[0].idx
        head = known[number] if number < len(known) else f"argument {number}"
        rest = jax.tree_util.keystr(path[1:], simple=True, separator="/")
        return f"{head}/{rest}" if rest else head

    return [name(path) for path in paths]
