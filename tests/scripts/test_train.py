"""scripts/train.py, run as its users run it."""

import fcntl
import json
import os
import re
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from arguments import MODELS
from PIL import Image

import jaxcnn.models
from jaxcnn.training.stopping import NotFiniteError

SCRIPT = Path(__file__).parents[2] / "scripts" / "train.py"
LEARNT = {"config.json", "metrics.jsonl", "parameters.npz", "state.npz"}
PICTURES = {"curves.png", "confusion.png", "mistakes.png", "filters.png"}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What one run compiles, the next ones need not; and nothing is left in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


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
    # One step, of all images: after several, a maximum that rounding decides would tell them apart.
    options = ("--epochs", "1", "--batch-size", "1433", "--seed", "4")
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
        assert max(float(error) for _, error in errors) < 1e-12
        assert sum(line.startswith("epoch 1/1") for line in lines) == 1
        summary = json.loads(lines[-1])
        out = tmp_path / summary["out"]
        assert {path.name for path in out.iterdir()} == LEARNT | PICTURES | {"summary.json"}
        assert json.loads((out / "summary.json").read_text()) == summary
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


def test_a_run_that_is_interrupted_in_every_way_ends_in_the_same_bits(tmp_path: Path) -> None:
    options = ("--epochs", "12", "--batch-size", "256", "--schedule", "cosine", "--flip")
    run = ("--optimizer", "adam", "--dtype", "bfloat16", "--checkpoint-every", "3", "--out")
    whole = start(tmp_path, *options, *run, "whole")
    _, stderr = whole.communicate()
    assert whole.returncode == 0, stderr

    def saved() -> set[str]:
        return {path.name for path in (tmp_path / "run").glob("checkpoints/[0-9]*")}

    process = start(tmp_path, *options, *run, "run")
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        before = saved()
        while saved() <= before:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(number)
        _, stderr = process.communicate()
        if number == signal.SIGKILL:
            assert process.returncode == -number
        else:
            assert process.returncode == 128 + number
            (line,) = stderr.splitlines()
            assert re.fullmatch(
                r"train.py: saved in run/checkpoints/\d+: --resume run goes on", line
            )
        process = start(tmp_path, "--resume", "run", "--checkpoint-every", "3")
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert json.loads(stdout.splitlines()[-1])["epochs"] == 12
    for file in ("parameters.npz", "state.npz"):
        found, wanted = (np.load(tmp_path / name / file) for name in ("run", "whole"))
        assert set(found) == set(wanted)
        for name in wanted:
            np.testing.assert_array_equal(found[name], wanted[name])
    found, wanted = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("run", "whole")
    )
    assert [metrics["epoch"] for metrics in found] == list(range(1, 13))
    for metrics, same in zip(found, wanted, strict=True):
        for name in set(same) - {"seconds", "images_per_second"}:
            assert metrics[name] == same[name]
    again = start(tmp_path, "--resume", "run")
    _, stderr = again.communicate()
    assert again.returncode == 2
    assert "is finished" in stderr


def test_ctrl_c_keeps_what_was_trained(tmp_path: Path) -> None:
    process = start(tmp_path, "--epochs", "100000", "--batch-size", "1433", "--out", "run")
    assert process.stdout is not None
    while not process.stdout.readline().startswith("epoch"):
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate()
    assert process.returncode == 130
    (line,) = stderr.splitlines()
    assert line.endswith("--resume run goes on")
    files = LEARNT | PICTURES | {"checkpoints"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == files


def test_what_is_not_finite_ends_a_run_that_can_be_looked_at(tmp_path: Path) -> None:
    process = start(
        tmp_path, "--learning-rate", "1e30", "--schedule", "constant", "--epochs", "1",
        "--checkpoint-every", "1", "--out", "run",
    )  # fmt: skip
    _, stderr = process.communicate()
    assert process.returncode == 1
    (line,) = stderr.splitlines()
    what = r"the loss and the gradient of (conv|dense)\d/(kernel|bias): not finite in step 2"
    assert re.fullmatch(f"train.py: {what}; the last good checkpoint: run/checkpoints/1", line)


def test_bad_data_is_told_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    process = start(tmp_path, "--data", "photos", "--out", "run")
    _, stderr = process.communicate()
    assert process.returncode == 2
    (line,) = stderr.splitlines()
    assert line.startswith("train.py: photos/cat: there is no PNG or JPEG file")
    assert not (tmp_path / "run").exists()


def test_a_run_on_pictures_is_watched_and_used(tmp_path: Path) -> None:
    """A folder of PNGs, event files, and then scripts/predict.py on one of the pictures."""
    rng = np.random.default_rng(0)
    for name, brightness in (("dark", 40), ("light", 200)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(20):
            pixels = np.clip(rng.normal(brightness, 20, (28, 28, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{n}.png")
    (tmp_path / "photos" / "dark" / "broken.png").write_bytes(b"\x89PNG")
    process = start(
        tmp_path, "--data", "photos", "--skip-bad", "--epochs", "8", "--batch-size", "8",
        "--tensorboard", "--devices", "2", "--out", "run",
    )  # fmt: skip
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert "1 picture left out, that could not be read" in stdout
    assert json.loads(stdout.splitlines()[-1])["test_accuracy"] == 1
    (events,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"loss/train" in events.read_bytes()
    predict = [sys.executable, str(SCRIPT.with_name("predict.py")), "run", "photos/light/3.png"]
    done = subprocess.run(predict, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("photos/light/3.png  light")


def test_a_loss_that_is_not_finite_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def start(out: Path, learn: object, **options: object) -> None:
        raise NotFiniteError("the loss: not finite in step 1")

    monkeypatch.setattr("jaxcnn.training.run.start", start)
    monkeypatch.setattr(sys, "argv", ["train.py", "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert exit_.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "train.py: the loss: not finite in step 1"
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
        (["--optimizer", "lamb"], "--optimizer"),
        (["--schedule", "step"], "--schedule"),
        (["--dtype", "float16"], "--dtype"),
        (["--crop", "-1"], "--crop"),
        (["--checkpoint-every", "0"], "--checkpoint-every"),
        (["--devices", "0"], "--devices"),
        (["--devices", "3"], "can't be divided over 3 devices"),
        (["--hosts", "2"], "each needs the others"),
        (["--coordinator", "a:1", "--hosts", "2", "--host", "2", "--out", "new"], "--host"),
        (["--coordinator", "a:1", "--hosts", "2", "--host", "0"], "--out"),
        (["--coordinator", "a", "--hosts", "2", "--host", "0", "--out", "new"], "HOST:PORT"),
        (["--out", "stale"], "already holds a run"),
        (["--resume", "new"], "--resume"),
        (["--resume", "old", "--out", "new"], "--out"),
        (["--resume", "old"], "'old' holds no run to go on with"),
        (["--optimizer", "adam", "--momentum", "0.9"], "momentum is not for adam"),
        (["--data", "nowhere"], "nowhere"),
        (["--epoch", "1"], "--epoch"),
        (["digits"], "digits"),
    ],
)
def test_a_bad_argument_is_told_in_one_line(
    tmp_path: Path, arguments: list[str], named: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "old").mkdir()
    (tmp_path / "stale" / "checkpoints").mkdir(parents=True)
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


@pytest.mark.parametrize("argument", ["--out", "--resume"])
def test_a_run_that_goes_on_is_left_alone(tmp_path: Path, argument: str) -> None:
    (tmp_path / "run").mkdir()
    directory = os.open(tmp_path / "run", os.O_RDONLY)
    fcntl.flock(directory, fcntl.LOCK_EX)
    stdout, stderr = start(tmp_path, argument, "run").communicate()
    os.close(directory)
    assert stdout == ""
    assert stderr == f"train.py: argument {argument}: 'run': a run is going on there\n"
    assert list((tmp_path / "run").iterdir()) == []


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
