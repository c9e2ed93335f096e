"""``trpexport doctor``."""

from __future__ import annotations

import json

import pytest

from tests.conftest import Run
from trpexport.measure import doctor
from trpexport.report.views.doctor import doctor_view

FACTS = {
    "machine": {
        "cpu": "Cortex-A76",
        "architecture": "aarch64",
        "cores": {"usable": 4},
        "instruction_sets": ["asimd"],
        "versions": {"python": "3.11", "onnxruntime": "1.20"},
    },
    "extras": {
        "edge": {"packages": {"onnx": "1"}, "missing": {}, "install": None},
        "cpu": {
            "packages": {"torch": None, "scipy": None},
            "missing": {"torch": "not installed", "scipy": "not installed"},
            "install": 'pip install "trpexport[cpu]"',
        },
    },
    "providers": {
        "cpu": {"works": True, "reason": None},
        "cuda": {"works": False, "reason": "no CUDA here"},
    },
}


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "diagnose", lambda: FACTS)


@pytest.mark.usefixtures("known")
def test_what_is_missing_has_its_command(run: Run) -> None:
    result = run("doctor")
    assert result.code == 0
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[0] == "Cortex-A76, 4 usable cores, asimd"
    assert "cpu works" in lines
    assert "cuda no CUDA here" in lines
    assert any(line.endswith(" not installed: torch, scipy") for line in lines)
    assert lines[-1] == 'pip install "trpexport[cpu]"'


@pytest.mark.usefixtures("known")
def test_facts_for_machines(run: Run) -> None:
    assert json.loads(run("doctor", "--json").out) == FACTS


def test_a_machine_that_is_not_known() -> None:
    blocks = doctor_view({**FACTS, "machine": None}, doctor.EXTRAS)
    assert len(blocks) == 4
