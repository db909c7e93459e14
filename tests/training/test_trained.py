"""What a run learnt is read back as it was written; anything else is refused in a line."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxcnn.models import MODELS
from jaxcnn.training.step import flat
from jaxcnn.training.stopping import RequestError
from jaxcnn.training.trained import Trained, load, save

CONFIG = {
    "model": "lenet5",
    "dtype": "float32",
    "classes": [f"class {n}" for n in range(7)],
    "image_shape": [28, 28, 3],
    "epochs": 3,  # and more that is not looked at
}


def drawn(name: str) -> Any:
    """Parameters and state like those of the model's `init`, of random numbers."""
    model, size = MODELS[name]
    init = partial(model.init, num_classes=7, channels=3, **size)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, leaf.dtype),
        jax.eval_shape(init, jax.random.key(0)),
    )


def make(run: Path, name: str = "lenet5", **config: Any) -> Any:
    """A run's directory; returns what is in it."""
    trees = drawn(name)
    run.mkdir(exist_ok=True)
    (run / "config.json").write_text(json.dumps(CONFIG | {"model": name} | config))
    save(run, *map(flat, trees))
    return trees


def refusal(run: Path) -> str:
    """Why it can't be loaded, which is said in a line."""
    with pytest.raises(RequestError) as refused:
        load(run)
    (line,) = str(refused.value).splitlines()
    return line


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "mobilenet"])
def test_what_was_saved_is_loaded(tmp_path: Path, name: str) -> None:
    trees = make(tmp_path, name, dtype="bfloat16")
    loaded = load(tmp_path)
    assert loaded._replace(params=None, state=None) == Trained(
        MODELS[name][0], None, None, [f"class {n}" for n in range(7)], (28, 28, 3), "bfloat16"
    )
    for found, expected in zip((loaded.params, loaded.state), trees, strict=True):
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "parameters.npz",
        "state.npz",
    }


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    make(tmp_path)
    before = (tmp_path / "parameters.npz").read_bytes()
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        save(tmp_path, {"conv1/kernel": np.array([None])}, {})
    assert (tmp_path / "parameters.npz").read_bytes() == before
    load(tmp_path)


def test_a_directory_that_is_no_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        assert refusal(path) == f"{str(path)!r} is no run: it has no config.json"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "can't be read: Expecting value"),
        ('{"model": "lenet5",', "can't be read: Expecting"),
        ("\x00\x01", "can't be read: Expecting value"),
        ("[1]", "is no JSON object"),
        ("{}", "`model` must be one of lenet5, vgg, resnet18, resnet50, mobilenet, not None"),
        (json.dumps(CONFIG | {"model": ["vgg"]}), "`model` must be one of lenet5, vgg"),
        (json.dumps(CONFIG | {"model": "alexnet"}), "not 'alexnet'"),
        (json.dumps(CONFIG | {"dtype": "int8"}), "`dtype` must be one of float32, bfloat16"),
        (json.dumps(CONFIG | {"classes": []}), "`classes` must be a list of names"),
        (json.dumps(CONFIG | {"classes": [1, 2]}), "`classes` must be a list of names"),
        (json.dumps(CONFIG | {"image_shape": 28}), "`image_shape` must be a height, a width and"),
        (json.dumps(CONFIG | {"image_shape": [28, 28]}), "1 or 3 channels, not [28, 28]"),
        (json.dumps(CONFIG | {"image_shape": [28, 28, 2]}), "1 or 3 channels, not [28, 28, 2]"),
        (json.dumps(CONFIG | {"image_shape": [28, -1, 3]}), "1 or 3 channels, not [28, -1, 3]"),
        (json.dumps(CONFIG | {"image_shape": [32, 32, 3]}), "lenet5 takes no images of 32x32x3"),
    ],
)
def test_a_config_that_says_something_else(tmp_path: Path, text: str, told: str) -> None:
    make(tmp_path)
    (tmp_path / "config.json").write_text(text)
    line = refusal(tmp_path)
    assert line.startswith(str(tmp_path / "config.json"))
    assert told in line


@pytest.mark.parametrize("file", ["parameters.npz", "state.npz"])
def test_a_file_that_is_missing_or_damaged(tmp_path: Path, file: str) -> None:
    make(tmp_path)
    path = tmp_path / file
    whole = path.read_bytes()
    cuts = {0, 1, 10, len(whole) // 2, len(whole) - 1}
    for damaged in [*(whole[:cut] for cut in cuts), b"no zip"]:
        path.write_bytes(damaged)
        assert refusal(tmp_path).startswith(f"{path} is damaged: ")
    np.save(path.with_suffix(".npy"), np.zeros(3))
    path.with_suffix(".npy").rename(path)
    assert refusal(tmp_path).startswith(f"{path} is damaged: ")
    path.unlink()
    told = f"{str(tmp_path)!r} holds no trained model: it has no {file}"
    assert refusal(tmp_path) == told


def test_a_bit_that_changed(tmp_path: Path) -> None:
    make(tmp_path)
    path = tmp_path / "parameters.npz"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert refusal(tmp_path).startswith(f"{path} is damaged: Bad CRC-32")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"conv1/kernel": None}, "it has no conv1/kernel"),
        ({"conv3/kernel": np.zeros(3)}, "which has no conv3/kernel"),
        (
            {"conv1/kernel": np.zeros((5, 5, 1, 6), np.float32)},
            "is float32 of shape (5, 5, 1, 6), and must be float32 of shape (5, 5, 3, 6)",
        ),
        ({"conv1/bias": np.zeros(6)}, "conv1/bias is float64 of shape (6,), and must be float32"),
    ],
)
def test_parameters_of_another_model(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    params, state = map(flat, make(tmp_path))
    changed = {name: leaf for name, leaf in (params | change).items() if leaf is not None}
    save(tmp_path, changed, state)
    line = refusal(tmp_path)
    assert line.startswith(f"{tmp_path / 'parameters.npz'} is not of a lenet5 of 7 classes")
    assert told in line


def test_a_state_of_another_model(tmp_path: Path) -> None:
    params, _ = map(flat, make(tmp_path))
    save(tmp_path, params, {"stem/mean": np.zeros(3, np.float32)})
    assert "which has no stem/mean" in refusal(tmp_path)
