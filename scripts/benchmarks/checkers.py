"""Gradient checkers, and what each of them makes of the rules in `benchmarks.rules`.

Each is used as its documentation says, with its own tolerances, in the dtypes that it is for. Those
that know floating arrays alone get the others closed over. One that breaks down has rejected.
"""

import re
import statistics
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.test_util import check_grads

import jaxcnn
from benchmarks.rules import BUGS, CORRECT
from benchmarks.rules.case import DTYPES, Case

Record = dict[str, Any]
Checker = Callable[[Case, tuple, int], list[str]]  # of arguments and a seed: what is wrong

OURS = "compare_gradients"
MANY = 1000  # elements of arguments whose Jacobian PyTorch works out one by one


def ours(case: Case, args: tuple, seed: int) -> list[str]:
    """`jaxcnn.compare_gradients`."""
    return jaxcnn.compare_gradients(case.f, *args, key=jax.random.key(seed)).findings


def by_check_grads(case: Case, args: tuple, seed: int) -> list[str]:
    """`jax.test_util.check_grads`: a random direction, against differences."""
    f, arrays = floating(case, args)
    check_grads(f, arrays, order=1, modes=["rev"])
    return []


def by_chex(case: Case, args: tuple, seed: int) -> list[str]:
    """`chex.assert_numerical_grads`: in reverse alone, since a rule has no forward mode."""
    import chex

    f, arrays = floating(case, args)
    chex.assert_numerical_grads(f, arrays, order=1, modes=["rev"])
    return []


def by_torch(case: Case, args: tuple, seed: int) -> list[str]:
    """`torch.autograd.gradcheck`: the whole Jacobian, against differences; of many, a direction."""
    import torch

    f, arrays = floating(case, args)
    inputs = [torch.from_numpy(np.array(array)).requires_grad_() for array in arrays]
    few = sum(array.size for array in arrays) <= MANY
    torch.autograd.gradcheck(in_torch(f), inputs, fast_mode=not few)
    return []


def in_torch(f: Callable[..., list[Array]]) -> Callable[..., Any]:
    """A function for PyTorch whose value and gradient are those of `f`."""
    import torch

    forward = jax.jit(f)  # which gradcheck calls twice for each element

    class InTorch(torch.autograd.Function):
        """NumPy's arrays are between the two."""

        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            ctx.arrays = [jnp.asarray(x.detach().numpy()) for x in inputs]
            ctx.pull = None
            return tuple(torch.from_numpy(np.array(y)) for y in forward(*ctx.arrays))

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            if ctx.pull is None:
                ctx.pull = jax.vjp(f, *ctx.arrays)[1]
            found = ctx.pull([jnp.asarray(dy.numpy()) for dy in cotangents])
            return tuple(torch.from_numpy(np.array(dx)) for dx in found)

    return InTorch.apply


class Contender(NamedTuple):
    """A checker, the package that it needs, and the dtypes that it is for."""

    check: Checker
    package: str
    dtypes: tuple[str, ...]


CHECKERS = {
    OURS: Contender(ours, "jaxcnn", DTYPES),
    "check_grads": Contender(by_check_grads, "jax", ("float32", "float64")),
    "assert_numerical_grads": Contender(by_chex, "chex", ("float32",)),
    "gradcheck": Contender(by_torch, "torch", ("float64",)),
}


def floating(case: Case, args: tuple) -> tuple[Callable[..., list[Array]], list[Array]]:
    """The function of its floating arrays alone, with a list of outputs, and those arrays."""
    leaves, tree = jax.tree.flatten(args)
    places = [i for i, leaf in enumerate(leaves) if jnp.issubdtype(leaf.dtype, jnp.floating)]

    def f(*arrays: Array) -> list[Array]:
        filled = list(leaves)
        for place, array in zip(places, arrays, strict=True):
            filled[place] = array
        return jax.tree.leaves(case.f(*jax.tree.unflatten(tree, filled)))

    return f, [leaves[place] for place in places]


def run(only: str, seeds: int, torch: bool = True) -> Iterator[Record]:
    """A record for each case whose name holds `only` and each dtype, by what is installed."""
    entered = {name: c for name, c in CHECKERS.items() if c.package != "torch" or torch}
    entered = {name: c for name, c in entered.items() if find_spec(c.package)}
    for contender in entered.values():
        import_module(contender.package)  # which is not to be timed
    for kind, cases in (("bug", BUGS), ("correct", CORRECT)):
        for case in cases:
            if only not in case.name:
                continue
            for dtype in case.dtypes:
                chosen = {name: c.check for name, c in entered.items() if dtype in c.dtypes}
                yield check(case, kind, dtype, chosen, seeds)


def check(case: Case, kind: str, dtype: str, checkers: dict[str, Checker], seeds: int) -> Record:
    """What each checker says to a case, with other arguments for each seed."""
    said: dict[str, list[list[str]]] = {name: [] for name in checkers}
    seconds: dict[str, list[float]] = {name: [] for name in checkers}
    with jax.enable_x64(dtype == "float64"):
        for seed in range(seeds):
            args = case.args(np.random.default_rng((1, seed)), dtype)
            for name, checker in checkers.items():
                jax.clear_caches()  # else one would have what another has compiled
                began = time.perf_counter()
                said[name].append(findings(checker, case, args, seed))
                seconds[name].append(time.perf_counter() - began)
    return {
        "case": case.name,
        "kind": kind,
        "dtype": dtype,
        "checkers": {
            name: {
                "rejected": sum(map(bool, said[name])),
                "seeds": seeds,
                "seconds": round(statistics.median(seconds[name]), 4),
            }
            for name in checkers
        },
        "diagnosed": all(says_why(case, found) for found in said[OURS]) if case.says else None,
        "findings": said[OURS][0],
    }


def findings(checker: Checker, case: Case, args: tuple, seed: int) -> list[str]:
    """What a checker finds; an error is a finding, whether it is the checker's way to say so."""
    try:
        return checker(case, args, seed)
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]


def says_why(case: Case, found: list[str]) -> bool:
    """Whether one of the findings has one of the case's words, or what begins with it."""
    words = "|".join(rf"(?<!\w){re.escape(word)}" for word in case.says)
    return any(re.search(words, finding, re.IGNORECASE) for finding in found)


# What is printed ---------------------------------------------------------------------------------


def line(record: Record) -> str:
    """One case: in how many seeds each checker has rejected it, and what ours says."""
    counts = "  ".join(
        f"{name} {verdict['rejected']}/{verdict['seeds']}"
        for name, verdict in record["checkers"].items()
    )
    text = f"{record['kind']:8}{record['case']:55}{record['dtype']:9}  {counts}"
    return "\n".join([text, *(f"    {finding}" for finding in record["findings"][:1])])


def summary(records: list[Record]) -> list[str]:
    """A line for each checker and dtype, and the names of what ours has wrong."""
    lines = [
        f"{'checker':24}{'dtype':10}{'bugs caught':>16}{'correct rejected':>18}{'diagnosed':>14}"
        f"{'seconds':>9}"
    ]
    for name, contender in CHECKERS.items():
        for dtype in contender.dtypes:
            chosen = [r for r in records if r["dtype"] == dtype and name in r["checkers"]]
            if chosen:
                lines.append(_line(name, dtype, chosen))
    wrong = mistakes(records)
    return lines + [f"  {OURS} is wrong about: {name}" for name in wrong]


def mistakes(records: list[Record]) -> list[str]:
    """The bugs that ours misses for a seed, and the correct rules that it rejects for one."""
    return [
        f"{record['case']}, {record['dtype']}"
        for record in records
        if rejected(record, OURS) != (record["kind"] == "bug")
    ]


def rejected(record: Record, name: str) -> bool:
    """A bug is if every seed sees it, and a correct rule if any seed rejects it."""
    verdict = record["checkers"][name]
    least = verdict["seeds"] if record["kind"] == "bug" else 1
    return verdict["rejected"] >= least


def _line(name: str, dtype: str, records: list[Record]) -> str:
    bugs = [record for record in records if record["kind"] == "bug"]
    correct = [record for record in records if record["kind"] == "correct"]
    caught = f"{sum(rejected(r, name) for r in bugs)} of {len(bugs)}"
    false = f"{sum(rejected(r, name) for r in correct)} of {len(correct)}"
    told = f"{sum(r['diagnosed'] for r in bugs)} of {len(bugs)}" if name == OURS else ""
    seconds = statistics.median(r["checkers"][name]["seconds"] for r in records)
    return f"{name:24}{dtype:10}{caught:>16}{false:>18}{told:>14}{seconds:9.2f}"
