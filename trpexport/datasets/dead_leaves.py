"""Images that look like photographs to statistics: for tests that have none at hand. No torch."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_LEAVES = 60
# Radii relative to the image, distributed as 1 / radius^3 in between: the same at every scale.
_SMALLEST, _LARGEST = 0.05, 0.6


def dead_leaves(
    count: int, channels: int, height: int, width: int, *, seed: int = 0
) -> NDArray[np.float32]:
    """Return images of overlapping ellipses, (count, channels, height, width), of mean 0 and std 1.

    The dead leaves model (Lee, Mumford and Huang 2001, "Occlusion Models for Natural Images"):
    its edges, its spectrum and the correlation of its colours are near those of photographs.
    """
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    scale = max(height, width)
    images = np.empty((count, channels, height, width), dtype=np.float32)
    for index in range(count):
        image = 0.5 * random.standard_normal((channels, 1, 1))
        shift = 0.5 * random.standard_normal((channels, 1, 1))
        for _ in range(_LEAVES):
            radius = _SMALLEST / np.sqrt(1 - random.random() * (1 - (_SMALLEST / _LARGEST) ** 2))
            centre = random.uniform(-0.2, 1.2, 2)
            stretch, angle = np.exp(0.5 * random.standard_normal()), random.uniform(0, np.pi)
            grey, colour = random.standard_normal(), 0.4 * random.standard_normal((channels, 1, 1))
            slope = 0.6 * random.standard_normal()
            y = (rows - centre[0] * height) / scale
            x = (columns - centre[1] * width) / scale
            along = y * np.cos(angle) + x * np.sin(angle)
            across = x * np.cos(angle) - y * np.sin(angle)
            distance = np.hypot(along * stretch, across / stretch)
            cover = np.clip((radius - distance) * scale + 0.5, 0, 1)
            leaf = grey + colour + slope * along / radius
            image = image * (1 - cover) + cover * leaf
        images[index] = image + shift
    found: NDArray[np.float32] = (images - images.mean()) / images.std()
    return found
