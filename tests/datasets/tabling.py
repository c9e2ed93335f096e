"""Tables of the library ``datasets`` for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets

from tests.datasets.picturing import encoded, pixels

CLASSES = ["ant", "bee"]


def table(labels: Sequence[int | None] = (0, 1, 1), **columns: Any) -> datasets.Dataset:
    """Return as many random images as labels, of 4x4 pixels; more or other columns by name."""
    images = [{"bytes": encoded(pixels(i)), "path": None} for i in range(len(labels))]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)}
    values: dict[str, Any] = {"image": images, "label": list(labels)}
    for name, (kind, value) in columns.items():
        kinds[name], values[name] = kind, value
    return datasets.Dataset.from_dict(values, features=datasets.Features(kinds))
