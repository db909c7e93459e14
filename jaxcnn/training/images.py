"""Pictures for training, decoded as they are: what is odd among them is likely to be an error.

(For a model that is used, `reading` makes whatever it is given fit.)

A picture is a file or its bytes. All pictures of a data set go into one array of uint8, which is
all the memory that they take: a thread decodes some into their rows while others do the same, for
Pillow and NumPy leave Python's lock alone where the work is.
"""

import io
import stat
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from jaxcnn.training.data import Data, DataError, Split, Watch, unwatched
from jaxcnn.training.reading import cause

THREADS = 4
TOGETHER = 64  # pictures, for a thread at a time: to hand out one costs as much as to decode it

Picture = Callable[[int], tuple[str, Path | bytes]]  # gives a number's picture, and a name for it
Shape = tuple[int, ...]  # (height, width, channels)


def decode(source: Path | bytes) -> np.ndarray:
    """A picture's pixels, turned upright as its EXIF data says.

    Args:
        source: a file, or what is in one, of any format that Pillow reads; grey or RGB.

    Returns:
        `(height, width, channels)`, uint8, with 1 channel for grey and 3 for RGB.

    Raises:
        DataError: it can't be decoded, or has another mode; the message is the cause alone.
    """
    try:
        if isinstance(source, Path) and not stat.S_ISREG(source.stat().st_mode):
            raise DataError("it is no file")  # but a folder, or a pipe, which would wait for ever
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as picture:
            if picture.mode not in ("1", "L", "RGB"):
                raise DataError(f"mode {picture.mode}: convert it to RGB or L")
            if picture.has_transparency_data:
                raise DataError(f"mode {picture.mode} with transparency: convert it to RGB or L")
            ImageOps.exif_transpose(picture, in_place=True)
            pixels = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
    except DataError:
        raise
    except Exception as error:  # of whatever kind: there are many decoders
        raise DataError(cause(error)) from None
    return pixels.reshape(*pixels.shape[:2], -1)


def decode_all(
    count: int, picture: Picture, *, skip_bad: bool = False, watch: Watch = unwatched
) -> tuple[np.ndarray, np.ndarray]:
    """The pixels of many pictures, all of the shape that most of them have.

    Args:
        count: how many there are.
        picture: gives each; called by several threads, and again if a first guess at the shape
            was wrong.
        skip_bad: whether to leave out those that can't be read or have another shape.
        watch: is told how many were read, and of how many, a few at a time.

    Returns:
        `(N, height, width, channels)`, uint8, and the numbers of these N pictures, ascending.

    Raises:
        DataError: names a picture that can't be used, the first in the order of their names, and
            says how many more there are. With `skip_bad`: none can be used, or memory is short.
    """

    def fill(rows: range) -> list[Shape | str]:
        """Decodes pictures into their rows; gives the shape of each, or why it has none."""
        found: list[Shape | str] = []
        for row in rows:
            try:
                image = decode(picture(row)[1])
            except DataError as error:
                found.append(str(error))
                continue
            found.append(image.shape)
            if image.shape == pixels.shape[1:]:
                pixels[row] = image
        return found

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd pictures: they are read, or they are not
        Image.init()  # all formats: Pillow loads the rarer ones on demand, which threads must not
        pixels = np.empty((0, 0, 0, 0), np.uint8)
        found = (fill(range(row, row + 1))[0] for row in range(count))
        shape = next((each for each in found if not isinstance(each, str)), (1, 1, 1))
        while True:
            pixels = allocate(count, shape)
            outcomes = in_threads(fill, count, watch)
            shapes = Counter(each for each in outcomes if not isinstance(each, str))
            usual = max(shapes, key=shapes.__getitem__, default=shape)  # of several, the first's
            if usual == shape:
                break
            shape = usual
    kept = np.array([n for n, each in enumerate(outcomes) if each == shape], int)
    if len(kept) == count:
        return pixels, kept
    if not skip_bad or not len(kept):
        raise DataError(complaint(outcomes, picture, shape, skip_bad))
    for row, n in enumerate(kept):
        pixels[row] = pixels[n]
    return pixels[: len(kept)], kept


def allocate(count: int, shape: Shape) -> np.ndarray:
    try:
        return np.empty((count, *shape), np.uint8)
    except MemoryError:
        size = count * np.prod(shape, dtype=float) / 2**30
        message = f"{count} pictures of {words(shape)} need {size:.0f} GiB of memory"
        raise DataError(f"{message}, which is not there: make them smaller") from None


def in_threads(
    fill: Callable[[range], list[Shape | str]], count: int, watch: Watch
) -> list[Shape | str]:
    """What `fill` returns for all numbers below `count`, in their order."""
    parts = [range(n, min(n + TOGETHER, count)) for n in range(0, count, TOGETHER)]
    outcomes: list[Shape | str] = []
    pool = ThreadPoolExecutor(THREADS)
    try:
        for some in pool.map(fill, parts):
            outcomes += some
            watch(len(outcomes), count)
    finally:
        pool.shutdown(cancel_futures=True)  # at Ctrl-C, nobody waits for the rest
    return outcomes


def complaint(outcomes: list[Shape | str], picture: Picture, usual: Shape, skip_bad: bool) -> str:
    """The line that names the first picture that can't be used, and counts the others."""
    bad = []
    for n, found in enumerate(outcomes):
        if isinstance(found, str):
            bad.append((picture(n)[0], found))
        elif found != usual:
            bad.append((picture(n)[0], f"it is {words(found)}, and most are {words(usual)}"))
    (name, reason), *others = sorted(bad)
    line = f"{name}: {reason}"
    if others:
        line += f"; and {len(others)} more"
    if not skip_bad:
        line += f"; --skip-bad leaves {'them' if others else 'it'} out"
    return line


def words(shape: Shape) -> str:
    """A shape for people.

    >>> words((28, 30, 3))
    '30x28 RGB'
    """
    height, width, channels = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"


def read(
    place: str,
    picture: Picture,
    train: np.ndarray,
    test: np.ndarray,
    classes: tuple[str, ...],
    *,
    skip_bad: bool = False,
    watch: Watch = unwatched,
) -> Data:
    """Decodes the pictures of both splits, which share one array.

    Args:
        place: where the data are from, for messages.
        picture: gives each: those to train on, and then those to test on.
        train: the labels of the ones, `(N,)`, integers.
        test: the labels of the others.
        classes: their names.
        skip_bad, watch: as of `decode_all`.

    Raises:
        DataError: as `decode_all`; or a split has no picture of a class.
    """
    if len(classes) < 2:
        there = f"only {classes[0]!r}" if classes else "none"
        raise DataError(f"{place}: there must be two classes at least, and there is {there}")
    labels = np.concatenate([train, test]).astype(np.int32)
    is_train = np.arange(len(labels)) < len(train)
    check(place, labels, is_train, classes, "")
    images, kept = decode_all(len(labels), picture, skip_bad=skip_bad, watch=watch)
    labels, skipped = labels[kept], len(labels) - len(kept)
    check(place, labels, is_train[kept], classes, " that can be read")
    end = int(is_train[kept].sum())
    return Data(
        Split(images[:end], labels[:end]), Split(images[end:], labels[end:]), classes, skipped
    )


def check(
    place: str, labels: np.ndarray, is_train: np.ndarray, classes: tuple[str, ...], which: str
) -> None:
    """Raises DataError for a class that has nothing to train on, or nothing to test on."""
    train, test = (np.bincount(labels[of], minlength=len(classes)) for of in (is_train, ~is_train))
    for name, to_train, to_test in zip(classes, train, test, strict=True):
        if not (to_train and to_test):
            there = f"{to_train} to train on and {to_test} to test on"
            raise DataError(f"{place}: of class {name!r}, there are {there}{which}: each needs one")
