"""Random changes to training images that leave the class as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from trpexport.datasets.packages import require

_CROP_TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """Shift and mirror the images of a batch, each on its own.

    Attributes:
        shift: each image is cut at a random place from one padded by so many black pixels.
        mirror: mirror every other image, left to right.
    """

    shift: int
    mirror: bool

    @classmethod
    def for_images(cls, height: int, mirror: bool) -> Augmentation:
        """Return the usual one: a shift of an eighth of the height, 4 pixels for CIFAR."""
        return cls(shift=height // 8, mirror=mirror)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Return changed images.

        Args:
            images: (n, channels, height, width), any dtype, on any device.
            generator: where the random numbers come from; on the CPU.
        """
        n, _, height, width = images.shape
        offsets = torch.randint(0, 2 * self.shift + 1, (2, n), generator=generator)
        mirrored = torch.rand(n, generator=generator) < 0.5
        dy, dx = offsets.to(images.device, non_blocking=True)  # the device must not run dry
        rows = dy[:, None] + torch.arange(height, device=images.device)
        columns = torch.arange(width, device=images.device).expand(n, width)
        if self.mirror:
            flip = mirrored.to(images.device, non_blocking=True)[:, None]
            columns = torch.where(flip, columns.flip(1), columns)
        columns = dx[:, None] + columns
        padded = pad(images, (self.shift,) * 4)
        batch = torch.arange(n, device=images.device)[:, None, None]
        # Indexing around a slice puts the channels last: (n, height, width, channels).
        return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@dataclass(frozen=True)
class RandomResizedCrop:
    """Cut out a part of an image at random and resize it, as Inception was trained.

    Szegedy et al., "Going deeper with convolutions" (arXiv 1409.4842), section 6, in the form of
    torchvision's transform of the same name, on Pillow's images.

    Attributes:
        size: (height, width) of what comes out, in pixels.
        mirror: mirror every other image, left to right.
        area: share of the image's area that is cut out, from, to.
        ratio: width / height of what is cut out, from, to.
    """

    size: tuple[int, int]
    mirror: bool
    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(
        self, image: NDArray[np.uint8], generator: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Return a changed image.

        Args:
            image: (height, width, channels).
            generator: where the random numbers come from.

        Returns:
            (channels, height, width).

        Raises:
            MissingDependencyError: Pillow is not installed.
        """
        images = require("PIL.Image", "pillow", "resizing images")
        top, left, height, width = self.window(image.shape[0], image.shape[1], generator)
        cut = np.ascontiguousarray(image[top : top + height, left : left + width])
        one_channel = cut.shape[2] == 1
        resized = np.asarray(
            images.fromarray(cut[:, :, 0] if one_channel else cut).resize(
                self.size[::-1], images.Resampling.BILINEAR
            )
        )
        planes = resized[None] if one_channel else resized.transpose(2, 0, 1)
        if self.mirror and generator.random() < 0.5:
            planes = planes[:, :, ::-1]
        return np.ascontiguousarray(planes)

    def window(
        self, height: int, width: int, generator: np.random.Generator
    ) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the part of an image that is cut out."""
        for _ in range(_CROP_TRIES):
            area = height * width * generator.uniform(*self.area)
            # Even on a logarithmic scale: as often wide as high.
            ratio = math.exp(generator.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < wide <= width and 0 < high <= height:
                top = int(generator.integers(height - high, endpoint=True))
                left = int(generator.integers(width - wide, endpoint=True))
                return top, left, high, wide
        # A very long image: as much of its centre as the bounds of the ratio allow.
        low, high_ratio = self.ratio
        wide = min(width, max(1, round(height * high_ratio)))
        high = min(height, max(1, round(width / low)))
        return (height - high) // 2, (width - wide) // 2, high, wide
