"""A sweep that is killed anywhere goes on to the same table."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from trpexport.files import read_json


def request_of(things: Path, **changes: Any) -> dict[str, Any]:
    """Return what is asked of a small network."""
    return {
        **{"model": str(things / "net.onnx"), "images": f"tensors:{things / 'inputs.npz'}"},
        **{
            "schemes": ["channel", "spatial"],
            "targets": [0.8, 0.6],
            "precisions": ["fp32", "int8"],
        },
        **{"data": f"tensors:{things / 'labelled.npz'}", "metric": "rmse", "rank_multiple": 1},
        **changes,
    }


def swept(
    request: Mapping[str, Any], out: Path, *seconds: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the cells of a sweep that was killed after so long each time, and how that went."""
    place = out.with_name(f"{out.name}.json")
    place.write_text(json.dumps(request))
    command = [sys.executable, "-m", "tests.sweeps.killed", str(place), str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *map(str, seconds)],
        cwd=ROOT, env=environment, check=True, timeout=600, stdout=subprocess.PIPE,
    )  # fmt: skip
    return read_json(out / "sweep.json")["cells"], json.loads(done.stdout)


def check_kills(request: Mapping[str, Any], folder: Path, count: int) -> None:
    """Compare a sweep of so many cells that is killed three times with one that is not."""
    whole, how = swept(request, folder / "whole")
    assert len(whole) == count
    assert not any(cell["failed"] for cell in whole)
    # Anywhere in the first third, so that each kill finds something to end.
    moments = [random.uniform(0, how["seconds"] / 3) for _ in range(3)]
    cells, how = swept(request, folder / "killed", *moments)
    assert how["kills"], moments
    assert cells == whole, moments


def test_the_same_table_after_three_kills(things: Path, tmp_path: Path) -> None:
    check_kills(request_of(things, targets=[0.7]), tmp_path, 4)


@pytest.mark.slow
def test_several_processes_die_with_the_one_that_is_killed(things: Path, tmp_path: Path) -> None:
    check_kills(request_of(things, jobs=2), tmp_path, 8)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_same_table_of_resnet20_after_three_kills(shared: Path, tmp_path: Path) -> None:
    data = f"cifar10:{shared / 'data/cifar10-lossless'}"
    request = {
        **{"model": str(shared / "checkpoints/resnet20-12fca82f.th"), "images": data, "count": 48},
        **{"schemes": ["spatial"], "targets": [0.7, 0.5], "data": data, "limit": 60},
        **{"normalised": [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], "legacy": True},
    }
    check_kills(request, tmp_path, 2)
