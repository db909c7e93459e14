"""What a rule costs against autodiff: in time, in work, and in what is kept for the backward pass.

Times are of compiled programs, the two in turn, and are given as ratios: those of a shared machine
mean nothing by themselves. FLOPs and bytes are XLA's count for the compiled programs of the two
passes (a loop's body counts once). What is kept is what `jax.vjp` closes over, arguments included.

XLA:CPU aborts the process on some of the gradients that autodiff builds of convolutions. For other
checks they are compiled in a way that it survives (`problem.QUICK`); here, as users compile them.
So another process tries first.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import export

from jaxcnn.compare.problem import Arrays, Function, Problem, wide_if
from jaxcnn.compare.report import Row

ROUNDS = 7
LEAST = 2e-3  # seconds that one measurement takes: shorter calls are repeated

# A program that runs what it is given on its standard input, by `jax.export`.
TRIAL = """
import sys, jax, numpy
from jax import export
exported = export.deserialize(bytearray(sys.stdin.buffer.read()))
jax.jit(exported.call)(*[numpy.zeros(each.shape, each.dtype) for each in exported.in_avals])
"""


class Passes(NamedTuple):
    """A function's two passes, compiled."""

    forward: Callable[[], Any]
    backward: Callable[[], Any]
    kept: int
    flops: float
    traffic: float
    compile_seconds: float


def cost_rows(problem: Problem) -> list[Row]:
    """How many times as much autodiff takes; above 1 the rule is the cheaper one."""
    with wide_if(problem.values):
        if _aborts(problem):
            says = "autodiff's gradient makes XLA abort the process: there is none to compare with"
            return [Row("cost", "all of it", "note", says)]
        ours = _passes(problem.f, problem.values, problem.cotangents)
        theirs = _passes(problem.against, problem.values, problem.cotangents)
        forward = _ratio(theirs.forward, ours.forward)
        backward = _ratio(theirs.backward, ours.backward)
    figures = {
        "forward": forward,
        "backward": backward,
        "FLOPs": _over(theirs.flops, ours.flops),
        "bytes moved": _over(theirs.traffic, ours.traffic),
        "bytes kept": _over(theirs.kept, ours.kept),
        "compile time": _over(theirs.compile_seconds, ours.compile_seconds),
    }
    rows = [
        Row("cost", name, "note", _says(ratio), {"ratio": ratio}) for name, ratio in figures.items()
    ]
    kept = f"{ours.kept:,} bytes are kept for the backward pass, by autodiff {theirs.kept:,}"
    return [*rows, Row("cost", "residuals", "note", kept)]


def _aborts(problem: Problem) -> bool:
    """Whether a process that computes autodiff's gradient is ended by a signal."""
    if jax.default_backend() != "cpu":
        return False
    count = len(problem.values)

    def gradient(*arrays: Any) -> Arrays:
        return jax.vjp(problem.against, list(arrays[:count]))[1](list(arrays[count:]))[0]

    try:
        blob = export.export(jax.jit(gradient))(*problem.values, *problem.cotangents).serialize()
    except Exception:  # of whatever kind: not all that can be compiled can be exported
        return False
    wide = str(int(jnp.result_type(float) == jnp.float64))
    settings = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": wide}
    trial = [sys.executable, "-c", TRIAL]
    return subprocess.run(trial, input=blob, capture_output=True, env=settings).returncode < 0


def _passes(f: Function, values: Arrays, cotangents: Arrays) -> Passes:
    values, cotangents = ([jnp.asarray(a) for a in arrays] for arrays in (values, cotangents))

    def backward(back: Any, cotangents: Arrays) -> Arrays:
        return back(cotangents)[0]

    forward = jax.jit(f).lower(values).compile()
    began = time.perf_counter()
    recording = jax.jit(lambda values: jax.vjp(f, values)).lower(values).compile()
    _, back = recording(values)
    pulling = jax.jit(backward).lower(back, cotangents).compile()
    seconds = time.perf_counter() - began
    counts = [compiled.cost_analysis() or {} for compiled in (recording, pulling)]
    kept = {id(leaf): leaf.nbytes for leaf in jax.tree.leaves(back) if hasattr(leaf, "nbytes")}
    return Passes(
        lambda: jax.block_until_ready(forward(values)),
        lambda: jax.block_until_ready(pulling(back, cotangents)),
        sum(kept.values()),
        sum(count.get("flops", 0.0) for count in counts),
        sum(count.get("bytes accessed", 0.0) for count in counts),
        seconds,
    )


def _ratio(theirs: Callable[[], Any], ours: Callable[[], Any]) -> float:
    """The median of the rounds' ratios, the two in turn."""
    both = (theirs, ours)
    repeats = [max(1, round(LEAST / min(_seconds(call, 1) for _ in range(2)))) for call in both]
    ratios = []
    for number in range(ROUNDS):
        order = (0, 1) if number % 2 else (1, 0)
        seconds = {place: _seconds(both[place], repeats[place]) for place in order}
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return max((time.perf_counter() - began) / repeats, 1e-9)


def _over(theirs: float, ours: float) -> float:
    return theirs / ours if ours else 1.0 if not theirs else float("inf")


def _says(ratio: float) -> str:
    if ratio >= 1.05:
        return f"autodiff takes {ratio:.2f} times as much"
    if ratio <= 0.95:
        return f"the rule takes {1 / ratio:.2f} times as much"
    return "alike"
