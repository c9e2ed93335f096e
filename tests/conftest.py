"""Fixtures that every test may use."""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# The paper's ranks, whatever processor the tests run on: those of alignment say what they mean.
os.environ["TRPEXPORT_CHANNEL_BLOCK"] = "1"

ROOT = Path(__file__).resolve().parent.parent

pytest_plugins = ["tests.fixtures", "tests.ray_clusters"]

# How tests of something else export: what they take for granted has tests of its own.
QUICK = ("--verify-seconds", "0", "--no-simplify", "--legacy-exporter", "--opset", "17")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Search for no garbage while libraries are imported: all of it stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep what is kept from run to run out of the user's cache, and the user's out of tests."""
    folder = tmp_path_factory.mktemp("caches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "shared"))
        yield folder


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def own_cache(caches: Path) -> Iterator[None]:
    """Give each test a cache of its own: none finds what another has calculated."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(caches / str(next(_numbers))))
        yield


@pytest.fixture(autouse=True)
def own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Forget what a test imported from its own folder: another test's may have the same name."""
    before = set(sys.modules)
    yield
    folder = str(tmp_path_factory.getbasetemp())
    for name in sys.modules.keys() - before:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(folder):
            del sys.modules[name]


@pytest.fixture(scope="module", autouse=True)
def few_objects_to_search_for_garbage() -> None:
    """Leave what stands before a file's tests out of searches for garbage.

    That is half a million objects of imported libraries, and there are many searches: one before
    every measurement, one after every export.
    """
    gc.collect()
    gc.freeze()


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


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What was printed under ``--json``."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that an error is."""
        lines = [line for line in self.err.splitlines() if not line.startswith("- ")]
        assert len(lines) == 1, self.err
        assert lines[0].startswith("error: ")
        assert "Traceback" not in self.err
        return lines[0]


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``trpexport`` with some arguments."""
    cli = importlib.import_module("trpexport.cli")

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = cli.run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def fashion_mnist() -> Path:
    """Folder of Debian's dataset-fashion-mnist; the test is skipped without it."""
    path = Path("/usr/share/datasets/fashion-mnist")
    if not path.is_dir():
        reason = f"needs the Debian package dataset-fashion-mnist: {path} is missing"
        if os.environ.get("TRPEXPORT_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)
