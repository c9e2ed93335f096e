"""A small network of the zoo, its weights, and files to spoil."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

SMALL = "resnet_cifar(depth=8,block=basic,shortcut=projection,width=2)"


@pytest.fixture(scope="session")
def zoo() -> ModuleType:
    return importlib.import_module("trpexport.models_zoo")


@pytest.fixture(scope="session")
def small(zoo: ModuleType) -> Any:
    """An architecture of 1,400 weights with 7 classes for grey images: neither count a default."""
    return zoo.parse_architecture(SMALL, num_classes=7, in_channels=1)


@pytest.fixture(scope="session")
def seeded(small: Any) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        state: dict[str, Tensor] = small.build().state_dict()
    return state


@pytest.fixture
def weights(seeded: dict[str, Tensor]) -> dict[str, Tensor]:
    """Its weights: a new dict each time, to be changed at will."""
    return dict(seeded)


Saver = Callable[[object], Path]


@pytest.fixture(params=["zip", "legacy"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Saver:
    """Write an object with torch.save in each of its two formats."""

    def write(content: object) -> Path:
        path = tmp_path / "checkpoint.pth"
        torch.save(content, path, _use_new_zipfile_serialization=request.param == "zip")
        return path

    return write
