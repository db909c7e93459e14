"""Where data come from: a name, an image folder, or a folder that Hugging Face `datasets` saved.

The named sets come from Hugging Face's hub, once: `datasets` keeps a copy in its cache. It is
needed for these and for what it saved, and not for digits and image folders.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from jaxcnn.training import folders, images
from jaxcnn.training.data import TESTS, Data, DataError, Watch, digits, every_fifth, unwatched
from jaxcnn.training.reading import cause

# On the hub: the set's name, and the columns of its pictures and labels.
HUB = {
    "mnist": ("ylecun/mnist", "image", "label"),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", "image", "label"),
    "cifar10": ("uoft-cs/cifar10", "img", "label"),
    "cifar100": ("uoft-cs/cifar100", "img", "fine_label"),
}
NAMES = ("digits", *HUB)


def load(data: str, *, skip_bad: bool = False, watch: Watch = unwatched) -> Data:
    """Reads labelled images into memory.

    Args:
        data: one of `NAMES`, or else the path of a folder: of images (`folders`), or what
            `save_to_disk` of a `datasets.Dataset` or `DatasetDict` wrote. (A folder that has such
            a name is to be given as `./mnist`.)
        skip_bad: whether to leave out the pictures that can't be read.
        watch: is told how many pictures were read, and of how many.

    Returns:
        Images of uint8, from 0 to 255; of the digits, float32 from 0 to 1.

    Raises:
        DataError: a ValueError that says in a line which file or set can't be used, and why.

    >>> load("digits").train.images.shape
    (1433, 28, 28, 1)
    """
    if data == "digits":
        return digits()
    if data in HUB:
        return named(data, skip_bad=skip_bad, watch=watch)
    if not os.path.exists(data):  # and not Path's, to which "" is the folder that we are in
        raise DataError(f"{data!r}: there is no such path, and the names are {', '.join(NAMES)}")
    path = Path(data)
    if not path.is_dir():
        raise DataError(f"{path}: it is no folder")
    if any((path / file).is_file() for file in ("dataset_dict.json", "dataset_info.json")):
        return saved(path, skip_bad=skip_bad, watch=watch)
    return folders.load(path, skip_bad=skip_bad, watch=watch)


def named(name: str, *, skip_bad: bool = False, watch: Watch = unwatched) -> Data:
    """Reads a set of `HUB`, from the cache or the hub. Arguments and errors as of `load`."""
    datasets = import_datasets(name)
    repository, *columns = HUB[name]
    try:
        splits = datasets.load_dataset(repository)
        splits = {split: each.select_columns(columns) for split, each in splits.items()}
    except ConnectionError:
        config = datasets.config
        missing = (
            "HF_HUB_OFFLINE is set"
            if config.HF_HUB_OFFLINE
            else f"no answer at {config.HF_ENDPOINT}"
        )
        where = f"{missing}, and it is not in the cache at {config.HF_DATASETS_CACHE}"
        raise DataError(f"{name}: {repository} can't be loaded: {where}") from None
    except datasets.exceptions.DatasetGenerationError as error:  # which has the cause behind it
        reason = cause(error.__cause__ if isinstance(error.__cause__, Exception) else error)
        raise DataError(f"{name}: {repository} can't be loaded: {reason}") from None
    except Exception as error:  # of whatever kind: the hub's, a disk's, a decoder's
        raise DataError(f"{name}: {repository} can't be loaded: {cause(error)}") from None
    return labelled(name, datasets, splits, skip_bad=skip_bad, watch=watch)


def saved(path: Path, *, skip_bad: bool = False, watch: Watch = unwatched) -> Data:
    """Reads what `save_to_disk` wrote. Arguments and errors as of `load`.

    Of a `DatasetDict`, the splits are train, and test or one of the other `TESTS`. Where there is
    none to test on, it is every fifth image of each class.
    """
    datasets = import_datasets(str(path))
    try:
        found = datasets.load_from_disk(str(path.absolute()))
    except Exception as error:  # of whatever kind: a file system's, JSON's, Arrow's
        message = f"{type(error).__name__}: {cause(error)}"
        raise DataError(f"{path}: `datasets` can't load it: {message}") from None
    splits = found if isinstance(found, datasets.DatasetDict) else {"train": found}
    return labelled(str(path), datasets, splits, skip_bad=skip_bad, watch=watch)


def import_datasets(place: str) -> ModuleType:
    """The package, which takes a second to import; from now on it shows no bars and no warnings."""
    try:
        import datasets
        import huggingface_hub
    except ImportError:
        raise DataError(
            f"{place}: `datasets` is not installed: pip install 'jaxcnn[data]'"
        ) from None
    datasets.disable_progress_bars()
    huggingface_hub.utils.disable_progress_bars()
    for package in ("datasets", "huggingface_hub"):
        logging.getLogger(package).setLevel(logging.CRITICAL)  # what is wrong, an exception says
    return datasets


def labelled(
    place: str,
    datasets: ModuleType,
    splits: Mapping[str, Any],
    *,
    skip_bad: bool = False,
    watch: Watch = unwatched,
) -> Data:
    """Reads the pictures and labels of the splits, which it finds by the types of the columns."""
    if "train" not in splits:
        raise DataError(f"{place}: none of its splits ({', '.join(splits)}) is called train")
    test_name = next((name for name in TESTS if name in splits), None)
    column, labels, classes = columns(f"{place} train", datasets, splits["train"])
    if test_name is None:
        is_test = every_fifth(labels)
        parts = [("train", column, np.flatnonzero(is_test == part)) for part in (False, True)]
        train, test = labels[~is_test], labels[is_test]
    else:
        train = labels
        test_column, test, others = columns(f"{place} {test_name}", datasets, splits[test_name])
        if others != classes:
            raise DataError(f"{place}: train and {test_name} have not the same classes")
        parts = [
            ("train", column, np.arange(len(train))),
            (test_name, test_column, np.arange(len(test))),
        ]

    def picture(n: int) -> tuple[str, Path | bytes]:
        split, column, rows = parts[n >= len(train)]
        row = int(rows[n - len(train) if n >= len(train) else n])
        file = column[row].as_py() or {"path": None, "bytes": None}
        called = f" ({file['path']})" if file["path"] else ""
        source = file["bytes"]
        if source is None:
            source = Path(file["path"]) if file["path"] else b""
        return f"{place} {split}[{row}]{called}", source

    return images.read(place, picture, train, test, classes, skip_bad=skip_bad, watch=watch)


def columns(
    place: str, datasets: ModuleType, dataset: Any
) -> tuple[Any, np.ndarray, tuple[str, ...]]:
    """The pictures of a `datasets.Dataset` (files not decoded, in Arrow), labels and classes."""
    image = the_column(place, dataset.features, datasets.Image)
    label = the_column(place, dataset.features, datasets.ClassLabel)
    classes = tuple(dataset.features[label].names)
    try:
        # In the format of Arrow, a picture is what was stored: a file's path, its bytes, or both.
        table = dataset.select_columns([image, label]).with_format("arrow")[:]
        table.validate(full=True)
    except Exception as error:  # Arrow's, of a damaged file
        raise DataError(f"{place}: {cause(error)}") from None
    labels = table[label].fill_null(-1).to_numpy()
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        raise DataError(f"{place}[{wrong[0]}]: it has no label, or none of the {len(classes)}")
    return table[image], labels, classes


def the_column(place: str, features: Mapping[str, Any], kind: type) -> str:
    """The name of the only column of a type."""
    found = [name for name, feature in features.items() if isinstance(feature, kind)]
    if len(found) != 1:
        there = f"columns {', '.join(found)} are" if found else "no column is"
        raise DataError(f"{place}: {there} of type {kind.__name__}, and there must be one")
    return found[0]
