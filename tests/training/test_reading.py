"""Pictures of every mode become what they show, and files that are none are named in a line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxcnn.training.reading import fit, read
from jaxcnn.training.stopping import RequestError

# 2 by 3 pixels: black, white, greys.
GREY = np.array([[0, 255, 51], [102, 153, 204]], np.uint8)
RED = (255, 0, 0)
LUMA = 76 / 255  # of red


def written(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "LA", "I;16", "I", "F"])
def test_a_grey_picture_of_any_mode(tmp_path: Path, mode: str, channels: int) -> None:
    match mode:
        case "I;16":
            picture, suffix = Image.fromarray(GREY.astype(np.uint16) * 257), "png"
        case "I":
            picture, suffix = Image.fromarray(GREY.astype(np.int32) * 257), "tiff"
        case "F":
            picture, suffix = Image.fromarray(GREY.astype(np.float32) / 255), "tiff"
        case _:
            picture, suffix = Image.fromarray(GREY).convert(mode), "png"
    assert picture.mode == mode
    found = read(written(tmp_path / f"picture.{suffix}", picture), (2, 3, channels))
    assert (found.shape, found.dtype) == ((2, 3, channels), np.float32)
    for channel in np.moveaxis(found, -1, 0):
        np.testing.assert_allclose(channel, GREY / 255, atol=1e-6)


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA", "CMYK"])
def test_a_colour(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGB", (3, 2), RED).convert(mode)
    path = written(tmp_path / "picture.tiff", picture)
    np.testing.assert_allclose(read(path, (2, 3, 3)), np.broadcast_to((1, 0, 0), (2, 3, 3)))
    np.testing.assert_allclose(read(path, (2, 3, 1)), LUMA, atol=1 / 255)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    half = Image.new("RGBA", (3, 2), (*RED, 51))
    half.putpixel((0, 0), (0, 0, 0, 0))
    found = read(written(tmp_path / "half.png", half), (2, 3, 3))
    np.testing.assert_array_equal(found[0, 0], 1)
    np.testing.assert_allclose(found[1, 1], (1, 0.8, 0.8), atol=1 / 255)
    # A palette, and a grey picture, of which one colour is transparent.
    for name, picture in {"p": half.convert("RGB").quantize(4), "l": Image.fromarray(GREY)}.items():
        colour = picture.getpixel((1, 1))
        path = written(tmp_path / f"{name}.png", picture, transparency=colour)
        np.testing.assert_array_equal(read(path, (2, 3, 1))[1, 1], 1)


def test_black_and_white_of_a_bit(tmp_path: Path) -> None:
    bits = np.array([[True, False, True], [False, False, True]])
    path = written(tmp_path / "bits.png", Image.fromarray(bits))
    np.testing.assert_array_equal(read(path, (2, 3, 1))[..., 0], bits)


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by a quarter, clockwise
    path = written(tmp_path / "turned.png", Image.fromarray(GREY), exif=exif)
    np.testing.assert_allclose(read(path, (3, 2, 1))[..., 0], np.rot90(GREY, -1) / 255)


@pytest.mark.parametrize("deep", [False, True])
def test_a_picture_is_resized_with_antialiasing(deep: bool) -> None:
    # A chessboard of single pixels is an even grey from afar: without antialiasing it is none.
    board = (np.indices((64, 96)).sum(0) % 2).astype(np.float32)
    picture = Image.fromarray(board) if deep else Image.fromarray((255 * board).astype(np.uint8))
    found = fit(picture, (8, 6, 1))
    np.testing.assert_allclose(found[1:-1, 1:-1], 0.5, atol=0.02)
    assert found.shape == (8, 6, 1)


def test_a_ramp_enlarged_is_linear_between_the_pixels() -> None:
    ramp = np.array([[0, 255]], np.uint8)
    found = fit(Image.fromarray(ramp), (1, 8, 1))[0, :, 0]
    centres = (np.arange(8) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(found, np.interp(centres, [0, 1], [0, 1]), atol=1 / 255)


@pytest.mark.parametrize(
    ("pixels", "told"),
    [
        (
            np.array([[0, 70000]], np.int32),
            "its pixels go from 0 to 70000, and not from 0 to 65535",
        ),
        (np.array([[-1, 5]], np.int32), "its pixels go from -1 to 5"),
        (np.array([[0, 255]], np.float32), "its pixels go from 0 to 255, and not from 0 to 1"),
        (np.array([[0, np.nan]], np.float32), "its pixels go from nan to nan"),
    ],
)
def test_pixels_of_no_known_scale_are_refused(
    tmp_path: Path, pixels: np.ndarray, told: str
) -> None:
    path = written(tmp_path / "odd.tiff", Image.fromarray(pixels))
    with pytest.raises(RequestError) as refused:
        read(path, (2, 2, 1))
    assert str(refused.value).startswith(f"{path}: {told}")


def test_a_file_that_is_no_picture_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = written(tmp_path / "whole.png", Image.effect_noise((64, 64), 50))
    (tmp_path / "cut.png").write_bytes(whole.read_bytes()[:1000])
    (tmp_path / "text.png").write_text("three\n")
    (tmp_path / "empty.png").touch()
    told = {
        "cut.png": "",  # in Pillow's words
        "text.png": "no picture, or of an unknown format",
        "empty.png": "no picture, or of an unknown format",
        "nowhere.png": "No such file or directory",
        "": "Is a directory",
    }
    for name, why in told.items():
        with pytest.raises(RequestError) as refused:
            read(tmp_path / name, (2, 2, 1))
        (line,) = str(refused.value).splitlines()
        assert line.startswith(f"{tmp_path / name}: ")
        assert why in line
    read(whole, (2, 2, 1))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3000)  # more, and twice as many, are a warning
    read(whole, (2, 2, 1))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(RequestError, match=r"decompression bomb"):
        read(whole, (2, 2, 1))
