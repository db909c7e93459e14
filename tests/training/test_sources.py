"""The named sets and saved data sets, read by `datasets` from small files, without a network."""

import io
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import numpy as np
import pytest
from PIL import Image

from jaxcnn.training.data import DataError, digits
from jaxcnn.training.sources import HUB, load

RNG = np.random.default_rng(0)

# How the sets lie on the hub: the folder of their files, size, and columns beside the image.
LAYOUTS: dict[str, tuple[str, tuple[int, ...], dict[str, int]]] = {
    "mnist": ("mnist", (28, 28), {"label": 10}),
    "fashion_mnist": ("fashion_mnist", (28, 28), {"label": 10}),
    "cifar10": ("plain_text", (32, 32, 3), {"label": 10}),
    "cifar100": ("cifar100", (32, 32, 3), {"fine_label": 100, "coarse_label": 20}),
}

CARD = """---
configs:
- config_name: {folder}
  data_files:
  - split: train
    path: {folder}/train-*
  - split: test
    path: {folder}/test-*
  default: true
---
"""


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and an empty cache."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def dataset(
    pictures: list[Any], image: str = "image", **labels: tuple[list[int | None], list[str]]
) -> datasets.Dataset:
    """Of pictures (bytes, or paths as strings), and of columns of labels with their names."""
    rows = [{"bytes": p, "path": None} if isinstance(p, bytes) else p for p in pictures]
    features: dict[str, Any] = {image: datasets.Image()}
    features |= {name: datasets.ClassLabel(names=names) for name, (_, names) in labels.items()}
    return datasets.Dataset.from_dict(
        {image: rows} | {name: of for name, (of, _) in labels.items()},
        features=datasets.Features(features),
    )


def put_on_hub(root: Path, name: str, spoil: Callable[[str, list[bytes]], None]) -> dict[str, Any]:
    """Writes parquet files and a card as the hub has them; returns pixels and labels by split."""
    folder, shape, columns = LAYOUTS[name]
    repository, image, _ = HUB[name]
    (root / repository / folder).mkdir(parents=True)
    (root / repository / "README.md").write_text(CARD.format(folder=folder))
    written = {}
    for split, many in (("train", 203), ("test", 101)):
        pixels = RNG.integers(0, 256, (many, *shape), np.uint8)
        pictures = [encoded(each) for each in pixels]
        spoil(split, pictures)
        labels: dict[str, tuple[list[int | None], list[str]]] = {
            column: ([n % size for n in range(many)], [f"{column} {n}" for n in range(size)])
            for column, size in columns.items()
        }
        file = root / repository / folder / f"{split}-00000-of-00001.parquet"
        dataset(pictures, image, **labels).to_parquet(file)
        written[split] = pixels.reshape(*pixels.shape[:3], -1), labels
    return written


def whole(split: str, pictures: list[bytes]) -> None:
    """Nothing is spoilt."""


@pytest.mark.parametrize("name", HUB)
def test_the_named_sets(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    # `datasets` looks for a folder before it asks the hub; how it reads them is the same.
    written = put_on_hub(tmp_path, name, whole)
    capfd.readouterr()
    data = load(name)
    column = HUB[name][2]
    for split, found in (("train", data.train), ("test", data.test)):
        pixels, labels = written[split]
        assert found.images.dtype == np.uint8
        assert found.labels.dtype == np.int32
        np.testing.assert_array_equal(found.images, pixels)
        np.testing.assert_array_equal(found.labels, labels[column][0])
        assert data.classes == tuple(labels[column][1])
    assert data.skipped == 0
    assert capfd.readouterr() == ("", "")


def test_a_named_set_from_the_cache(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written = put_on_hub(tmp_path, "mnist", whole)
    load("mnist")
    (tmp_path / "ylecun").rename(tmp_path / "gone")
    # What comes from the hub has the name of its owner in the cache, too.
    (tmp_path / "cache" / "mnist").rename(tmp_path / "cache" / "ylecun___mnist")
    capfd.readouterr()
    np.testing.assert_array_equal(load("mnist").test.images, written["test"][0])
    assert capfd.readouterr() == ("", "")


def test_a_named_set_with_bad_pictures(tmp_path: Path) -> None:
    def spoil(split: str, pictures: list[bytes]) -> None:
        if split == "train":
            pictures[17] = pictures[17][:-40]
        else:
            pictures[2] = encoded(np.zeros((28, 30), np.uint8))

    written = put_on_hub(tmp_path, "mnist", spoil)
    with pytest.raises(
        DataError, match=r"^mnist test\[2\]: it is 30x28 grey, .*; and 1 more; --sk"
    ):
        load("mnist")
    data = load("mnist", skip_bad=True)
    assert data.skipped == 2
    np.testing.assert_array_equal(data.train.images, np.delete(written["train"][0], 17, 0))
    np.testing.assert_array_equal(data.test.images, np.delete(written["test"][0], 2, 0))
    np.testing.assert_array_equal(data.train.labels, np.delete(np.arange(203) % 10, 17))


def test_a_damaged_file_of_a_named_set(tmp_path: Path) -> None:
    put_on_hub(tmp_path, "mnist", whole)
    file = tmp_path / "ylecun" / "mnist" / "mnist" / "test-00000-of-00001.parquet"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(
        DataError, match=r"^mnist: ylecun/mnist can't be loaded: .*arquet"
    ) as raised:
        load("mnist")
    assert "\n" not in str(raised.value)


def test_a_named_set_that_has_other_columns(tmp_path: Path) -> None:
    put_on_hub(tmp_path, "cifar10", whole)
    (tmp_path / "uoft-cs" / "cifar10").rename(tmp_path / "uoft-cs" / "cifar100")
    with pytest.raises(
        DataError, match=r"^cifar100: uoft-cs/cifar100 can't be loaded: .*fine_label"
    ):
        load("cifar100")


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"and it is not in the cache at {tmp_path / 'cache'}"
    start = "cifar10: uoft-cs/cifar10 can't be loaded: "
    with pytest.raises(DataError) as raised:
        load("cifar10")
    assert str(raised.value) == f"{start}HF_HUB_OFFLINE is set, {where}"

    def refuse() -> None:
        raise datasets.load.httpx.ConnectError("[Errno -2] Name or service not known")

    # As if it were asked; to wait for the attempts of a real one takes half a minute.
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.load, "_raise_if_offline_mode_is_enabled", refuse)
    with pytest.raises(DataError) as raised:
        load("cifar10")
    assert str(raised.value) == f"{start}no answer at {datasets.config.HF_ENDPOINT}, {where}"


def test_datasets_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"^mnist: .*: pip install 'jaxcnn\[data\]'$"):
        load("mnist")


def test_digits_and_image_folders_need_no_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    np.testing.assert_array_equal(load("digits").test.images, digits().test.images)
    pixels = RNG.integers(0, 256, (2, 4, 4, 3), np.uint8)
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(2):
            (tmp_path / "photos" / name / f"{n}.png").write_bytes(encoded(pixels[n]))
    data = load("photos")
    assert data.classes == ("a", "b")
    np.testing.assert_array_equal(data.train.images, pixels[[1, 1]])
    (tmp_path / "photos" / "b" / "1.png").write_text("a text")
    with pytest.raises(DataError, match=r"^photos/b/1\.png: no picture"):
        load("photos")


@pytest.mark.parametrize("name", ["", "no/such", "MNIST"])
def test_no_such_name_or_path(name: str) -> None:
    line = f"^'{name}': there is no such path, and the names are digits, mnist, fashion_mnist, "
    with pytest.raises(DataError, match=line):
        load(name)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("")
    with pytest.raises(DataError, match=r"^a\.png: it is no folder$"):
        load("a.png")


PIXELS = RNG.integers(0, 256, (14, 5, 4, 3), np.uint8)
PICTURES = [encoded(each) for each in PIXELS]
LABELS: list[int | None] = [0, 1] * 7
NAMES = ["no", "yes"]


@pytest.mark.parametrize("test", ["test", "validation"])
def test_a_saved_dataset_dict(test: str) -> None:
    train, tests = (
        dataset(PICTURES[part], "photo", kind=(LABELS[part], NAMES))
        for part in (slice(10), slice(10, 14))
    )
    datasets.DatasetDict({"train": train, test: tests}).save_to_disk("saved")
    data = load("saved")
    assert data.classes == ("no", "yes")
    np.testing.assert_array_equal(data.train.images, PIXELS[:10])
    np.testing.assert_array_equal(data.test.images, PIXELS[10:])
    np.testing.assert_array_equal(data.train.labels, LABELS[:10])
    np.testing.assert_array_equal(data.test.labels, LABELS[10:])


@pytest.mark.parametrize("as_dict", [True, False])
def test_a_saved_dataset_without_tests_is_split(as_dict: bool) -> None:
    every = dataset(PICTURES, kind=(LABELS, NAMES))
    (datasets.DatasetDict({"train": every}) if as_dict else every).save_to_disk("saved")
    data = load("saved")
    tests = [0, 1, 10, 11]
    np.testing.assert_array_equal(data.test.images, PIXELS[tests])
    np.testing.assert_array_equal(data.test.labels, [0, 1, 0, 1])
    np.testing.assert_array_equal(data.train.images, np.delete(PIXELS, tests, 0))


def test_a_saved_dataset_that_was_shuffled_and_lies_in_several_files() -> None:
    every = dataset(PICTURES, kind=(LABELS, NAMES))
    order = RNG.permutation(14)
    both = {"train": every.select(order), "test": every.select(range(4))}
    datasets.DatasetDict(both).save_to_disk("saved", num_shards={"train": 3, "test": 1})
    data = load("saved")
    np.testing.assert_array_equal(data.train.images, PIXELS[order])
    np.testing.assert_array_equal(data.train.labels, order % 2)


def test_pictures_of_a_saved_dataset_may_be_files(tmp_path: Path) -> None:
    for n, picture in enumerate(PICTURES):
        (tmp_path / f"{n}.png").write_bytes(picture)
    paths = [{"bytes": None, "path": str(tmp_path / f"{n}.png")} for n in range(14)]
    dataset(paths, kind=(LABELS, NAMES)).save_to_disk("saved")
    for n in range(14):  # it has copied none of them, or all: either is right
        (tmp_path / f"{n}.png").write_bytes(PICTURES[n])
    np.testing.assert_array_equal(load("saved").test.images, PIXELS[[0, 1, 10, 11]])


@pytest.mark.parametrize(
    ("picture", "line"),
    [
        ({"bytes": PICTURES[0][:-40], "path": "cat.png"}, r"train\[7\] \(cat\.png\): .*truncated"),
        ({"bytes": b"a text", "path": None}, r"train\[7\]: no picture"),
        ({"bytes": encoded(np.zeros((5, 4, 4), np.uint8)), "path": None}, r"train\[7\]: mode RGBA"),
        (None, r"train\[7\]: no picture"),
        ({"bytes": encoded(PIXELS[0][..., 0]), "path": None}, r"train\[7\]: it is 4x5 grey, and "),
    ],
)
def test_a_bad_picture_in_a_saved_dataset(picture: Any, line: str) -> None:
    pictures = [*PICTURES[:7], picture, *PICTURES[8:]]
    dataset(pictures, kind=(LABELS, NAMES)).save_to_disk("saved")
    with pytest.raises(DataError, match=f"^saved {line}"):
        load("saved")
    data = load("saved", skip_bad=True)
    assert data.skipped == 1
    assert len(data.train.labels) == len(data.train.images) == 9


@pytest.mark.parametrize(
    ("saved", "line"),
    [
        (dataset(PICTURES), "saved train: no column is of type ClassLabel, and there must be one"),
        (
            dataset(PICTURES, fine=(LABELS, NAMES), coarse=(LABELS, NAMES)),
            "saved train: columns fine, coarse are of type ClassLabel, and there must be one",
        ),
        (
            dataset(PICTURES, kind=(LABELS, NAMES)).remove_columns("image"),
            "saved train: no column is of type Image, and there must be one",
        ),
        (
            dataset(PICTURES, kind=([0, 1, None, *LABELS[3:]], NAMES)),
            "saved train[2]: it has no label, or none of the 2",
        ),
        (
            dataset(PICTURES, kind=([-1, *LABELS[1:]], NAMES)),
            "saved train[0]: it has no label, or none of the 2",
        ),
        (
            dataset(PICTURES, kind=(LABELS, [*NAMES, "maybe"])),
            "saved: of class 'maybe', there are 0 to train on and 0 to test on: each needs one",
        ),
        (
            datasets.DatasetDict({"test": dataset(PICTURES, kind=(LABELS, NAMES))}),
            "saved: none of its splits (test) is called train",
        ),
        (
            datasets.DatasetDict(
                {
                    "train": dataset(PICTURES, kind=(LABELS, NAMES)),
                    "test": dataset(PICTURES, kind=(LABELS, NAMES[::-1])),
                }
            ),
            "saved: train and test have not the same classes",
        ),
    ],
)
def test_a_saved_dataset_that_is_none_of_labelled_pictures(saved: Any, line: str) -> None:
    saved.save_to_disk("saved")
    with pytest.raises(DataError) as raised:
        load("saved")
    assert str(raised.value) == line


def spoil_json(saved: Path) -> None:
    (saved / "dataset_info.json").write_text("{")


def remove_arrow(saved: Path) -> None:
    next(saved.glob("*.arrow")).unlink()


def cut_arrow(saved: Path) -> None:
    file = next(saved.glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:1000])


def empty(saved: Path) -> None:
    """Nothing was in it when it was saved, for which `datasets` has no message."""
    shutil.rmtree(saved)
    dataset([], kind=([], NAMES)).save_to_disk(saved)


@pytest.mark.parametrize("spoil", [spoil_json, remove_arrow, cut_arrow, empty])
def test_a_damaged_saved_dataset(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    dataset(PICTURES, kind=(LABELS, NAMES)).save_to_disk("saved")
    spoil(tmp_path / "saved")
    with pytest.raises(DataError, match=r"^saved: `datasets` can't load it: .") as raised:
        load("saved")
    assert "\n" not in str(raised.value)


def test_what_datasets_says_is_kept_off() -> None:
    dataset(PICTURES, kind=(LABELS, NAMES)).save_to_disk("saved")
    load("saved")
    assert datasets.are_progress_bars_disabled()
    assert logging.getLogger("datasets").level == logging.CRITICAL
