"""A cluster of two Ray nodes gives what one process gives, whatever is killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.conftest import ROOT
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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Where processes run: on a machine that nobody else times anything on."""
    variables = {
        **{"OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"},
        # By default they give way to all others, which on a busy machine takes for ever.
        "RAY_worker_niceness": "0",
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
    }
    return {"cwd": ROOT, "env": {**os.environ, **variables}}


@pytest.fixture(scope="module")
def address(place: dict[str, Any]) -> Iterator[str]:
    """A cluster of two nodes, whose processes are warm from test to test."""
    command = [sys.executable, "-m", "tests.sweeps.clustered"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, **place) as cluster:
        assert cluster.stdout is not None
        assert cluster.stdin is not None
        yield cluster.stdout.readline().strip()
        cluster.stdin.close()


def sweep_on(address: str, things: Path, out: Path) -> list[str]:
    """Return the command of a sweep on the cluster."""
    how = ("--schemes", "channel", "--targets", "0.8,0.6", "--precisions", "fp32,int8")
    data = ("--calib", f"tensors:{things / 'inputs.npz'}")
    judged = ("--data", f"tensors:{things / 'labelled.npz'}", "--metric", "rmse")
    quick = ("--rank-multiple", "1", "--verify-seconds", "0", "--bench", "--min-time", "0.05")
    where = ("--ray", address, "-o", str(out), "--cache", str(out.with_name("cache")))
    command = [sys.executable, "-m", "trpexport", "sweep", str(things / "net.onnx")]
    return [*command, *how, *data, *judged, *quick, *where]


def workers() -> Iterator[int]:
    """Yield the processes that make a cell now."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            name = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(b"ray::_work_apart"):
            yield int(place.name)


def kill_a_worker(killed: list[int]) -> None:
    """Kill the first worker that makes a cell, once there is one."""
    while not killed:
        for process in workers():
            os.kill(process, signal.SIGKILL)
            killed.append(process)
            return
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["whole", "worker", "driver"])
def test_a_cluster_gives_the_same(
    kind: str,
    here: list[dict[str, Any]],
    address: str,
    place: dict[str, Any],
    things: Path,
    tmp_path: Path,
) -> None:
    out, killed = tmp_path / "out", list[int]()
    command = sweep_on(address, things, out)
    if kind == "worker":
        Thread(target=kill_a_worker, args=(killed,), daemon=True).start()
    if kind == "driver":
        with subprocess.Popen(command, **place) as driver:
            while not list(out.glob("*/manifest.json")) and driver.poll() is None:
                time.sleep(0.05)
            driver.kill()
    subprocess.run(command, check=True, timeout=500, **place)
    assert kind != "worker" or killed
    cells = read_json(out / "sweep.json")["cells"]
    assert [cell["failed"] for cell in cells] == [None] * CELLS
    for cell, expected in zip(cells, here, strict=True):
        assert cell["time"]["speedup"]["mid"] > 0
        for name in ("label", "macs", "parameters", "bundle"):
            assert cell[name] == expected[name]
        assert cell["error"]["value"] == pytest.approx(expected["error"]["value"], rel=1e-3)
        assert cell["judged"]["after"] == pytest.approx(expected["judged"]["after"], rel=1e-3)


def test_a_network_is_evaluated_there(address: str, place: dict[str, Any], things: Path) -> None:
    judged = ("--data", f"tensors:{things / 'labelled.npz'}", "--metric", "rmse", "--json")
    command = [sys.executable, "-m", "trpexport", "eval", str(things / "net.onnx"), *judged]
    here, there = (
        json.loads(subprocess.check_output([*command, *more], **place))
        for more in ((), ("--ray", address))
    )
    assert there["images"] == here["images"] == 24
    assert there["value"] == pytest.approx(here["value"], abs=1e-5)
