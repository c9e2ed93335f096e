"""Image folders and tars for tests."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def pixels(seed: int, height: int = 4, width: int = 4) -> NDArray[np.uint8]:
    """Return a random RGB image, (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(image: NDArray[Any] | Image.Image, kind: str = "png", **options: Any) -> bytes:
    """Return an image file."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def two_classes(*levels: str, size: int = 4) -> dict[str, bytes]:
    """Return two images of cats and one of a dog under each level, by name."""
    names = ("cat/0.png", "cat/1.png", "dog/0.png")
    return {
        f"{level}/{name}".lstrip("/"): encoded(pixels(i, size, size))
        for i, (level, name) in enumerate((level, name) for level in levels for name in names)
    }


def write_folder(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write files below a folder."""
    root.mkdir(exist_ok=True)
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_tar(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    """Write files into a tar; a name that ends in a slash is a folder."""
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            member.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path
