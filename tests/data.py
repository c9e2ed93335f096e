"""Real images for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# What the two shared checkpoints were trained with.
MEAN = torch.tensor([0.485, 0.456, 0.406]).reshape(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).reshape(1, 3, 1, 1)


def cifar10_test_images(shared: Path, count: int) -> tuple[Tensor, Tensor]:
    """Return the first normalised images (n, 3, 32, 32) of the test batch, and their labels (n)."""
    records = np.fromfile(shared / "data/cifar10-lossless/test_batch.bin", dtype=np.uint8)
    records = records.reshape(-1, 3073)[:count]
    images = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32).copy()).float() / 255
    return (images - MEAN) / STD, torch.from_numpy(records[:, 0].astype(np.int64))
