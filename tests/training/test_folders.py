"""Image folders: what is read from them, and what stands against it."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.training.data import Data, DataError
from jaxcnn.training.folders import load

RNG = np.random.default_rng(0)


def write(path: Path, *shape: int) -> np.ndarray:
    """Writes noise, and returns it as it is read back."""
    pixels = RNG.integers(0, 256, shape or (4, 5, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    with Image.open(path) as picture:
        return np.array(picture)


def photos(root: Path, **classes: int) -> dict[str, np.ndarray]:
    """So many pictures of each class."""
    return {
        f"{name}/{n}.png": write(root / name / f"{n}.png")
        for name, many in classes.items()
        for n in range(many)
    }


def same(data: Data, train: list[np.ndarray], test: list[np.ndarray]) -> None:
    np.testing.assert_array_equal(data.train.images, train)
    np.testing.assert_array_equal(data.test.images, test)


def refused(root: Path, skip_bad: bool = False) -> str:
    with pytest.raises(DataError) as raised:
        load(root, skip_bad=skip_bad)
    line = str(raised.value)
    assert "\n" not in line
    assert line.startswith(str(root))
    return line[len(str(root)) :]


def test_every_fifth_picture_of_each_class_is_for_testing(tmp_path: Path) -> None:
    there = photos(tmp_path, dog=6, cat=7)
    seen: list[tuple[int, int]] = []
    data = load(tmp_path, watch=lambda *numbers: seen.append(numbers))
    assert data.classes == ("cat", "dog")
    train = [f"cat/{n}.png" for n in (1, 2, 3, 4, 6)] + [f"dog/{n}.png" for n in (1, 2, 3, 4)]
    test = [f"{name}/{n}.png" for name in ("cat", "dog") for n in (0, 5)]
    same(data, [there[name] for name in train], [there[name] for name in test])
    assert data.train.images.dtype == np.uint8
    np.testing.assert_array_equal(data.train.labels, [0] * 5 + [1] * 4)
    np.testing.assert_array_equal(data.test.labels, [0, 0, 1, 1])
    assert data.train.labels.dtype == np.int32
    assert data.skipped == 0
    assert seen[-1] == (13, 13)


@pytest.mark.parametrize("name", ["test", "val", "valid", "validation"])
def test_folders_for_training_and_testing(name: str, tmp_path: Path) -> None:
    train = photos(tmp_path / "train", b=2, a=1)
    test = photos(tmp_path / name, a=1, b=1)
    data = load(tmp_path)
    assert data.classes == ("a", "b")
    same(data, [train[n] for n in ("a/0.png", "b/0.png", "b/1.png")], list(test.values()))
    np.testing.assert_array_equal(data.train.labels, [0, 1, 1])
    np.testing.assert_array_equal(data.test.labels, [0, 1])


def test_the_test_pictures_win_over_those_for_validation(tmp_path: Path) -> None:
    photos(tmp_path / "train", a=1, b=1)
    photos(tmp_path / "val", a=1, b=1)
    test = photos(tmp_path / "test", a=2, b=1)
    np.testing.assert_array_equal(load(tmp_path).test.images, list(test.values()))


def test_a_folder_called_train_among_others_is_a_class(tmp_path: Path) -> None:
    photos(tmp_path, train=2, bus=2)
    assert load(tmp_path).classes == ("bus", "train")


def test_of_a_folder_for_training_alone_every_fifth_picture_is_for_testing(tmp_path: Path) -> None:
    photos(tmp_path / "train", cat=5, dog=5)
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert (len(data.train.labels), len(data.test.labels)) == (8, 2)


def test_a_name_that_is_no_text_can_be_shown(tmp_path: Path) -> None:
    photos(tmp_path, cat=2)
    photos(tmp_path, **{"caf\udce9": 2})  # the byte of another encoding
    assert load(tmp_path).classes == ("caf\ufffd", "cat")


def test_suffixes_hidden_files_and_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    there = [write(root / "a" / name, 4, 5) for name in ("1.JPG", "2.PNG", "3.jpeg", "4.png")]
    elsewhere = [write(tmp_path / "elsewhere" / f"{n}.png", 4, 5) for n in range(2)]
    (root / "a" / "0.png").symlink_to(tmp_path / "elsewhere" / "0.png")
    (root / "b").symlink_to(tmp_path / "elsewhere")
    for ignored in (".hidden.png", "._1.png", "notes.txt", "5.gif", "png"):
        (root / "a" / ignored).write_text("no picture")
    (root / ".cache").mkdir()
    (root / "README.png").write_text("of no class")
    data = load(root)
    assert data.classes == ("a", "b")
    same(data, [image[..., None] for image in [*there, elsewhere[1]]],
         [elsewhere[0][..., None]] * 2)  # fmt: skip


@pytest.mark.parametrize(
    ("classes", "line"),
    [
        ({}, ": there is no folder for a class in it"),
        ({"cat": 5}, ": there must be two classes at least, and there is only 'cat'"),
        (
            {"cat": 5, "dog": 1},
            ": of class 'dog', there are 0 to train on and 1 to test on: each needs one",
        ),
    ],
)
def test_too_little(classes: dict[str, int], line: str, tmp_path: Path) -> None:
    photos(tmp_path, **classes)
    assert refused(tmp_path) == line


def test_pictures_without_classes(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    assert refused(tmp_path) == ": there is no folder for a class in it (but pictures)"


def test_an_empty_class(tmp_path: Path) -> None:
    photos(tmp_path, cat=3)
    (tmp_path / "dog").mkdir()
    (tmp_path / "dog" / "dog.gif").write_text("")
    assert refused(tmp_path) == "/dog: there is no PNG or JPEG file of this class in it"


def test_classes_that_one_split_lacks(tmp_path: Path) -> None:
    photos(tmp_path / "train", cat=1, dog=1)
    photos(tmp_path / "val", cat=1)
    assert refused(tmp_path) == "/val: there is no class 'dog'"
    photos(tmp_path / "val", dog=1, emu=1)
    assert refused(tmp_path) == "/train: there is no class 'emu'"


def test_no_such_folder(tmp_path: Path) -> None:
    assert refused(tmp_path / "none") == ": No such file or directory"
    (tmp_path / "file").write_text("")
    assert refused(tmp_path / "file") == ": Not a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_and_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    photos(tmp_path, cat=3, dog=3)
    (tmp_path / "cat" / "1.png").chmod(0)
    assert refused(tmp_path).startswith("/cat/1.png: Permission denied")
    (tmp_path / "cat").chmod(0)
    try:
        assert refused(tmp_path) == "/cat: Permission denied"
    finally:
        (tmp_path / "cat").chmod(0o700)


def test_bad_pictures_stop_or_are_skipped(tmp_path: Path) -> None:
    there = photos(tmp_path, cat=7, dog=6)
    cut = tmp_path / "cat" / "3.png"
    cut.write_bytes(cut.read_bytes()[:-30])
    assert refused(tmp_path).startswith("/cat/3.png: ")
    (tmp_path / "cat" / "0.png").write_text("a text")  # for testing
    write(tmp_path / "dog" / "1.png", 6, 5, 3)
    (tmp_path / "dog" / "6.png").mkdir()
    (tmp_path / "dog" / "7.png").symlink_to("nowhere")
    line = "/cat/0.png: no picture, or of an unknown format; and 4 more; --skip-bad leaves them out"
    assert refused(tmp_path) == line
    data = load(tmp_path, skip_bad=True)
    train = ["cat/1.png", "cat/2.png", "cat/4.png", "cat/6.png"]
    train += ["dog/2.png", "dog/3.png", "dog/4.png"]
    test = ["cat/5.png", "dog/0.png", "dog/5.png"]  # which they are, whatever is bad
    same(data, [there[name] for name in train], [there[name] for name in test])
    np.testing.assert_array_equal(data.train.labels, [0] * 4 + [1] * 3)
    np.testing.assert_array_equal(data.test.labels, [0, 1, 1])
    assert data.skipped == 5


def test_a_class_of_bad_pictures_can_not_be_skipped(tmp_path: Path) -> None:
    photos(tmp_path, cat=3)
    (tmp_path / "dog").mkdir()
    for n in range(3):
        (tmp_path / "dog" / f"{n}.png").write_text("a text")
    line = refused(tmp_path, skip_bad=True)
    assert line.startswith(": of class 'dog', there are 0 to train on and 0 to test on that can be")
