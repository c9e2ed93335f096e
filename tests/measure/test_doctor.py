"""What works on this machine is tried, what does not is named with the way to it."""

from __future__ import annotations

import importlib
import tomllib
from importlib import metadata
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from trpexport.errors import MissingDependencyError
from trpexport.installing import install_command
from trpexport.measure import doctor
from trpexport.measure.doctor import EXTRAS, diagnose


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    return diagnose()


def test_this_machine(facts: dict[str, Any]) -> None:
    assert facts["machine"]["cores"]["usable"] >= 1
    assert list(facts["extras"]) == list(EXTRAS)
    edge, cpu = facts["extras"]["edge"], facts["extras"]["cpu"]
    assert edge["packages"]["onnxruntime"] == metadata.version("onnxruntime")
    assert cpu["packages"]["torch"] == metadata.version("torch")
    for extra in (edge, cpu):
        assert (extra["missing"], extra["install"]) == ({}, None)


def test_the_cpu_works_and_others_say_why_not(facts: dict[str, Any]) -> None:
    providers = facts["providers"]
    assert providers["cpu"] == {"works": True, "reason": None}
    assert all(one["works"] or one["reason"] for one in providers.values())
    if not providers["xnnpack"]["works"]:
        assert "build onnxruntime" in providers["xnnpack"]["reason"]


def test_the_network_that_is_tried_adds_up() -> None:
    from trpexport.runtime.session import open_session

    given = open_session(doctor.small_network()).run({"x": np.ones((1, 4, 8, 8), np.float32)})["y"]
    assert given[0, 0, 4, 4] == 36  # 4 channels of 3 x 3 ones
    assert given[0, 0, 0, 0] == 16


def test_packages_that_are_missing_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "scipy":
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    def imported(name: str) -> None:
        if name == "onnx":
            raise ImportError("libfoo.so: cannot open\nmore")

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(importlib, "import_module", imported)
    found = doctor._extra("cpu", ["scipy", "onnx", "torch"])
    assert found == {
        "packages": {"scipy": None, "onnx": "1.0", "torch": "1.0"},
        "missing": {
            "scipy": "not installed",
            "onnx": "does not import: libfoo.so: cannot open",
        },
        "install": install_command("cpu"),
    }


def test_a_machine_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise MissingDependencyError("onnxruntime is not installed: pip install onnxruntime")

    monkeypatch.setattr(doctor, "machine_facts", missing)
    monkeypatch.setattr(doctor, "open_session", missing)
    found = diagnose()
    assert found["machine"] is None
    assert "pip install onnxruntime" in found["providers"]["cpu"]["reason"]


def test_every_extra_that_users_install_is_tried() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(extras["optional-dependencies"]) - {"dev", "docs"}
