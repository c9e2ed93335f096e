"""How an image becomes a network's input: resize, centre crop, normalise. No torch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trpexport.datasets.packages import require
from trpexport.errors import DataError
from trpexport.tensors import laid_out

if TYPE_CHECKING:
    from trpexport.datasets.splits import Split

_COLOURS = 3
_WITH_ALPHA = (2, 4)  # channels of grey and of colours with transparency
_IMAGE_RANK = 4
_PIXELS_LIMIT = 178_956_970  # of one image: Pillow opens none that is larger


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input.

    A checkpoint carries it in its metadata under ``preprocessing``, a bundle in its manifest.

    Attributes:
        mean: of each channel, for pixels in 0..1.
        std: standard deviation of each channel, likewise.
        size: (height, width) of the input, cut from the centre; None to take images as they are.
        resize: length in pixels of the shorter edge before the cut; None to leave it.

    Raises:
        DataError: the values make no sense.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int] | None = None
    resize: int | None = None

    def __post_init__(self) -> None:
        if not self.mean or len(self.mean) != len(self.std):
            fault = f"a mean of {len(self.mean)} channels and a std of {len(self.std)}"
        elif not all(map(np.isfinite, self.mean)):
            fault = f"a mean of {self.mean}"
        elif not all(0 < std < np.inf for std in self.std):
            fault = f"a std of {self.std}, which must be above 0"
        elif self.size is not None and not (len(self.size) == 2 and min(self.size) > 0):
            fault = f"a size of {self.size}, which must be a height and a width above 0"
        elif self.resize is not None and self.resize <= 0:
            fault = f"a resize of {self.resize}, which must be above 0"
        else:
            return
        raise DataError(f"the preprocessing has {fault}: correct it")

    def prepare(self, image: NDArray[Any]) -> NDArray[Any]:
        """Resize an image and cut out its centre, as torchvision does with Pillow's images.

        Args:
            image: (height, width, channels).

        Returns:
            (channels, height, width), as many channels as the mean has: see
            :func:`with_channels`.

        Raises:
            DataError: it is smaller than the cut.
            MissingDependencyError: Pillow, which resizes, is not installed.
        """
        planes = with_channels(image.transpose(2, 0, 1), len(self.mean))
        if self.resize is not None:
            planes = _resized(planes, self.resize)
        return np.ascontiguousarray(self._cut(planes))

    def prepare_split(
        self, split: Split, indices: Sequence[int] | NDArray[np.integer[Any]]
    ) -> NDArray[Any]:
        """Return some images of a split, resized and cut, (n, channels, height, width).

        They are decoded side by side, and only they; images in memory take a short cut.

        Args:
            split: where they come from.
            indices: their numbers, at least one.

        Raises:
            DataError: one can't be decoded, is smaller than the cut, or they differ in size.
        """
        images = split.in_memory()
        if images is not None and self.resize is None:
            chosen = with_channels(images[np.asarray(indices)], len(self.mean))
            return np.ascontiguousarray(self._cut(chosen))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            prepared = list(pool.map(lambda i: self.prepare(split.image(i)), map(int, indices)))
        shapes = sorted({image.shape for image in prepared})
        if len(shapes) > 1:
            (_, height, width), (_, other_height, other_width) = shapes[0], shapes[-1]
            raise DataError(
                f"images differ in size ({height}x{width} and {other_height}x{other_width}): give "
                "the preprocessing a size to cut out, and a resize before it"
            )
        return np.stack(prepared)

    def check_channels(self, channels: int) -> None:
        """Refuse images with another number of channels.

        Raises:
            DataError: they have.
        """
        if channels != len(self.mean):
            raise DataError(
                f"the images have {channels} channel{'s' if channels > 1 else ''}, the "
                f"preprocessing has a mean for {len(self.mean)}: give a mean and a std that fit",
                parameters=("mean", "std"),
            )

    def check_input(self, shape: Sequence[int | str], label: object) -> None:
        """Refuse a network whose input has another number of channels.

        Args:
            shape: of its input, batch first; one that is no image's passes.
            label: what the network is called.

        Raises:
            DataError: it has.
        """
        channels = len(self.mean)
        sizes = {size for size in (*shape[1:2], *shape[-1:]) if isinstance(size, int)}
        if len(shape) == _IMAGE_RANK and isinstance(shape[1], int) and channels not in sizes:
            wanted = min(sizes)
            raise DataError(
                f"{label} takes {wanted} channel{'s' if wanted > 1 else ''}, the preprocessing has "
                f"a mean for {channels}: give a mean and a std for {wanted}",
                parameters=("mean", "std"),
            )

    def conversion(self, channels: int) -> str | None:
        """Return what is done to images of so many channels to get those of the mean, or None."""
        wanted = len(self.mean)
        if channels == wanted:
            return None
        if channels in _WITH_ALPHA and wanted == channels - 1:
            return "transparency is dropped"
        if wanted == 1 and channels in (_COLOURS, _COLOURS + 1):
            return "colours become grey, as the network takes one channel"
        if wanted == _COLOURS and channels in (1, 2):
            return "grey images get three equal channels, as the network takes three"
        return None

    def normalise(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Scale pixels to 0..1, subtract the mean, divide by the standard deviation.

        Args:
            images: (n, channels, height, width), uint8; or float32, whose pixels are from 0 to 1.

        Raises:
            DataError: the images have another number of channels.
        """
        self.check_channels(images.shape[1])
        mean = np.asarray(self.mean, np.float32).reshape(1, -1, 1, 1)
        std = np.asarray(self.std, np.float32).reshape(1, -1, 1, 1)
        scaled = images.astype(np.float32)
        if images.dtype.kind != "f":
            scaled /= np.float32(255)
        result: NDArray[np.float32] = (scaled - mean) / std
        return result

    def inputs(self, images: NDArray[Any], shape: Sequence[int | str]) -> NDArray[np.float32]:
        """Normalise images and lay them out as a network takes them.

        Args:
            images: as for :meth:`normalise`.
            shape: the network's, batch first; names stand for sizes that are open.

        Returns:
            (n, channels, height, width); (n, height, width, channels) where the shape is of such.

        Raises:
            DataError: the images have another number of channels.
        """
        return laid_out(self.normalise(images), shape)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "size": None if self.size is None else list(self.size),
            "resize": self.resize,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], source: str) -> Preprocessing:
        """Read what :meth:`to_json` gave.

        Args:
            data: the JSON data.
            source: what it was read from, for the message.

        Raises:
            DataError: a field is missing or senseless.
        """
        try:
            mean, std = (tuple(float(v) for v in data[key]) for key in ("mean", "std"))
            size = data.get("size")
            resize = data.get("resize")
            if size is not None:
                height, width = (int(v) for v in size)
                size = (height, width)
            return cls(mean, std, size, None if resize is None else int(resize))
        except (DataError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise DataError(f"{source}: its preprocessing is damaged ({error})") from None

    def _cut(self, images: NDArray[Any]) -> NDArray[Any]:
        """Cut the centre out of images, (..., height, width)."""
        if self.size is None:
            return images
        height, width = images.shape[-2:]
        cut_height, cut_width = self.size
        if height < cut_height or width < cut_width:
            resized = "" if self.resize is None else f", even with its shorter edge {self.resize},"
            raise DataError(
                f"an image of {height}x{width}{resized} is smaller than the {cut_height}x"
                f"{cut_width} to cut out: use a larger resize or a smaller size"
            )
        # round, half to even, is what torchvision does.
        top, left = round((height - cut_height) / 2), round((width - cut_width) / 2)
        return images[..., top : top + cut_height, left : left + cut_width]


def with_channels(planes: NDArray[Any], wanted: int) -> NDArray[Any]:
    """Return images with another number of channels, where that is plain to do.

    Transparency is dropped, as torchvision does; colours become grey as Pillow makes them (ITU-R
    601), grey becomes three equal channels. Others are left for the caller to refuse.

    Args:
        planes: (..., channels, height, width).
        wanted: number of channels.
    """
    channels = planes.shape[-3]
    if channels != wanted and channels in _WITH_ALPHA:
        planes = planes[..., : channels - 1, :, :]
        channels -= 1
    if channels == _COLOURS and wanted == 1:
        return _grey(planes)
    if channels == 1 and wanted == _COLOURS:
        return np.repeat(planes, _COLOURS, axis=-3)
    return planes


def _grey(planes: NDArray[Any]) -> NDArray[Any]:
    red, green, blue = (planes[..., i, :, :] for i in range(_COLOURS))
    if planes.dtype.kind == "f":
        grey: NDArray[Any] = 0.299 * red + 0.587 * green + 0.114 * blue
    else:  # in the whole numbers that Pillow uses
        total = 19595 * red.astype(np.uint32) + 38470 * green.astype(np.uint32)
        grey = (total + 7471 * blue.astype(np.uint32) + 0x8000) >> 16
    return np.expand_dims(grey.astype(planes.dtype), -3)


def _resized(planes: NDArray[Any], shorter: int) -> NDArray[Any]:
    """Scale channels, (channels, height, width), so that their shorter edge has a length."""
    images = require("PIL.Image", "pillow", "resizing images")
    height, width = planes.shape[1:]
    if height < width:
        to = (shorter, int(shorter * width / height))
    else:
        to = (int(shorter * height / width), shorter)
    if math.prod(to) > _PIXELS_LIMIT:
        raise DataError(
            f"an image of {height}x{width} can't be resized to {to[0]}x{to[1]}: give a smaller "
            "resize, or cut the image beforehand"
        )
    resample = images.Resampling.BILINEAR  # which, in Pillow, filters against aliasing
    return np.stack([images.fromarray(p).resize(to[::-1], resample) for p in planes])


def unchanged(channels: int) -> Preprocessing:
    """Return what leaves pixels from 0 to 1, and floats that are input already, as they are."""
    return Preprocessing((0.0,) * channels, (1.0,) * channels)


# What the networks of torchvision were trained with.
IMAGENET = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
