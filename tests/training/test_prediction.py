"""Files in, predictions out: in order, in batches of one size, without those that can't be read."""

from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array
from PIL import Image

from jaxcnn.training import prediction
from jaxcnn.training.prediction import predict
from jaxcnn.training.trained import Trained

KERNEL = np.random.default_rng(0).normal(size=(2 * 2, 3))


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Seven pictures, the pixels of which are 10 times their number, and a third that is none."""
    found = [tmp_path / f"{n}.png" for n in range(8)]
    for n, path in enumerate(found):
        Image.new("L", (2, 2), 10 * n).save(path)
    found[2].write_text("no picture")
    return found


def trained() -> tuple[Trained, list[tuple[int, ...]]]:
    """A linear model, and the shapes that it is traced with."""
    shapes: list[tuple[int, ...]] = []

    def apply(params: Any, state: Any, x: Array, *, ops: ModuleType) -> tuple[Array, Any]:
        shapes.append(x.shape)
        return ops.dense(ops.flatten(x), params["kernel"]), state

    model: Any = SimpleNamespace(apply=apply)
    params = {"kernel": jnp.float32(KERNEL)}
    return Trained(model, params, {}, ["a", "b", "c"], (2, 2, 1)), shapes


@pytest.mark.parametrize("maps", [False, True])
@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("batch", [3, 64])
def test_each_picture_has_its_own_prediction(
    paths: list[Path], monkeypatch: pytest.MonkeyPatch, batch: int, invert: bool, maps: bool
) -> None:
    monkeypatch.setattr(prediction, "BATCH", batch)
    model, shapes = trained()
    told: list[str] = []
    found = list(predict(model, paths, invert=invert, maps=maps, tell=told.append))
    assert [one.path for one in found] == paths[:2] + paths[3:]
    for one in found:
        grey = 10 * int(one.path.stem) / 255
        image = np.full((2, 2, 1), 1 - grey if invert else grey)
        np.testing.assert_allclose(one.image, image, rtol=1e-6)
        logits = image.ravel() @ KERNEL
        likely = np.exp(logits) / np.exp(logits).sum()
        np.testing.assert_allclose(one.probabilities, likely, rtol=1e-5)
        if maps:
            assert one.map is not None
            kernel = np.abs(KERNEL[:, likely.argmax()]).reshape(2, 2)
            np.testing.assert_allclose(one.map, kernel, rtol=1e-6)
        else:
            assert one.map is None
    assert told == [f"{paths[2]}: no picture, or of an unknown format"]
    assert set(shapes) == {(min(batch, 8), 2, 2, 1)}
    assert len(shapes) == 1  # traced, and so compiled, once


def test_without_a_picture_there_is_no_prediction(paths: list[Path]) -> None:
    model, shapes = trained()
    assert list(predict(model, [])) == []
    assert list(predict(model, [paths[2]], tell=lambda line: None)) == []
    assert shapes == []
