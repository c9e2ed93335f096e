"""What is installed is what is in the folders."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from itertools import chain
from pathlib import Path

import pytest

import trpexport
from tests.conftest import ROOT

CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
HOMES = {"trpexport.cli": ROOT / "cli", "trpexport.models_zoo": ROOT / "models_zoo"}


def folders() -> set[str]:
    """Return the name of every package folder, as it is installed."""
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "trpexport").rglob("__init__.py")
    }
    for name, home in HOMES.items():
        for path in home.rglob("__init__.py"):
            found.add(".".join((name, *path.parent.relative_to(home).parts)))
    return found


def test_every_package_is_listed() -> None:
    assert set(CONFIG["tool"]["setuptools"]["packages"]) == folders()


def test_versions_agree() -> None:
    assert CONFIG["project"]["version"] == trpexport.__version__


def test_ranges_admit_the_constraints() -> None:
    requirements = pytest.importorskip("packaging.requirements")
    pinned = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    )
    extras = CONFIG["project"]["optional-dependencies"]
    for text in [*CONFIG["project"]["dependencies"], *chain(*extras.values())]:
        requirement = requirements.Requirement(text)
        if requirement.name in pinned:
            assert requirement.specifier.contains(pinned[requirement.name]), text


def public_names() -> list[tuple[str, str]]:
    """Return module and name of each line of ``__init__.pyi``, as a type checker reads it."""
    text = (ROOT / "trpexport/__init__.pyi").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = re.findall(r"^from (\S+) import (\w+) as (\w+)$", text, re.MULTILINE)
    assert len(found) == len(lines)
    assert all(name == alias for _, name, alias in found)
    return [(module, name) for module, name, _ in found]


def test_public_names_stand_in_the_stub_once_and_are_what_it_says() -> None:
    names = [name for _, name in public_names()]
    assert len(names) == len(set(names))
    assert sorted(names) == dir(trpexport) == getattr(trpexport, "__all__")  # noqa: B009
    for module, name in public_names():
        assert getattr(trpexport, name) is getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("name", ["nothing", "make_plans", "Chain"])
def test_other_names_are_not_there(name: str) -> None:
    with pytest.raises(AttributeError, match=f"'trpexport' has no attribute '{name}'"):
        getattr(trpexport, name)


@pytest.mark.parametrize(
    "then", ["pass", "dir(trpexport)", "trpexport.bench", "trpexport.decompose"]
)
def test_importing_the_library_loads_nothing(then: str) -> None:
    heavy = "{'torch', 'numpy', 'onnx'}"
    code = f"import sys, trpexport; {then}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_every_module_imports() -> None:
    for package in folders():
        module = importlib.import_module(package)
        home = Path(module.__path__[0])
        for path in home.glob("*.py"):
            if path.stem not in ("__init__", "__main__"):
                importlib.import_module(f"{package}.{path.stem}")


@pytest.mark.slow
def test_the_wheel_holds_everything(tmp_path: Path) -> None:
    source = tmp_path / "source"  # building leaves folders behind
    for name in ("trpexport", "cli", "models_zoo"):
        shutil.copytree(ROOT / name, source / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", str(tmp_path), "."], cwd=source, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"trpexport"}
    for package, home in {"trpexport": ROOT / "trpexport", **HOMES}.items():
        for path in home.rglob("*.py"):
            inside = "/".join((*package.split("."), *path.relative_to(home).parts))
            assert inside in names
    assert {"trpexport/__init__.pyi", "trpexport/py.typed"} <= names
    assert any(name.endswith(".safetensors") for name in names)
