"""What a run was asked to do."""

import json
from pathlib import Path

import pytest

from jaxcnn.training import settings
from jaxcnn.training.settings import Settings, make
from jaxcnn.training.stopping import RequestError


def test_what_is_not_given_suits_what_is() -> None:
    assert make() == Settings()
    assert make(data="cifar10") == Settings(data="cifar10", crop=4, flip=True)
    assert make(data="photos").crop == 0
    assert make(data="cifar10", crop=1, flip=False) == Settings(data="cifar10", crop=1)
    assert make(optimizer="adamw").learning_rate == 0.001
    assert make(optimizer="adam", learning_rate=0.1).learning_rate == 0.1
    assert make(optimizer="momentum").momentum == 0.9
    assert make(momentum=0.5).momentum == 0.5


def test_adam_takes_no_momentum() -> None:
    with pytest.raises(RequestError, match="momentum is not for adam"):
        make(optimizer="adam", momentum=0.9)


def test_a_run_s_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    asked = make(data="cifar10", learning_rate=0.3, seed=5)
    settings.write(tmp_path, asked, classes=["cat", "dog"])
    assert json.loads((tmp_path / "config.json").read_text())["classes"] == ["cat", "dog"]
    assert settings.read(tmp_path) == asked
    assert settings.read(tmp_path, seed=5) == asked
    with pytest.raises(RequestError, match="the run has seed 5, which can't become 6"):
        settings.read(tmp_path, seed=6)


@pytest.mark.parametrize("text", [None, "", "{", "[]", "3", '{"model": "vgg"}'])
def test_no_run_is_told_in_a_line(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(RequestError, match="holds no run to go on with") as error:
        settings.read(tmp_path)
    assert "\n" not in str(error.value)
