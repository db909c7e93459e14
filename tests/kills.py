"""Kills a run of scripts/train.py at random moments, again and again, and has it go on each time.

    python tests/kills.py
    python tests/kills.py --kills 10 --seed 1
    python tests/kills.py --hosts 2 --kills 8

LeNet-5 learns the digits, and SIGKILL comes while it starts, trains or saves. It must go on from
the last checkpoint that was there, or a later one; and in the end parameters, state and metrics
must have the bits of a run that nobody killed. One that has come to its end is followed by another.

With two hosts, the one and the other are killed in turn. The survivor must end within a minute,
with a line that says why, and two go on: to the bits of two that were left alone.

Fifty kills take seven minutes on two cores, and with two hosts half an hour. Exit codes: 0, all of
this held; 1, it did not, and the files are kept; 2, a bad argument; 130, Ctrl-C.
"""

import argparse
import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
from rich.console import Console
from rich.progress import Progress

SCRIPT = Path(__file__).parents[1] / "scripts" / "train.py"
EPOCHS = 200  # of one run, after which another begins
EVERY = 20  # steps, to the next checkpoint
MINUTE = 60  # seconds, in which a host must see that another is lost
LOST = "host {} failed, was killed, or another host was lost: --resume run goes on"


class Attempt:
    """A process that trains, and what it says."""

    all: ClassVar[list["Attempt"]] = []

    def __init__(self, folder: Path, *options: object) -> None:
        self.log, self.errors = (folder / f"{time.time_ns()}.{kind}" for kind in ("out", "err"))
        with self.log.open("w") as log, self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(SCRIPT), *map(str, options)],
                cwd=folder,
                env=os.environ
                | {"JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": str(folder / "cache")},
                stdout=log,
                stderr=errors,
            )
        self.all.append(self)

    def waits(self, seconds: float | None) -> bool:
        """Whether it has ended after so many seconds; None waits for ever."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def went_on(self) -> int | None:
        """The step after which it went on, if it has come so far."""
        found = re.search(r"^going on after step (\d+) of", self.log.read_text(), re.MULTILINE)
        return int(found[1]) if found else None

    def __str__(self) -> str:
        """The last lines of what it has to say of errors."""
        return self.errors.read_text()[-500:].strip()

    def must_end_well(self) -> None:
        if code := self.process.wait():
            raise AssertionError(f"exit code {code}: {self}")

    def must_have_said_nothing(self) -> None:
        if str(self):
            raise AssertionError(f"an error before it was killed: {self}")


def last_saved(folder: Path) -> int:
    steps = [int(path.name) for path in folder.glob("run/checkpoints/*") if path.name.isdigit()]
    return max(steps, default=0)


def kill_one(folder: Path, kills: int, rng: random.Random, advance: Callable[[], None]) -> str:
    """Kills the only host; what it learns is compared with what a run learns that is left alone."""
    new = ("--epochs", EPOCHS, "--checkpoint-every", EVERY, "--out")
    Attempt(folder, "--epochs", 1, "--out", "first").must_end_well()  # compiles what the others use
    began = time.monotonic()
    alone = Attempt(folder, *new, "whole")
    while not list(folder.glob("whole/checkpoints/[0-9]*")) and not alone.waits(0.05):
        pass
    start = time.monotonic() - began  # seconds, to the first checkpoint
    alone.must_end_well()
    killed = training = farthest = finished = 0
    run = Attempt(folder, *new, "run")
    while True:
        ended = run.waits(rng.uniform(0, 2 * start) if killed < kills else None)
        if ended:
            run.must_end_well()
        else:
            saved = last_saved(folder)
            run.kill()
            run.must_have_said_nothing()
            step = run.went_on()
            if step is not None and step < farthest:
                raise AssertionError(f"step {farthest} was saved, and it went on after {step}")
            killed += 1
            training += saved > farthest
            farthest = max(saved, farthest)
            advance()
        there = {path.name for path in (folder / "run").glob("*")}
        if "summary.json" in there:
            must_be_equal(folder)
            shutil.rmtree(folder / "run")
            there.clear()
            finished += 1
            farthest = 0
            if killed == kills:
                break
        resume = ("--resume", "run", "--checkpoint-every", EVERY)
        # Without a config.json it was killed before it began.
        run = Attempt(folder, *(resume if "config.json" in there else (*new, "run")))
    return (
        f"{kills} kills, {training} of them after a new checkpoint; "
        f"{finished} runs came to their end, with the same bits"
    )


def must_be_equal(folder: Path) -> None:
    for file in ("parameters.npz", "state.npz"):
        with np.load(folder / "run" / file) as found, np.load(folder / "whole" / file) as wanted:
            for name in wanted:
                if found[name].tobytes() != wanted[name].tobytes():
                    raise AssertionError(f"{file}: {name} differs")
    for found, wanted in zip(metrics(folder / "run"), metrics(folder / "whole"), strict=True):
        for name in set(wanted) - {"seconds", "images_per_second"}:
            if found[name] != wanted[name]:
                raise AssertionError(f"epoch {wanted['epoch']}: {name} differs")


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def kill_hosts(folder: Path, kills: int, rng: random.Random, advance: Callable[[], None]) -> str:
    """Kills one of two, and compares what both learn with what two learn that are left alone."""
    new = ("--epochs", EPOCHS, "--checkpoint-every", EVERY, "--out")
    for host in two(folder, *new, "whole"):
        host.must_end_well()
    options: tuple[object, ...] = (*new, "run")
    longest = 0.0
    for number in range(kills):
        saved = last_saved(folder)
        hosts = two(folder, *options)
        while last_saved(folder) <= saved:
            if any(host.waits(0.05) for host in hosts):
                raise AssertionError(f"it ended before it was killed: {[*map(str, hosts)]}")
        time.sleep(rng.uniform(0, 2))
        victim = number % 2
        survivor = hosts[1 - victim]
        hosts[victim].kill()
        killed = time.monotonic()
        if not survivor.waits(MINUTE):
            raise AssertionError(f"host {1 - victim} still runs after a minute")
        longest = max(longest, time.monotonic() - killed)
        for which, host in enumerate(hosts):
            if not str(host).endswith(LOST.format(which)):
                raise AssertionError(f"the last words of host {which}: {host}")
        options = ("--resume", "run", "--checkpoint-every", EVERY)
        advance()
    for host in two(folder, *options):
        host.must_end_well()
    must_be_equal(folder)
    return f"{kills} kills: a host ended {longest:.0f} s after the other at most; the same bits"


def two(folder: Path, *options: object) -> list[Attempt]:
    """Two hosts of one run, on loopback."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port = found.getsockname()[1]
    hosts = ("--coordinator", f"localhost:{port}", "--hosts", 2, "--devices", 1)
    return [Attempt(folder, *options, *hosts, "--host", host) for host in (0, 1)]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, metavar="N")
    parser.add_argument("--hosts", type=int, choices=[1, 2], default=1)
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    arguments = parser.parse_args()
    if arguments.kills < 1:
        parser.error("argument --kills: must be at least 1")
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    kill = kill_one if arguments.hosts == 1 else kill_hosts
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("kills", total=arguments.kills)
        try:
            found = kill(
                folder,
                arguments.kills,
                random.Random(arguments.seed),
                lambda: progress.advance(task),
            )
        except AssertionError as error:
            print(f"{error}; see {folder}")
            return 1
        finally:
            for attempt in Attempt.all:
                attempt.kill()
    print(found)
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
