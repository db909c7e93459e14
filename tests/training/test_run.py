"""What a run that goes on must find as it was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.training import devices, outcome, settings, sources
from jaxcnn.training.run import facts, run
from jaxcnn.training.stopping import RequestError


def more(photos: Path) -> None:
    shutil.copy(photos / "dog" / "0.png", photos / "dog" / "more.png")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda photos: (photos / "cat").rename(photos / "zebra"), "classes"),
        (more, "pictures, labels"),
        (lambda photos: [(photos / f"dog/{n}.png").unlink() for n in (3, 4)], "pictures, labels"),
    ],
)
def test_data_that_changed_are_refused(
    tmp_path: Path, change: Callable[[Path], object], what: str
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "run"
    for name in ("cat", "dog"):
        (photos / name).mkdir(parents=True)
        for n in range(5):
            Image.fromarray(np.zeros((28, 28), np.uint8)).save(photos / name / f"{n}.png")
    out.mkdir()
    asked = settings.make(data=str(photos), epochs=2)
    settings.write(out, asked, **facts(sources.load(asked.data)))
    before = (out / "config.json").read_text()
    change(photos)
    with pytest.raises(RequestError, match=f"has changed since the run began: {what}$"):
        run(out, settings.read(out), resume=True)
    assert (out / "config.json").read_text() == before


def test_a_run_is_gone_on_with_from_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    settings.write(tmp_path, settings.make(data="photos"))
    monkeypatch.chdir("/")
    assert settings.read(tmp_path).data == str(tmp_path / "photos")
    assert settings.facts(tmp_path) == {}
    with pytest.raises(RequestError, match="which can't become mnist"):
        settings.read(tmp_path, data="mnist")


def test_metrics_of_epochs_that_are_done_again_go(tmp_path: Path) -> None:
    assert outcome.rewind(tmp_path, 0, first=True) == []
    path = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"epoch": epoch}) for epoch in (1, 2, 3)]
    path.write_text("\n".join(lines)[:-3])  # killed while it wrote the third
    assert outcome.rewind(tmp_path, 2, first=False) == [{"epoch": 1}, {"epoch": 2}]
    assert outcome.rewind(tmp_path, 1, first=True) == [{"epoch": 1}]
    assert path.read_text() == lines[0] + "\n"
    path.write_text("{")
    with pytest.raises(RequestError, match=r"metrics\.jsonl is damaged"):
        outcome.rewind(tmp_path, 1, first=True)


def test_hosts_that_differ_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.agree("one")
    answers = iter([7, -5])  # the largest of 5 and 7, and of -5 and -7
    monkeypatch.setattr(devices, "largest", lambda number: next(answers))
    with pytest.raises(RequestError, match="the hosts were told different things"):
        devices.agree("one")
