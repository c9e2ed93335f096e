"""A test finds nothing that another has left, in whatever order they run."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

import pytest


@pytest.mark.parametrize("value", [1, 2])
def test_modules_of_one_name_are_those_of_the_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: int
) -> None:
    (tmp_path / "of_a_test.py").write_text(f"VALUE = {value}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert value == importlib.import_module("of_a_test").VALUE


@pytest.mark.parametrize("count", [1, 2])
def test_the_cache_is_empty(count: int) -> None:
    cache = Path(os.environ["XDG_CACHE_HOME"])
    assert not cache.exists()
    cache.mkdir()
    (cache / f"{count}").touch()
