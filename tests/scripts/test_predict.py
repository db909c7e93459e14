"""scripts/predict.py, run as its users run it."""

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from jaxcnn.models import lenet5
from jaxcnn.training.step import flat
from jaxcnn.training.trained import save

SCRIPT = Path(__file__).parents[2] / "scripts" / "predict.py"
CLASSES = ["cat", "dog", "crocodile", "[eel]"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def learnt() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    with jax.enable_x64(False):
        trees = jax.jit(lambda key: lenet5.init(key, num_classes=4))(jax.random.key(0))
    return flat(trees[0]), flat(trees[1])


@pytest.fixture
def here(tmp_path: Path, learnt: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]) -> Path:
    """A directory with a run, and with pictures of which one is none."""
    run = tmp_path / "run"
    run.mkdir()
    config = {"model": "lenet5", "dtype": "float32", "classes": CLASSES, "image_shape": [28, 28, 1]}
    (run / "config.json").write_text(json.dumps(config))
    save(run, *learnt)
    (tmp_path / "more").mkdir()
    rng = np.random.default_rng(0)
    for name in ("three.png", "photo.jpg", "more/three.png"):
        Image.fromarray(rng.integers(256, size=(40, 30, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "text.png").write_text("no picture")
    return tmp_path


@pytest.fixture
def run(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the script in this process; returns its exit code, standard output and error."""
    monkeypatch.chdir(here)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *arguments])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        code = exit_.value.code
        assert isinstance(code, int)
        return code, *capsys.readouterr()

    return run


def process(
    cwd: Path, *arguments: str, python: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *python, str(SCRIPT), *arguments],
        cwd=cwd,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )


def expected(learnt: tuple[dict[str, np.ndarray], dict[str, np.ndarray]], path: Path) -> np.ndarray:
    """The probabilities of a picture's classes."""
    grey = Image.open(path).convert("L").resize((28, 28), Image.Resampling.BILINEAR)
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, leaf in learnt[0].items():
        layer, _, kind = name.partition("/")
        params.setdefault(layer, {})[kind] = leaf
    x = np.asarray(grey, np.float32)[None, ..., None] / 255
    logits, _ = lenet5.apply(params, {}, x)
    return np.asarray(jax.nn.softmax(logits[0]))


def test_pictures_are_predicted_a_line_each_and_drawn(
    here: Path, learnt: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
) -> None:
    images = ["three.png", "text.png", "photo.jpg", "more/three.png"]
    result = process(here, "run", *images, "--top", "2", "--saliency", "looked/at")
    assert result.returncode == 1
    told = "predict.py: text.png: no picture, or of an unknown format"
    assert result.stderr.splitlines() == [told]
    lines = result.stdout.splitlines()
    for line, image in zip(lines, [images[0], *images[2:]], strict=True):
        probabilities = expected(learnt, here / image)
        first, second = (-probabilities).argsort()[:2]
        likely = [100 * probabilities[n] for n in (first, second)]
        start = f"{image:14}  {CLASSES[first]:9}  {likely[0]:5.1f} %"
        assert line == f"{start}   {CLASSES[second]} {likely[1]:.1f} %"
    drawn = sorted(path.name for path in (here / "looked" / "at").iterdir())
    assert drawn == ["photo.png", "three-2.png", "three.png"]
    for name in drawn:
        with Image.open(here / "looked" / "at" / name) as picture:
            picture.load()


def test_json_and_inverted(
    run: Run, here: Path, learnt: tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
) -> None:
    code, out, err = run("run", "photo.jpg", "three.png", "--json", "--top", "9")
    assert (code, err) == (0, "")
    for line, image in zip(out.splitlines(), ["photo.jpg", "three.png"], strict=True):
        found, probabilities = json.loads(line), expected(learnt, here / image)
        order = [CLASSES[n] for n in (-probabilities).argsort()]
        assert list(found) == ["image", "class", "probability", "top"]
        assert found["image"] == image
        assert (found["class"], found["probability"]) == tuple(found["top"][0].values())
        assert [one["class"] for one in found["top"]] == order
        likely = [one["probability"] for one in found["top"]]
        np.testing.assert_allclose(likely, sorted(probabilities)[::-1], rtol=1e-4)

    with Image.open("three.png") as picture:
        grey = np.asarray(picture.convert("L").resize((28, 28), Image.Resampling.BILINEAR))
    Image.fromarray(255 - grey).save("inverted.png")
    code, out, _ = run("run", "inverted.png", "--invert", "--json", "--top", "9")
    assert code == 0
    probabilities = sorted(expected(learnt, here / "three.png"))[::-1]
    likely = [one["probability"] for one in json.loads(out)["top"]]
    np.testing.assert_allclose(likely, probabilities, rtol=1e-4)


def test_a_map_replaces_no_file(run: Run, here: Path) -> None:
    before = (here / "three.png").read_bytes()
    code, out, _ = run("run", "three.png", "--saliency", ".", "--json")
    assert code == 0
    assert json.loads(out)["saliency"] == "three-2.png"
    assert (here / "three.png").read_bytes() == before
    assert (here / "three-2.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "the following arguments are required: RUN, IMAGE"),
        (["run"], "the following arguments are required: IMAGE"),
        (["run", "three.png", "--top", "0"], "argument --top: must be an integer of at least 1"),
        (["run", "three.png", "--invers"], "unrecognized arguments: --invers"),
        (["more", "three.png"], "argument RUN: 'more' is no run: it has no config.json"),
        (["nowhere", "three.png"], "argument RUN: 'nowhere' is no run: it has no config.json"),
        (["run", "three.png", "--saliency", "text.png"], "argument --saliency: "),
    ],
)
def test_a_bad_argument_is_one_line(run: Run, here: Path, arguments: list[str], told: str) -> None:
    before = sorted(here.rglob("*"))
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith(f"predict.py: {told}")
    assert sorted(here.rglob("*")) == before


def test_a_damaged_run_is_one_line(run: Run, here: Path) -> None:
    path = here / "run" / "parameters.npz"
    path.write_bytes(path.read_bytes()[:5000])
    code, out, err = run("run", "three.png")
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("predict.py: argument RUN: run/parameters.npz is damaged: ")


def test_a_bad_argument_is_told_before_jax_is_imported(here: Path) -> None:
    result = process(here, "more", "three.png", python=("-X", "importtime"))
    assert result.returncode == 2
    assert "| jax" not in result.stderr


def test_a_missing_package_is_told_in_one_line(here: Path) -> None:
    result = process(here, "run", "three.png", python=("-S",))  # without site-packages
    assert (result.returncode, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.endswith("is not installed: pip install 'jaxcnn[train]'")
