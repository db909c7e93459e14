"""scripts/benchmark.py: what it prints and writes, not how fast anything is."""

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import jax
import numpy as np
import pytest
from benchmark import accuracy
from benchmarks import choices, timing, training
from benchmarks.layers import conv

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
        assert record["accuracy"] == record["autodiff_accuracy"] == 0  # a maximum is not rounded
    assert "backward against autodiff" in done.stdout
    assert "error against float64: at most 0.0e+00; at most 0.0 times" in done.stdout


def test_choices_are_raced_and_make_the_table(tmp_path):
    options = ("--only", "3x3 6>6", "--rounds", "1", "--json", "out.json")
    done = run("choices", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = json.loads((tmp_path / "out.json").read_text())
    assert [record["kind"] for record in records] == ["forward", "kernel", "input's gradient"]
    for record in records:
        assert record["evaluation"] == "patches"
        assert record["error"] < 1e-5
        others = {"XLA", "winograd", "control"}
        others |= {"both"} if record["kind"] == "kernel" else set()
        assert set(record["speedup"]) == others
    head, row = done.stdout.splitlines()[-2:]
    assert head.split() == ["evaluation", "where", "forward", "kernel", "input's", "gradient"]
    assert row.startswith("patches        fewer than 16 channels")


def test_an_epoch_of_pictures_is_raced_against_its_steps():
    case = training.Case("lenet5", 8, 20, (28, 28, 1))
    with jax.enable_x64(False):  # as the script trains
        record = training.race_epoch("few", case, training.in_files(case), rounds=1)
    assert record["kind"] == "training"
    assert set(record["speedup"]) == {"bare step", "control"}


@pytest.mark.parametrize(
    ("layer", "chosen"),
    [
        (conv("", (2, 8, 8, 4), (3, 3), 4, groups=4), ["depthwise"] * 3),
        (conv("", (8, 16, 16, 32), (3, 3), 32), ["winograd"] * 3),
        (conv("", (8, 16, 16, 32), (3, 3), 32, dilation=2), ["winograd, cut"] * 3),
        (conv("", (8, 16, 16, 64), (5, 5), 64, strides=2), ["winograd, cut"] * 3),
        (conv("", (8, 16, 16, 16), (3, 3), 4, bias=True), ["to few", "patches", "patches"]),
        (conv("", (2, 8, 8, 3), (4, 4), 32, strides=4), ["patches"] * 3),
    ],
)
def test_what_is_chosen_is_seen(layer, chosen):
    assert [choices.evaluation(sums.chosen) for sums in choices.asked(layer)] == chosen


@pytest.mark.parametrize("taps", [(3, 3), (1, 3), (3,)])
@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize(("channels", "features", "groups"), [(5, 4, 1), (4, 4, 2), (4, 6, 2)])
def test_what_else_there_is_comes_to_the_same(taps, strides, channels, features, groups):
    shape = (2, *(6,) * len(taps), channels)
    layer = conv("", shape, taps, features, strides=strides, groups=groups)
    for kind, sums in zip(choices.KINDS, choices.asked(layer), strict=True):
        _, results = choices.calls(kind, sums)
        assert len(results) > 1
        for result in results.values():
            np.testing.assert_allclose(result, results["manual"], rtol=0, atol=1e-4)


def test_three_geometries_or_more_are_behind_a_row_of_the_table():
    behind = defaultdict(set)
    for layer in choices.CASES:
        for sums in choices.asked(layer):
            chosen = choices.evaluation(sums.chosen)
            behind[chosen, choices.where(chosen, sums.problem)].add(layer.name)
    assert {row: names for row, names in behind.items() if len(names) < 3} == {}


def test_the_table_has_the_least_and_the_greatest_ratio_and_patches_in_the_place_of_xla():
    records = [
        {"evaluation": "winograd", "where": "a", "kind": "forward", "speedup": {"XLA": 1.26}},
        {"evaluation": "winograd", "where": "a", "kind": "forward", "speedup": {"XLA": 21.4}},
        {"evaluation": "XLA", "where": "b", "kind": "kernel", "speedup": {"patches": 2.0}},
    ]
    _, *rows = choices.table(records)
    assert [row.split() for row in rows] == [
        ["winograd", "a", "1.3", "to", "21"],
        ["XLA", "(patches)", "b", "0.5"],
    ]


def test_the_largest_error_is_told_and_the_largest_next_to_autodiffs():
    records = [
        {"case": "exact", "accuracy": 2**-24, "autodiff_accuracy": 0.0},
        {"case": "large", "accuracy": 2e-6, "autodiff_accuracy": 2e-6},
        {"case": "worse", "accuracy": 1e-6, "autodiff_accuracy": 4e-7},
    ]
    assert accuracy(records) == [
        "error against float64: at most 2.0e-06; at most 2.5 times autodiff's, at worse"
    ]
    assert accuracy([]) == []


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
    assert "".join(order) == "aabbcc" + "bbccaa"  # what is not timed, and as much that is


def test_a_speedup_is_the_median_of_the_rounds_ratios():
    times = {"manual": [1.0, 2.0, 1.0], "autodiff": [3.0, 4.0, 100.0]}
    assert timing.speedup(times, "autodiff") == np.median([3, 2, 100])
