"""scripts/benchmark.py: what it prints and writes, not how fast anything is."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import timing

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark.py"


def run(*arguments, cwd):
    return subprocess.run(
        [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, cwd=cwd, check=False
    )


def test_a_layer_is_raced_and_recorded(tmp_path):
    options = ("--only", "lenet max", "--rounds", "1", "--no-torch", "--json", "out.json")
    done = run("layers", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "out.json").read_text())
    assert [record["kind"] for record in records] == ["forward", "backward"]
    for record in records:
        assert record["case"] in done.stdout
        assert record["error"] == 0
        assert set(record["speedup"]) == {"autodiff", "control"}
    assert "backward against autodiff" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["layers", "--only", "no such", "--no-torch"], "no case of layers has 'no such'"),
        (["steps", "--rounds", "0"], "must be an integer of at least 1, not '0'"),
        (["layers", "--no-torch", "--json", "no/such.json"], "cannot write to 'no'"),
    ],
)
def test_a_bad_argument_is_one_line(arguments, message, tmp_path):
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_contenders_run_in_turn_and_each_round_starts_with_another(monkeypatch):
    monkeypatch.setattr(timing, "PAUSE", 0)
    monkeypatch.setattr(timing, "_repeats", lambda call: 1)
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    times = timing.race(calls, rounds=2)
    assert {name: len(seconds) for name, seconds in times.items()} == dict.fromkeys("abc", 2)
    assert "".join(order) == "aabbcc" + "bbccaa"  # one call that is not timed, and one that is


def test_a_speedup_is_the_median_of_the_rounds_ratios():
    times = {"manual": [1.0, 2.0, 1.0], "autodiff": [3.0, 4.0, 100.0]}
    assert timing.speedup(times, "autodiff") == np.median([3, 2, 100])
