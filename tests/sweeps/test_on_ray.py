"""A cluster of two Ray nodes gives what one process gives, whatever is killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.ray_clusters import kill_a_worker
from tests.sweeps.test_killed import request_of, swept
from trpexport.files import read_json

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray"),
]
CELLS = 4


@pytest.fixture(scope="module")
def here(things: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process says of the cells."""
    request = request_of(things, schemes=["channel"])
    return swept(request, tmp_path_factory.mktemp("here") / "out")[0]


def sweep_on(address: str, things: Path, out: Path) -> list[str]:
    """Return the command of a sweep on the cluster."""
    how = ("--schemes", "channel", "--targets", "0.8,0.6", "--precisions", "fp32,int8")
    data = ("--calib", f"tensors:{things / 'inputs.npz'}")
    judged = ("--data", f"tensors:{things / 'labelled.npz'}", "--metric", "rmse")
    quick = ("--rank-multiple", "1", "--verify-seconds", "0", "--bench", "--min-time", "0.05")
    where = ("--ray", address, "-o", str(out), "--cache", str(out.with_name("cache")))
    command = [sys.executable, "-m", "trpexport", "sweep", str(things / "net.onnx")]
    return [*command, *how, *data, *judged, *quick, *where]


@pytest.mark.parametrize("kind", ["whole", "worker", "driver"])
def test_a_cluster_gives_the_same(
    kind: str,
    here: list[dict[str, Any]],
    ray_address: str,
    ray_place: dict[str, Any],
    things: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    command = sweep_on(ray_address, things, out)
    killed = kill_a_worker("_work_apart") if kind == "worker" else []
    if kind == "driver":
        with subprocess.Popen(command, **ray_place) as driver:
            while not list(out.glob("*/manifest.json")) and driver.poll() is None:
                time.sleep(0.05)
            driver.kill()
    subprocess.run(command, check=True, timeout=500, **ray_place)
    assert kind != "worker" or killed
    cells = read_json(out / "sweep.json")["cells"]
    assert [cell["failed"] for cell in cells] == [None] * CELLS
    for cell, expected in zip(cells, here, strict=True):
        assert cell["time"]["speedup"]["mid"] > 0
        for name in ("label", "macs", "parameters", "bundle"):
            assert cell[name] == expected[name]
        assert cell["error"]["value"] == pytest.approx(expected["error"]["value"], rel=1e-3)
        assert cell["judged"]["after"] == pytest.approx(expected["judged"]["after"], rel=1e-3)


def test_a_network_is_evaluated_there(
    ray_address: str, ray_place: dict[str, Any], things: Path
) -> None:
    judged = ("--data", f"tensors:{things / 'labelled.npz'}", "--metric", "rmse", "--json")
    command = [sys.executable, "-m", "trpexport", "eval", str(things / "net.onnx"), *judged]
    here, there = (
        json.loads(subprocess.check_output([*command, *more], **ray_place))
        for more in ((), ("--ray", ray_address))
    )
    assert there["images"] == here["images"] == 24
    assert there["value"] == pytest.approx(here["value"], abs=1e-5)
