"""Fixtures for runs."""

from __future__ import annotations

import pytest
import torch

from tests.training.processes import write_digits
from tests.training.small import Small


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> str:
    """128 real images for training and 100 for testing, as ``--data`` has it."""
    return write_digits(tmp_path_factory.mktemp("digits") / "digits.npz")


@pytest.fixture
def model() -> Small:
    """A small network with seeded weights."""
    torch.manual_seed(0)
    return Small()
