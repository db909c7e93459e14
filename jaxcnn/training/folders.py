"""Image folders: one folder for each class, with the PNG and JPEG files of that class in it.

    photos/cat/1.png                 photos/train/cat/1.png
    photos/cat/2.jpg       or        photos/train/dog/2.jpg
    photos/dog/1.png                 photos/test/cat/9.png    (or val, valid, validation)

Names that begin with a dot and files of other kinds are left out, links are followed, and the
classes are in the order of their names.
"""

import os
from pathlib import Path

import numpy as np

from jaxcnn.training import images
from jaxcnn.training.data import TESTS, Data, DataError, Watch, every_fifth, unwatched

SUFFIXES = (".png", ".jpg", ".jpeg")  # or in capitals


def load(root: Path, *, skip_bad: bool = False, watch: Watch = unwatched) -> Data:
    """Reads an image folder.

    Without a folder for testing, every fifth image of each class is for testing.

    Args:
        root: the folder.
        skip_bad: whether to leave out the pictures that can't be read.
        watch: is told how many were read, and of how many.

    Returns:
        Images of uint8, from 0 to 255.

    Raises:
        DataError: in a line, which file or folder can't be used, and why.
    """
    if [path.name for path in visible(root) if path.is_dir()] == ["train"]:
        root = root / "train"
    tested = next((root / name for name in TESTS if (root / name).is_dir()), None)
    if tested and (root / "train").is_dir():
        train, test = classes_in(root / "train"), classes_in(tested)
        for one, other, where in ((train, test, tested), (test, train, root / "train")):
            for name in one:
                if name not in other:
                    raise DataError(f"{where}: there is no class {name!r}")
        pictures, labels = flat(train)
        tests, test_labels = flat(test)
    else:
        train = classes_in(root)
        every, of = flat(train)
        is_test = every_fifth(of)
        pictures = [path for path, no in zip(every, is_test, strict=True) if not no]
        tests = [path for path, yes in zip(every, is_test, strict=True) if yes]
        labels, test_labels = of[~is_test], of[is_test]
    paths = pictures + tests
    return images.read(
        str(root),
        lambda n: (str(paths[n]), paths[n]),
        labels,
        test_labels,
        tuple(os.fsencode(name).decode(errors="replace") for name in train),
        skip_bad=skip_bad,
        watch=watch,
    )


def classes_in(folder: Path) -> dict[str, list[Path]]:
    """The pictures of each class, in the order of their names.

    Raises:
        DataError: there is no class, or nothing in one.
    """
    classes = {path.name: pictures_in(path) for path in visible(folder) if path.is_dir()}
    if not classes:
        loose = " (but pictures)" if pictures_in(folder) else ""
        raise DataError(f"{folder}: there is no folder for a class in it{loose}")
    for name, pictures in classes.items():
        if not pictures:
            raise DataError(f"{folder / name}: there is no PNG or JPEG file of this class in it")
    return classes


def pictures_in(folder: Path) -> list[Path]:
    # Whether each is a file shows when it is read: a link to nowhere is not to be passed over.
    return [path for path in visible(folder) if path.suffix.lower() in SUFFIXES]


def visible(folder: Path) -> list[Path]:
    """What is in a folder, sorted, without hidden files."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror}") from None


def flat(classes: dict[str, list[Path]]) -> tuple[list[Path], np.ndarray]:
    """All pictures, and the number of the class of each."""
    paths = [path for pictures in classes.values() for path in pictures]
    return paths, np.repeat(np.arange(len(classes)), [len(each) for each in classes.values()])
