"""Decoding image files with Pillow."""

from __future__ import annotations

import io
import logging
import os
from abc import abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.locations import reason
from trpexport.datasets.packages import require
from trpexport.datasets.splits import Split
from trpexport.errors import DataError
from trpexport.text import printable

if TYPE_CHECKING:
    from PIL.Image import Image

# Not all that Pillow can open: its EPS plugin, for one, runs Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "PPM", "TIFF", "GIF")
SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".pbm", ".pnm"),
    *(".tif", ".tiff", ".gif"),
)
_DECODED_LIMIT = 1 << 30
_DECODED_AT_ONCE = 256
_MAX_PIXELS = 89_478_485  # of an image: from where on Pillow warns; 256 MiB in RGB
_ORIENTATION = 0x0112  # the EXIF tag


class EncodedSplit(Split):
    """Image files, decoded when they are asked for.

    Args:
        labels: class numbers, (n,).
    """

    def __init__(self, labels: NDArray[np.int64]) -> None:
        self.labels = labels
        self._decoded: NDArray[np.uint8] | None = None
        self._tried = False
        self._remarks: set[str] = set()

    @abstractmethod
    def encoded(self, index: int) -> tuple[bytes, str]:
        """Return the bytes of an image file, and what to call it in a message.

        Raises:
            DataError: it can't be read.
        """

    def image(self, index: int) -> NDArray[np.uint8]:
        """Return one image, (height, width, 3)."""
        if self._decoded is not None:
            return np.ascontiguousarray(self._decoded[index].transpose(1, 2, 0))
        return decode(*self.encoded(index), self._remarks.add)

    def remarks(self) -> tuple[str, ...]:
        """Return what was done to images on decoding them."""
        return tuple(sorted(self._remarks))

    def arrays(self) -> NDArray[np.uint8] | None:
        """Return all images, (n, 3, height, width), if of one size and together at most 1 GiB."""
        if not self._tried:
            self._decoded = _decode_all(len(self), self.image)
            self._tried = True
        return self._decoded

    def in_memory(self) -> NDArray[np.uint8] | None:
        """Return what :meth:`arrays` returned, else None."""
        return self._decoded

    def __getstate__(self) -> dict[str, Any]:
        # For another process the files are enough.
        return self.__dict__ | {"_decoded": None, "_tried": False}


def decode(
    data: bytes, name: str, remark: Callable[[str], None] = lambda text: None
) -> NDArray[np.uint8]:
    """Decode an image to RGB, (height, width, 3), turned upright as its EXIF orientation says.

    Grey images get three equal channels; transparency is dropped, as torchvision does; of 16 bits
    the upper 8 are kept; of an animation the first frame.

    Args:
        data: the bytes of the file.
        name: of the file, for the message.
        remark: is told what was changed that a user may not expect, in a few words.

    Raises:
        DataError: it can't be decoded.
        MissingDependencyError: Pillow is not installed.
    """
    images = require("PIL.Image", "pillow", "decoding images")
    try:
        with images.open(io.BytesIO(data), formats=_known_formats()) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(
                    f"it has {image.width}x{image.height} pixels, and over {_MAX_PIXELS:,} are not "
                    "decoded; scale it down"
                )
            return np.array(_rgb(_upright(image), remark))
    except images.UnidentifiedImageError as error:
        raise _undecodable(name, "no known image format" if data else "it is empty") from error
    except Exception as error:  # a damaged file fails in any way: SyntaxError, struct.error...
        raise _undecodable(name, reason(error)) from error


@cache
def _known_formats() -> tuple[str, ...]:
    images = require("PIL.Image", "pillow", "decoding images")
    images.init()
    _silence(images.core)
    return tuple(name for name in _FORMATS if name in images.OPEN)  # WebP may be left out


def _silence(pillow: Any) -> None:
    """Keep what Pillow and libtiff say of a damaged image off the terminal: it becomes an error."""
    import ctypes

    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with suppress(OSError, AttributeError):  # a build without libtiff, or with one that hides
        library = ctypes.CDLL(pillow.__file__)  # in which the libraries that it needs are found
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def _undecodable(name: str, why: str) -> DataError:
    return DataError(f"{printable(name)} can't be decoded ({why}): replace or delete it")


def _decode_all(
    count: int, decoded: Callable[[int], NDArray[np.uint8]]
) -> NDArray[np.uint8] | None:
    """Decode images side by side; None where sizes differ or the memory limit is exceeded."""
    first = decoded(0)
    if count * first.nbytes > _DECODED_LIMIT:
        return None
    height, width, channels = first.shape
    images = np.empty((count, channels, height, width), np.uint8)

    def fill(start: int) -> bool:
        for index in range(start, min(start + _DECODED_AT_ONCE, count)):
            image = decoded(index)
            if image.shape != first.shape:
                return False
            images[index] = image.transpose(2, 0, 1)
        return True

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            return images if all(pool.map(fill, range(0, count, _DECODED_AT_ONCE))) else None
        finally:
            pool.shutdown(cancel_futures=True)


def _upright(image: Image) -> Image:
    if "exif" not in image.info:
        return image
    from PIL import ImageOps

    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
    except Exception:  # damaged EXIF data is no reason to refuse the image
        return image
    return ImageOps.exif_transpose(image) if turned else image


def _rgb(image: Image, remark: Callable[[str], None]) -> Image:
    from PIL.Image import fromarray

    if "transparency" in image.info or image.mode.lower() in ("la", "pa", "rgba"):
        remark("transparency is dropped")
    if image.mode == "CMYK":
        remark("CMYK becomes RGB")
    if image.mode in ("La", "RGBa"):  # colours times transparency
        image = image.convert(f"{image.mode[:-1]}A")
    if image.mode.startswith("I"):  # 16 bits grey, which convert would clip at 255
        remark("of 16 bits the upper 8 are kept")
        upper = np.clip(np.asarray(image), 0, 0xFFFF) >> 8
        image = fromarray(upper.astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # what Pillow asks for, in a warning
    return image if image.mode == "RGB" else image.convert("RGB")
