"""Every kind of image file becomes RGB."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.datasets.picturing import encoded, pixels
from trpexport.datasets.decoding import decode
from trpexport.errors import DataError

PIXELS = pixels(0, 6, 5)
GREY = PIXELS[..., 0]


@pytest.mark.parametrize("kind", ["png", "bmp", "ppm", "tiff", "webp"])
def test_lossless_formats(kind: str) -> None:
    options = {"lossless": True} if kind == "webp" else {}
    decoded = decode(encoded(PIXELS, kind, **options), "x")
    np.testing.assert_array_equal(decoded, PIXELS)
    assert decoded.flags.writeable


def test_jpeg() -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    for image in (Image.fromarray(flat), Image.fromarray(flat).convert("CMYK")):
        np.testing.assert_allclose(decode(encoded(image, "jpeg", quality=100), "x"), flat, atol=3)


@pytest.mark.parametrize("kind", ["png", "jpeg", "ppm", "bmp"])
def test_grey_gets_three_equal_channels(kind: str) -> None:
    decoded = decode(encoded(np.full((8, 8), 77, np.uint8), kind), "x")
    np.testing.assert_array_equal(decoded, np.full((8, 8, 3), 77))


@pytest.mark.parametrize("kind", ["png", "ppm", "tiff"])
def test_of_16_bits_the_upper_8_are_kept(kind: str) -> None:
    values = np.array([[0, 255, 256], [0x1234, 0x8000, 0xFFFF]], np.uint16)
    decoded = decode(encoded(values, kind), "x")
    np.testing.assert_array_equal(decoded[..., 0], [[0, 0, 1], [0x12, 0x80, 0xFF]])


def test_transparency_is_dropped() -> None:
    alpha = np.dstack([PIXELS, np.zeros((6, 5), np.uint8)])
    np.testing.assert_array_equal(decode(encoded(alpha), "x"), PIXELS)
    grey_alpha = np.dstack([GREY, GREY])
    np.testing.assert_array_equal(decode(encoded(grey_alpha), "x")[..., 2], GREY)


@pytest.mark.parametrize("options", [{}, {"transparency": 3}, {"transparency": bytes(range(64))}])
def test_palettes(options: dict[str, Any]) -> None:
    image = Image.fromarray(PIXELS).quantize(64)
    decoded = decode(encoded(image, **options), "x")
    np.testing.assert_array_equal(decoded, np.asarray(image.convert("RGB")))


def test_black_and_white() -> None:
    image = Image.fromarray(GREY).convert("1")
    assert set(np.unique(decode(encoded(image), "x"))) == {0, 255}


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, PIXELS),
        (2, PIXELS[:, ::-1]),
        (3, PIXELS[::-1, ::-1]),
        (4, PIXELS[::-1]),
        (5, PIXELS.transpose(1, 0, 2)),
        (6, np.rot90(PIXELS, -1)),
        (8, np.rot90(PIXELS, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_exif_orientation(kind: str, orientation: int, upright: Any) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(decode(encoded(PIXELS, kind, exif=exif), "x"), upright)


def test_damaged_exif_is_no_matter() -> None:
    decoded = decode(encoded(PIXELS, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f"), "x")
    np.testing.assert_array_equal(decoded, PIXELS)


def test_the_first_frame_of_an_animation() -> None:
    buffer = io.BytesIO()
    frames = [Image.fromarray(np.full((4, 4, 3), value, np.uint8)) for value in (0, 255)]
    frames[0].save(buffer, "gif", save_all=True, append_images=frames[1:])
    assert decode(buffer.getvalue(), "x").max() == 0


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it is empty"),
        (b"GIF87", "no known image format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n", "no known image format"),
        (encoded(PIXELS)[:60], "can't be decoded"),
        (encoded(np.zeros((2, 2), np.float32), "tiff"), "floating-point"),
    ],
)
def test_what_can_not_be_decoded(data: bytes, why: str) -> None:
    with pytest.raises(DataError, match=r"^in/x \.jpg can't be decoded") as caught:
        decode(data, "in/x\n.jpg")
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_damaged_byte_gives_an_image_or_one_line() -> None:
    whole = encoded(PIXELS, "jpeg")
    for at in range(0, len(whole), 7):
        data = bytearray(whole)
        data[at] ^= 0xFF
        try:
            assert decode(bytes(data), "x").ndim == 3
        except DataError as error:
            assert "\n" not in str(error)


def png_that_says(width: int, height: int) -> bytes:
    """Return a small image whose header claims a size."""
    data = bytearray(encoded(PIXELS))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(13_000, 13_000), (1, 100_000_000), (2**31 - 1, 2**31 - 1)])
def test_a_huge_image_is_refused_by_its_header(size: tuple[int, int]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="pixels"):
            decode(png_that_says(*size), "x")
        assert tracemalloc.get_traced_memory()[1] < 1 << 24
    finally:
        tracemalloc.stop()


def test_what_libtiff_says_of_damage_stays_off_the_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = bytearray(encoded(noise, "tiff", compression="tiff_lzw"))
    data[2000:2400] = bytes(byte ^ 0x5A for byte in data[2000:2400])
    with pytest.raises(DataError, match="can't be decoded"):
        decode(bytes(data), "x")
    assert capfd.readouterr() == ("", "")
