"""What `jaxcnn._cpu.choice` takes for a convolution's three sums, raced against what it does not.

The rivals of what is chosen are XLA's one convolution and the other evaluations that there are for
the same sum, so that a threshold shows from both of its sides. They make the table in choice.py.
"""

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
from jax import Array

import jaxcnn
from benchmarks import contenders
from benchmarks.contenders import Contender
from benchmarks.layers import LAYERS, Layer, Shape, conv
from jaxcnn import fused
from jaxcnn._cpu import choice, cuts, depthwise, patches, winograd
from jaxcnn._cpu.choice import Problem, Sum
from jaxcnn._taps import FEW, turned

FUNCTIONS: dict[str, dict[str, Callable[..., Array]]] = {
    "forward": {
        "patches": patches.forward,
        "to few": patches.forward_to_few,
        "winograd": winograd.forward,
    },
    "kernel": {
        "patches": patches.kernel_grad,
        "both": patches.kernel_grad_of_both,
        "winograd": winograd.kernel_grad,
    },
    "input's gradient": {"patches": patches.input_grad},
}
KINDS = tuple(FUNCTIONS)
ORDER = (
    *("depthwise", "winograd", "winograd, cut"),
    *("patches", "patches, cut", "both", "both, cut", "to few", "XLA"),
)

# What LAYERS have little of, and the two sides of each threshold.
MORE = [
    # Channels: fewer than 8 are patches, on 16 to 32 (forward on 32) Winograd's way begins
    conv("3x3 6>6", (64, 32, 32, 6), (3, 3), 6),
    conv("3x3 8>8", (64, 32, 32, 8), (3, 3), 8),
    conv("3x3 8>16", (64, 32, 32, 8), (3, 3), 16),
    conv("3x3 12>12", (64, 32, 32, 12), (3, 3), 12),
    conv("3x3 12>16", (64, 32, 32, 12), (3, 3), 16),
    conv("3x3 16>16", (64, 32, 32, 16), (3, 3), 16),
    conv("3x3 16>32", (64, 32, 32, 16), (3, 3), 32),
    conv("3x3 24>24", (64, 32, 32, 24), (3, 3), 24),
    conv("3x3 32>32", (64, 32, 32, 32), (3, 3), 32),
    # To few: half as many and 8 at most, of images that are not too large
    conv("3x3 64>3", (64, 32, 32, 64), (3, 3), 3),
    conv("3x3 64>3, 128x128", (4, 128, 128, 64), (3, 3), 3),
    conv("9x9 32>1", (16, 32, 32, 32), (9, 9), 1),
    conv("3x3 16>8", (64, 32, 32, 16), (3, 3), 8),
    conv("3x3 12>8", (64, 32, 32, 12), (3, 3), 8),
    conv("3x3 64>8", (64, 32, 32, 64), (3, 3), 8),
    conv("3x3 64>10", (64, 32, 32, 64), (3, 3), 10),
    # Winograd's way: 2 to 5 taps of two axes, a saving of 1.5, half as many rows as channels
    conv("2x2 64>64", (64, 15, 15, 64), (2, 2), 64, padding=0),
    conv("4x4 64>64", (64, 16, 16, 64), (4, 4), 64),
    conv("7x7 32>32", (64, 28, 28, 32), (7, 7), 32),
    conv("3x1 64>64", (64, 16, 16, 64), (3, 1), 64, padding=0),
    conv("saving 1.36: 2x2 64>64", (64, 8, 8, 64), (2, 2), 64, padding=0),
    conv("saving 1.56: 3x3 64>64", (64, 5, 5, 64), (3, 3), 64),
    conv("rows 1/2: 3x3 256>256", (128, 4, 4, 256), (3, 3), 256),
    conv("rows 1/4: 3x3 256>256", (64, 4, 4, 256), (3, 3), 256),
    # The same, cut by strides, of 5 taps and more, and by dilation
    conv("4x4/2 64>64", (16, 32, 32, 64), (4, 4), 64, strides=2, padding=1),
    conv("5x5/2 32>64", (32, 32, 32, 32), (5, 5), 64, strides=2),
    conv("5x5/2 64>64", (16, 56, 56, 64), (5, 5), 64, strides=2),
    conv("3x3/2 64>64", (16, 60, 60, 64), (3, 3), 64, strides=2),
    conv("3x3 dilation 4 64>64", (16, 32, 32, 64), (3, 3), 64, dilation=4),
    conv("5x5 dilation 2 32>32", (16, 32, 32, 32), (5, 5), 32, dilation=2),
    # Rows in all other ways
    conv("3x3/2 8>16", (64, 32, 32, 8), (3, 3), 16, strides=2),
    conv("5x5/2 1>32", (64, 28, 28, 1), (5, 5), 32, strides=2),
    conv("4x4/4 3>96", (16, 112, 112, 3), (4, 4), 96, strides=4, padding=0),
    conv("4x4/4 1>32", (64, 28, 28, 1), (4, 4), 32, strides=4, padding=0),
    conv("3x3/2 16>32", (64, 32, 32, 16), (3, 3), 32, strides=2),
    # Groups: of up to 4 channels shifts
    conv("3x3, groups of 2, 32>32", (64, 32, 32, 32), (3, 3), 32, groups=16),
    conv("3x3/2, groups of 4, 128>128", (16, 28, 28, 128), (3, 3), 128, strides=2, groups=32),
    conv("3x3, groups of 4, 4x4 images", (64, 4, 4, 128), (3, 3), 128, groups=32),
    conv("1-D 9, groups of 4, 64>64", (32, 1000, 64), (9,), 64, groups=16),
    conv("5x5, groups of 2, 32>32", (64, 32, 32, 32), (5, 5), 32, groups=16),
    conv("5x5, groups of 4, 64>64", (16, 28, 28, 64), (5, 5), 64, groups=16),
    conv("3x3, groups of 8, 256>256", (16, 14, 14, 256), (3, 3), 256, groups=32),
    conv("5x5, 4 groups 64>64", (16, 28, 28, 64), (5, 5), 64, groups=4),
    conv("1x1, 2 groups 128>128", (16, 28, 28, 128), (1, 1), 128, groups=2),
    conv("2x2 images 3x3 512>512", (128, 2, 2, 512), (3, 3), 512),
    # Volumes, cut to images
    conv("3-D 3x3x3 32>32", (4, 8, 16, 16, 32), (3, 3, 3), 32),
    conv("3-D 3x3x3 64>64", (2, 16, 28, 28, 64), (3, 3, 3), 64),
    conv("3-D 3x3x3/2 32>64", (16, 16, 16, 16, 32), (3, 3, 3), 64, strides=2),
]


def pooled(name: str, x: Shape, taps: Shape, features: int) -> Layer:
    """A convolution, relu and a pool of 2x2."""
    arrays = {"x": x, "kernel": (*taps, x[-1], features), "bias": (features,)}

    def in_torch(functional: Any, x: Any, kernel: Any, bias: Any) -> Any:
        z = functional.conv2d(x, kernel, bias, padding=taps[0] // 2)
        return functional.max_pool2d(functional.relu(z), 2)

    def in_jax(ops: Any, *args: Any) -> Any:
        return ops.conv_relu_max_pool(*args, pool_shape=2)

    return Layer(f"pooled {name}", arrays, in_jax, in_torch)


# By few channels, and by how many more multiplications there are.
POOLED = [
    pooled("1>6 by 5x5", (128, 28, 28, 1), (5, 5), 6),
    pooled("6>16 by 5x5", (128, 14, 14, 6), (5, 5), 16),
    pooled("1>6 by 5x5, 512 images", (512, 28, 28, 1), (5, 5), 6),
    pooled("1>6 by 5x5, 16 images", (16, 28, 28, 1), (5, 5), 6),
    pooled("16>16 by 5x5", (128, 16, 16, 16), (5, 5), 16),
    pooled("1>32 by 5x5", (128, 28, 28, 1), (5, 5), 32),
    pooled("32>64 by 5x5", (128, 14, 14, 32), (5, 5), 64),
    pooled("4>8 by 3x3", (128, 28, 28, 4), (3, 3), 8),
    pooled("8>8 by 3x3", (128, 28, 28, 8), (3, 3), 8),
    pooled("1>16 by 3x3", (128, 28, 28, 1), (3, 3), 16),
    pooled("3>16 by 3x3", (128, 32, 32, 3), (3, 3), 16),
    pooled("8>16 by 3x3", (128, 16, 16, 8), (3, 3), 16),
    pooled("3>64 by 3x3", (128, 32, 32, 3), (3, 3), 64),
]
CASES = [layer for layer in LAYERS if "kernel" in layer.arrays] + MORE


class Asked(NamedTuple):
    """One of a layer's sums, as choice.py is asked for it, and its answer."""

    problem: Problem
    chosen: Sum | None
    otherwise: Sum
    shapes: list[Shape]


def asked(layer: Layer) -> list[Asked]:
    """Forward, kernel and input's gradient, seen while the layer is traced."""
    found = []

    def see(choose: Any, problem: Problem, a: Array, b: Array, otherwise: Sum, *_: Any) -> Array:
        found.append(Asked(problem, choose(problem), otherwise, [a.shape, b.shape]))
        return otherwise(a, b)

    def passes(*args: Array) -> Any:
        y, pull = jax.vjp(partial(layer.jax, jaxcnn), *args)
        return pull(y)

    arrays = [jax.ShapeDtypeStruct(shape, np.float32) for shape in layer.arrays.values()]
    # Without jit, which would not trace what it has traced before.
    with mock.patch.object(choice, "_evaluated", see), jax.disable_jit():
        jax.eval_shape(passes, *arrays)
    return found


def evaluation(chosen: Sum | None) -> str:
    """The name of what was chosen: a function of `_cpu`, or one inside of lambdas."""
    cut = ""
    while chosen is not None and getattr(chosen, "__module__", None) == choice.__name__:
        held = inspect.getclosurevars(chosen).nonlocals.values()
        cut = ", cut" if any(isinstance(value, cuts.Cut) for value in held) else cut
        chosen = next(value for value in held if callable(value))
    if chosen is None:
        return "XLA"
    function: Any = getattr(chosen, "func", chosen)
    if function is patches.forward_to_few:
        return "to few"
    if function is patches.kernel_grad_of_both:
        return "both" + cut
    return function.__module__.rpartition(".")[2] + cut


def others(kind: str, problem: Problem) -> dict[str, Sum]:
    """What else there is for a sum, by no cut, whichever is chosen."""
    window, groups = problem.window, problem.groups
    if max(window.input_dilation) > 1:
        return {}
    whole = max(window.strides) == 1
    if kind == "input's gradient" and whole:
        rivals = others("forward", problem.adjoint)
        return {name: partial(_of_turned, groups, rival) for name, rival in rivals.items()}
    if groups > 1:
        rivals = {"patches": partial(FUNCTIONS[kind]["patches"], window=window, groups=groups)}
        within = problem.channels // groups
        few = problem.channels == problem.features and within <= 2 * choice.NARROW
        if few and kind == "forward":
            rivals["depthwise"] = partial(depthwise.forward, window=window)
        if few and kind == "kernel":
            rivals["depthwise"] = partial(depthwise.kernel_grad, window=window, within=within)
        return rivals
    fits = {
        "patches": True,
        "both": len(window.taps) > 1 and window.strides[0] == 1,
        "to few": whole and max(window.taps) > 1 and problem.features < problem.channels,
        "winograd": whole
        and max(window.dilation) == 1
        and len(window.taps) == 2
        and all(2 <= taps <= 5 for taps in window.taps),
    }
    functions = FUNCTIONS[kind].items()
    return {name: partial(function, window=window) for name, function in functions if fits[name]}


def _of_turned(groups: int, rival: Sum, dy: Array, kernel: Array) -> Array:
    return rival(dy, turned(kernel, groups))


def calls(kind: str, sums: Asked) -> tuple[dict[str, Callable[[], object]], dict[str, np.ndarray]]:
    """What to race, "manual" being what was chosen, and what each of them comes to."""
    rng = np.random.default_rng(0)
    a, b = (jax.numpy.asarray(rng.standard_normal(shape, np.float32)) for shape in sums.shapes)
    chosen = evaluation(sums.chosen)
    rivals = {"XLA": sums.otherwise} | others(kind, sums.problem)
    entered = {"manual": sums.chosen or sums.otherwise}
    entered |= {name: rival for name, rival in rivals.items() if name != chosen}
    entered = {name: jax.jit(function) for name, function in entered.items()}
    results = {name: np.asarray(function(a, b)) for name, function in entered.items()}
    entered["control"] = entered["manual"]
    return {name: _call(function, a, b) for name, function in entered.items()}, results


def _call(function: Sum, a: Array, b: Array) -> Callable[[], object]:
    return lambda: jax.block_until_ready(function(a, b))


def pooled_and_in_turn(layer: Layer) -> tuple[dict[str, Contender], str]:
    """Both evaluations of `conv_relu_max_pool`, and the name of the one that is chosen."""
    seen = []

    def choose(*args: Any) -> bool:
        seen.append(_is_pooled(*args))
        return name == "pooled"

    # Without its jit, which would not trace what it has traced before.
    rule = mock.patch.object(fused, "_jitted_conv_relu_max_pool", fused._conv_relu_max_pool)
    found = {}
    for name in ("pooled", "in turn"):
        with rule, mock.patch.object(choice, "_pooled", choose):
            found[name] = contenders.in_jax(layer, jaxcnn)
            found[name].forward()  # compiles it
    return found, "pooled" if seen[0] else "in turn"


_is_pooled = choice._pooled


# The table ---------------------------------------------------------------------------------------


def where(chosen: str, problem: Problem) -> str:
    """A row of the table: what is asked of a problem for which this is chosen."""
    window = problem.window
    strided = max(window.strides + window.input_dilation) > 1
    if chosen == "depthwise":
        alone = problem.channels == problem.groups
        return "a group for each channel" if alone else "groups of up to 4 channels"
    if len(window.size) > 2 and chosen.endswith("cut"):
        return "volumes"
    if chosen == "winograd":
        return "2x2 to 5x5 taps, no strides"
    if chosen == "winograd, cut":
        return "strides" if strided else "dilation"
    if chosen == "both":
        return "3x3 taps and more, no strides"
    if chosen == "to few":
        return "to 8 channels, from twice as many"
    if problem.groups > 1:
        return "in groups"
    if max(window.taps) == 1:
        return "1x1"
    if min(problem.channels, problem.features) < FEW >= max(problem.channels, problem.features):
        return "fewer than 16 channels"
    if strided:
        return "strides"
    return "all else"


def table(records: list[dict[str, Any]]) -> list[str]:
    """The time of XLA's over that of the evaluation: its least and greatest, for each sum.

    Where XLA's is chosen, over that of patches, which would be taken instead.
    """
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for record in records:
        if "in turn" in record["speedup"]:  # of POOLED: each is a line of its own
            continue
        rows.setdefault((record["evaluation"], record["where"]), []).append(record)
    lines = [_line("evaluation", "where", KINDS)]
    for chosen, where in sorted(rows, key=lambda row: (ORDER.index(row[0]), row[1])):
        ratios: dict[str, list[float]] = {kind: [] for kind in KINDS}
        for record in rows[chosen, where]:
            ratios[record["kind"]].append(_over(record))
        name = "XLA (patches)" if chosen == "XLA" else chosen
        lines.append(_line(name, where, map(_range, ratios.values())))
    return lines


def _line(name: str, where: str, cells: Iterable[str]) -> str:
    return f"{name:15}{where:36}{''.join(f'{cell:14}' for cell in cells)}".rstrip()


def _over(record: dict[str, Any]) -> float:
    speedup = record["speedup"]
    return 1 / speedup["patches"] if record["evaluation"] == "XLA" else speedup["XLA"]


def _range(ratios: list[float]) -> str:
    ends = [f"{x:.{int(x < 9.95)}f}" for x in (min(ratios), max(ratios))] if ratios else []
    return " to ".join(dict.fromkeys(ends))
