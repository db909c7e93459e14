"""scripts/train.py, run as its users run it."""

import json
import os
import re
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from arguments import MODELS

import jaxcnn.models

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
FILES = {"metrics.jsonl", "parameters.npz", "curves.png", "confusion.png", "filters.png"}


def start(cwd: Path, *arguments: str, python: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *python, str(SCRIPT), *arguments],
        cwd=cwd,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_both_gradients_train_alike_and_leave_a_run(tmp_path: Path) -> None:
    options = ("--epochs", "1", "--batch-size", "128", "--seed", "4")
    runs = {
        "manual": start(tmp_path, *options),
        "autodiff": start(tmp_path, *options, "--gradients", "autodiff", "--out", "some/where"),
    }
    losses = {}
    for gradients, process in runs.items():
        stdout, stderr = process.communicate()
        assert process.returncode == 0, stderr
        lines = stdout.splitlines()
        errors = re.findall(r"^  (\S+/\S+) +(\d\S+)$", stdout, re.MULTILINE)
        assert len(errors) == 10
        assert max(float(error) for _, error in errors) < 1e-4
        assert sum(line.startswith("epoch 1/1") for line in lines) == 1
        summary = json.loads(lines[-1])
        out = tmp_path / summary["out"]
        assert {path.name for path in out.iterdir()} == FILES
        (metrics,) = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
        assert summary == {
            "model": "lenet5",
            "gradients": gradients,
            "epochs": 1,
            "train_loss": metrics["train_loss"],
            "test_accuracy": metrics["test_accuracy"],
            "images_per_second": pytest.approx(metrics["images_per_second"], abs=0.1),
            "out": summary["out"],
        }
        assert list(metrics) == [
            "epoch",
            "train_loss",
            "train_accuracy",
            "test_loss",
            "test_accuracy",
            "images_per_second",
            "seconds",
        ]
        losses[gradients] = metrics["train_loss"], metrics["test_loss"]
        with np.load(out / "parameters.npz", allow_pickle=False) as parameters:
            assert {name for name, _ in errors} == set(parameters)
            assert parameters["conv1/kernel"].shape == (5, 5, 1, 6)
        assert all(path.read_bytes()[:4] == b"\x89PNG" for path in out.glob("*.png"))
    assert Path(json.loads(lines[-1])["out"]) == Path("some/where")
    assert [path.parent.name for path in tmp_path.glob("runs/*/metrics.jsonl")] != []
    np.testing.assert_allclose(losses["manual"], losses["autodiff"], rtol=1e-4)


def test_ctrl_c_keeps_what_was_trained(tmp_path: Path) -> None:
    process = start(tmp_path, "--epochs", "100000", "--batch-size", "1433", "--out", "run")
    assert process.stdout is not None
    while not process.stdout.readline().startswith("epoch"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    assert stderr.splitlines() == ["train.py: interrupted"]
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES


def test_a_loss_that_is_not_finite_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(out: Path, **options: object) -> None:
        raise FloatingPointError("the loss is not finite in epoch 1")

    monkeypatch.setattr("jaxcnn.training.run.run", run)
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert exit_.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "train.py: the loss is not finite in epoch 1: try a smaller --learning-rate"
    assert list(tmp_path.iterdir()) == []  # no epoch was finished: nothing to keep


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model", "alexnet"], "--model"),
        (["--gradients", "numeric"], "--gradients"),
        (["--epochs", "0"], "--epochs"),
        (["--epochs", "1.5"], "--epochs"),
        (["--batch-size", "0"], "--batch-size"),
        (["--learning-rate", "-0.1"], "--learning-rate"),
        (["--learning-rate", "0"], "--learning-rate"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--learning-rate", "inf"], "--learning-rate"),
        (["--learning-rate", "fast"], "--learning-rate"),
        (["--momentum", "1"], "--momentum"),
        (["--momentum", "-0.1"], "--momentum"),
        (["--momentum", "nan"], "--momentum"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "4294967296"], "--seed"),
        (["--out", "file"], "--out"),
        (["--out", "file/below"], "--out"),
        (["--out", ""], "--out"),
        (["--out", "old"], "--out"),
        (["--epoch", "1"], "--epoch"),
        (["digits"], "digits"),
    ],
)
def test_a_bad_argument_is_told_in_one_line(
    tmp_path: Path, arguments: list[str], named: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "metrics.jsonl").write_text("{}\n")
    before = sorted(tmp_path.rglob("*"))
    process = start(tmp_path, *arguments)
    stdout, stderr = process.communicate()
    assert process.returncode == 2
    (line,) = stderr.splitlines()
    assert line.startswith("train.py: ")
    assert named in line
    assert stdout == ""
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "old" / "metrics.jsonl").read_text() == "{}\n"


def test_a_missing_package_is_told_in_one_line(tmp_path: Path) -> None:
    process = start(tmp_path, python=("-S",))  # without site-packages
    stdout, stderr = process.communicate()
    assert process.returncode == 2
    (line,) = stderr.splitlines()
    assert line.endswith("is not installed: pip install 'jaxcnn[train]'")
    assert stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_the_models_that_the_scripts_name_are_there() -> None:
    assert set(MODELS) == set(jaxcnn.models.MODELS)
