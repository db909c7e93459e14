"""Fair timing on a machine that others use, too: contenders in turn, and ratios round by round."""

import statistics
import time
from collections.abc import Callable

LEAST = 50e-3  # seconds that one measurement takes: shorter calls are repeated
PAUSE = 0.03  # seconds: PyTorch's threads spin for a while after a call, and slow whoever is next

Times = dict[str, list[float]]


def race(contenders: dict[str, Callable[[], object]], rounds: int) -> Times:
    """Seconds a call, a list of `rounds` for each contender.

    Each round runs all of them, one behind another, and starts with the next one. Before the calls
    that are timed comes a pause, and as many that are not: for tens of milliseconds after a pause a
    processor takes half as long again for short calls, which in training no pause comes between.
    """
    names = list(contenders)
    repeats = {name: _repeats(call) for name, call in contenders.items()}
    times: Times = {name: [] for name in names}
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(PAUSE)
            _seconds(contenders[name], repeats[name])
            times[name].append(_seconds(contenders[name], repeats[name]))
    return times


def speedup(times: Times, rival: str, ours: str = "manual") -> float:
    """How many times longer the rival takes: the median of the rounds' ratios."""
    pairs = zip(times[rival], times[ours], strict=True)
    return statistics.median(theirs / mine for theirs, mine in pairs)


def _repeats(call: Callable[[], object]) -> int:
    call()  # compiles
    return max(1, round(LEAST / min(_seconds(call, 1) for _ in range(2))))


def _seconds(call: Callable[[], object], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - began) / repeats
