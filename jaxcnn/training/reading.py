"""Pictures as people have them, made into what a model takes.

For a model that is used: whatever Pillow can read is made to fit. (Data to train on is read more
strictly: there, an odd picture is likely to be an error.)
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxcnn.training.stopping import RequestError

# The modes of more than 8 bits a pixel, all grey, and what is white in them. (Pillow itself makes
# colours of 16 bits into 8, and reads grey ones of 16 as "I" from some formats.)
DEEP = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I;16N": 65535, "I": 65535, "F": 1}


def read(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture as a model takes it.

    It is turned upright as its EXIF data says, laid over white where it is transparent, made grey
    or RGB, and resized, bilinearly with antialiasing, whatever its proportions. Of a film, the
    first picture is read.

    Args:
        path: a file of any format and mode that Pillow reads.
        shape: height, width, and channels: 1, grey, or 3, RGB.

    Returns:
        `shape`, float32, from 0, black, to 1, white.

    Raises:
        RequestError: it can't be read; in a line with the path and the cause.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd files: they are read, or they are not
            with Image.open(path) as opened:
                return fit(ImageOps.exif_transpose(opened), shape)
    except Exception as error:  # of whatever kind: there are many decoders
        raise RequestError(f"{path}: {cause(error)}") from None


def fit(picture: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture of any mode and size as `(height, width, channels)`, from 0, black, to 1, white.

    Raises:
        ValueError: its pixels are floats, or integers of 32 bits, that are out of range.

    >>> fit(Image.new("CMYK", (20, 10), (0, 0, 0, 0)), (2, 1, 3))
    array([[[1., 1., 1.]],
    <BLANKLINE>
           [[1., 1., 1.]]], dtype=float32)
    """
    height, width, channels = shape
    if picture.mode in DEEP:
        white = DEEP[picture.mode]
        grey = np.asarray(picture, np.float32)
        low, high = float(grey.min()), float(grey.max())
        if not 0 <= low <= high <= white:  # or NaN
            raise ValueError(f"its pixels go from {low:g} to {high:g}, and not from 0 to {white}")
        picture = Image.fromarray(grey / white)
        scale = 1.0
    else:
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert("L" if channels == 1 else "RGB")
        scale = 255.0
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.float32).reshape(height, width, -1) / scale
    return np.broadcast_to(pixels, shape)  # a grey picture has all channels alike


def cause(error: Exception) -> str:
    """Why a picture can't be read, in a line."""
    if isinstance(error, UnidentifiedImageError):
        return "no picture, or of an unknown format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).splitlines() or [type(error).__name__])[0]
