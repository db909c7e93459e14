"""The races: each yields one record a case, ready to be printed and written as JSON."""

import statistics
from collections.abc import Iterator
from typing import Any

import numpy as np

import jaxcnn
from benchmarks import choices, contenders, steps, training
from benchmarks.layers import LAYERS, Layer, conv, pool
from benchmarks.timing import Times, race, speedup

Record = dict[str, Any]
COMPILED = 5  # times each


def run(what: str, only: str, rounds: int, torch: list[str]) -> Iterator[Record]:
    """The records of one kind of race, of cases whose name holds `only`."""
    if what == "steps":
        names = [name for name in steps.STEPS if only in name]
        for name in names:
            yield race_step(name, rounds, torch)
        return
    if what == "training":
        yield from training.run(only, rounds)
        return
    if what == "choices":
        for layer in choices.CASES:
            if only in layer.name:
                yield from race_choices(layer, rounds)
        for layer in choices.POOLED:
            if only in layer.name:
                yield from race_pooled(layer, rounds)
        return
    cases, rivals = (LAYERS, torch) if what == "layers" else (scaling(), [])
    for layer in cases:
        if only in layer.name:
            yield from race_layer(layer, rounds, rivals)


def scaling() -> list[Layer]:
    """From one image to many, and from small ones to large."""
    return [
        case
        for batch, size in [(n, 16) for n in (1, 4, 16, 64, 256, 1024)]
        + [(4, size) for size in (16, 32, 64, 128, 256)]
        for case in (
            conv(f"conv {batch}x{size}x{size}", (batch, size, size, 64), (3, 3), 64),
            pool(f"pool {batch}x{size}x{size}", "max", (batch, size, size, 64), (2, 2), 2),
        )
    ]


def race_layer(layer: Layer, rounds: int, torch: list[str]) -> Iterator[Record]:
    """Forward, then backward."""
    entered = {
        "manual": contenders.in_jax(layer, jaxcnn),
        "autodiff": contenders.in_jax(layer, jaxcnn.reference),
    }
    entered |= {f"PyTorch {mode}": contenders.in_torch(layer, mode == "compiled") for mode in torch}
    ours = entered["manual"].results
    error = max(
        relative(a, b)
        for other in entered.values()
        for a, b in zip(ours, other.results, strict=True)
    )
    exact = contenders.in_float64(layer)
    entered["control"] = entered["manual"]
    for kind, part in (("forward", slice(1)), ("backward", slice(1, None))):
        calls = {name: getattr(contender, kind) for name, contender in entered.items()}
        accuracy, of_autodiff = (
            max(map(relative, entered[name].results[part], exact[part]))
            for name in ("manual", "autodiff")
        )
        yield record(layer.name, kind, race(calls, rounds)) | {
            "error": error,
            "accuracy": accuracy,
            "autodiff_accuracy": of_autodiff,
        }


def race_choices(layer: Layer, rounds: int) -> Iterator[Record]:
    """What is chosen for each of a convolution's three sums, against what is not."""
    for kind, sums in zip(choices.KINDS, choices.asked(layer), strict=True):
        calls, results = choices.calls(kind, sums)
        chosen = choices.evaluation(sums.chosen)
        yield record(layer.name, kind, race(calls, rounds)) | {
            "error": max(relative(results["manual"], other) for other in results.values()),
            "evaluation": chosen,
            "where": choices.where(chosen, sums.problem),
        }


def race_pooled(layer: Layer, rounds: int) -> Iterator[Record]:
    """`conv_relu_max_pool` as one evaluation, against the three in turn, whichever is chosen."""
    found, chosen = choices.pooled_and_in_turn(layer)
    pairs = zip(found["pooled"].results, found["in turn"].results, strict=True)
    error = max(relative(a, b) for a, b in pairs)
    for kind in ("forward", "backward"):
        calls = {
            "manual": getattr(found["pooled"], kind),
            "in turn": getattr(found["in turn"], kind),
            "control": getattr(found["pooled"], kind),
        }
        yield record(layer.name, kind, race(calls, rounds)) | {
            "error": error,
            "evaluation": chosen,
            "where": layer.name,
        }


def race_step(name: str, rounds: int, torch: list[str]) -> Record:
    """Time, memory and compile time of a step, and what ten of them come to."""
    both = jaxcnn, jaxcnn.reference
    ours, autodiff = (steps.in_jax(name, ops) for ops in both)
    # In turn as well. Those compiled above do not count: what comes first takes longer.
    compiled = [[steps.compile_seconds(name, ops) for ops in both] for _ in range(COMPILED)]
    calls = {"manual": ours.call, "autodiff": autodiff.call}
    calls |= {f"PyTorch {mode}": steps.in_torch(name, mode == "compiled") for mode in torch}
    calls["control"] = ours.call
    return record(name, "step", race(calls, rounds)) | {
        "memory": ours.temporary_bytes / autodiff.temporary_bytes,
        "compile": statistics.median(manual / rival for manual, rival in compiled),
        "difference": steps.difference(ours, autodiff),
    }


def record(name: str, kind: str, times: Times) -> Record:
    """The best time of ours, and how many times as long each rival takes."""
    rivals = [rival for rival in times if rival != "manual"]
    return {
        "case": name if kind == "step" else f"{name} {kind}",
        "kind": kind,
        "milliseconds": 1e3 * min(times["manual"]),
        "speedup": {rival: round(speedup(times, rival), 3) for rival in rivals},
    }


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest difference, relative to the largest entry."""
    return float(np.abs(found - wanted).max() / max(np.abs(wanted).max(), 1e-30))
