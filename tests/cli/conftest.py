"""A public network and its images, for commands that need both."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def checkpoint(shared: Path) -> Path:
    """ResNet-20 as others trained it."""
    return shared / "checkpoints/resnet20-12fca82f.th"


@pytest.fixture
def data(shared: Path) -> str:
    """CIFAR-10 as the data set's own files have it."""
    return f"cifar10:{shared / 'data/cifar10-lossless'}"
