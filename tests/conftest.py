"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real checkpoints, data and reference outputs; the test is skipped without it."""
    path = Path(os.environ.get("TRPEXPORT_SHARED", ROOT.parent / "shared"))
    if not (path / "checkpoints").is_dir():
        reason = f"needs the shared material: {path} is missing (set TRPEXPORT_SHARED)"
        if os.environ.get("TRPEXPORT_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path
