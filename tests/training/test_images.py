"""Decoding: the pixels are those that were written, and what is wrong with a file is said."""

import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jaxcnn.training import images
from jaxcnn.training.data import DataError
from jaxcnn.training.images import decode, decode_all, read

RNG = np.random.default_rng(0)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, np.uint8)


def encoded(pixels: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def converted(mode: str, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(noise(4, 5, 3)).convert(mode).save(file, format)
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("from_file", [True, False])
def test_pixels_are_those_that_were_written(channels: int, from_file: bool, tmp_path: Path) -> None:
    pixels = noise(6, 5, channels)
    written = encoded(pixels.squeeze(-1) if channels == 1 else pixels)
    (tmp_path / "a.png").write_bytes(written)
    found = decode(tmp_path / "a.png" if from_file else written)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels)


def test_black_and_white_is_0_and_255() -> None:
    bits = noise(6, 5) > 127
    np.testing.assert_array_equal(decode(encoded(bits))[..., 0], np.where(bits, 255, 0))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_is_close_to_what_was_written(channels: int) -> None:
    rows, columns = np.mgrid[:16, :24]
    smooth = np.stack([5 * rows, 6 * columns, 255 - 5 * rows], -1)[..., :channels].astype(np.uint8)
    source = encoded(smooth.squeeze(-1) if channels == 1 else smooth, "JPEG", quality=95)
    assert np.abs(decode(source).astype(int) - smooth).max() <= 12


def test_a_picture_is_turned_upright() -> None:
    pixels, exif = noise(4, 6, 3), Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    np.testing.assert_array_equal(decode(encoded(pixels, exif=exif)), np.rot90(pixels, -1))


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "I;16", "CMYK"])
def test_a_wrong_mode_is_named(mode: str) -> None:
    source = converted("RGB", "PNG")
    if mode == "I;16":
        source = encoded(np.arange(20, dtype=np.uint16).reshape(4, 5))
    else:
        source = converted(mode, "JPEG" if mode == "CMYK" else "PNG")
    with pytest.raises(DataError, match=f"^mode {mode}: convert it to RGB or L$"):
        decode(source)


def test_a_transparent_colour_is_a_wrong_mode_too() -> None:
    with pytest.raises(DataError, match=r"^mode RGB with transparency: convert it"):
        decode(encoded(noise(4, 5, 3), transparency=(1, 2, 3)))


PNG, JPEG = encoded(noise(30, 30, 3)), encoded(noise(30, 30, 3), "JPEG")


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        (PNG[:-100], "truncated"),
        (PNG[:2000], "truncated"),
        (JPEG[:-100], "truncated"),
        (JPEG[:200], "Truncated"),
        (PNG[:20], "."),
        (PNG[:200] + bytes(300) + PNG[500:], "."),
        (b"", "no picture"),
        (b"a text", "no picture"),
    ],
)
def test_damaged_bytes_are_an_error_in_a_line(source: bytes, cause: str) -> None:
    with pytest.raises(DataError, match=cause) as raised:
        decode(source)
    assert len(str(raised.value).splitlines()) == 1


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    for name, cause in (
        ("folder.png", "it is no file"),
        ("missing.png", "No such file"),
        ("loop.png", "Too many levels"),
    ):
        with pytest.raises(DataError, match=cause):
            decode(tmp_path / name)


def test_many_are_in_their_order_and_each_thread_has_some() -> None:
    pixels, threads, seen = noise(300, 6, 5, 3), set(), []
    everyone = threading.Barrier(2)  # which one thread alone would not pass

    def picture(n: int) -> tuple[str, bytes]:
        if n in (100, 200):
            everyone.wait(timeout=10)
        threads.add(threading.get_ident())
        return str(n), encoded(pixels[n])

    found, kept = decode_all(300, picture, watch=lambda *numbers: seen.append(numbers))
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(kept, np.arange(300))
    assert len(threads) > 1
    assert seen[-1] == (300, 300)
    assert seen == sorted(set(seen))


def some(sources: dict[str, bytes], **options: Any) -> tuple[np.ndarray, np.ndarray]:
    listed = list(sources.items())
    return decode_all(len(listed), listed.__getitem__, **options)


def test_the_first_bad_one_by_name_is_named_and_the_others_counted() -> None:
    good = {f"{n}.png": encoded(noise(3, 4, 3)) for n in range(100)}
    bad = {"z.png": b"no", "b.png": encoded(noise(4, 3, 3)), "c.png": encoded(noise(3, 4))}
    line = "^b.png: it is 3x4 RGB, and most are 4x3 RGB; and 2 more; --skip-bad leaves them out$"
    with pytest.raises(DataError, match=line):
        some(good | bad)
    line = "^c.png: it is 4x3 grey, and most are 4x3 RGB; --skip-bad leaves it out$"
    with pytest.raises(DataError, match=line):
        some(good | {"c.png": bad["c.png"]})


def test_bad_ones_are_left_out() -> None:
    pixels = noise(150, 3, 4, 3)
    sources = {str(n): encoded(each) for n, each in enumerate(pixels)}
    sources |= {"0": b"no", "70": encoded(noise(4, 4, 3)), "149": converted("RGBA")}
    found, kept = some(sources, skip_bad=True)
    good = [n for n in range(150) if n not in (0, 70, 149)]
    np.testing.assert_array_equal(kept, good)
    np.testing.assert_array_equal(found, pixels[good])


def test_the_shape_is_that_of_most_and_not_of_the_first() -> None:
    pixels = noise(80, 4, 4, 1)
    sources = {"first": encoded(noise(5, 5)), "second": encoded(noise(5, 5))}
    sources |= {str(n): encoded(each[..., 0]) for n, each in enumerate(pixels)}
    with pytest.raises(DataError, match=r"^first: it is 5x5 grey, and most are 4x4 grey; and 1 mo"):
        some(sources)
    found, kept = some(sources, skip_bad=True)
    np.testing.assert_array_equal(found, pixels)
    np.testing.assert_array_equal(kept, np.arange(2, 82))


def test_none_that_can_be_read_is_an_error_always() -> None:
    with pytest.raises(DataError, match=r"^a: no picture, or of an unknown format; and 1 more$"):
        some({"b": b"", "a": b""}, skip_bad=True)


def test_pictures_that_do_not_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*args: Any) -> np.ndarray:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(images.np, "empty", short)
        with pytest.raises(
            DataError, match=r"^2000 pictures of 1024x1024 RGB need 6 GiB of memory"
        ):
            images.allocate(2000, (1024, 1024, 3))


def test_an_interruption_does_not_wait_for_the_rest() -> None:
    begun = []

    def picture(n: int) -> tuple[str, bytes]:
        begun.append(n)
        return str(n), PNG

    def watch(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        decode_all(10**4, picture, watch=watch)
    assert len(begun) < 5000


def test_splits_share_an_array_and_count_what_was_skipped() -> None:
    pixels = noise(6, 3, 3, 1)
    sources = [(str(n), encoded(each[..., 0])) for n, each in enumerate(pixels)]
    sources[1] = ("1", b"no")
    labels = np.array([0, 1, 1, 0]), np.array([1, 0])
    data = read("here", sources.__getitem__, *labels, ("a", "b"), skip_bad=True)
    np.testing.assert_array_equal(data.train.images, pixels[[0, 2, 3]])
    np.testing.assert_array_equal(data.train.labels, [0, 1, 0])
    np.testing.assert_array_equal(data.test.images, pixels[[4, 5]])
    np.testing.assert_array_equal(data.test.labels, [1, 0])
    assert data.train.labels.dtype == data.test.labels.dtype == np.int32
    assert data.train.images.base is data.test.images.base is not None
    assert data.skipped == 1
    sources[2] = ("2", b"no")
    line = "^here: of class 'b', there are 0 to train on and 1 to test on that can be read"
    with pytest.raises(DataError, match=line):
        read("here", sources.__getitem__, *labels, ("a", "b"), skip_bad=True)
