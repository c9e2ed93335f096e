"""A Ray cluster of two nodes on this machine, of which one is the device.

    python -m tests.sweeps.clustered THINGS OUT KIND

``KIND`` is ``whole``, or what happens in the middle: ``worker`` kills one, ``driver`` ends the
sweep after two cells and starts it again. Ray's warnings and processes stay in this process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

from ray.cluster_utils import Cluster

from tests.conftest import ROOT

_COMMAND = (sys.executable, "-m", "trpexport", "sweep")


def typed(things: Path, out: Path, address: str) -> list[str]:
    """Return the command of a sweep on the cluster."""
    how = ("--schemes", "channel,spatial", "--targets", "0.8,0.6", "--precisions", "fp32,int8")
    data = ("--calib", f"tensors:{things / 'inputs.npz'}")
    judged = ("--data", f"tensors:{things / 'labelled.npz'}", "--metric", "rmse")
    quick = ("--rank-multiple", "1", "--verify-seconds", "0", "--bench", "--min-time", "0.05")
    place = ("--ray", address, "-o", str(out), "--cache", str(out.with_name(f"{out.name}-cache")))
    return [*_COMMAND, str(things / "net.onnx"), *how, *data, *judged, *quick, *place]


def cells_done(out: Path) -> int:
    """Return how many bundles stand."""
    return len(list(out.glob("*/manifest.json")))


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


def main() -> None:
    """Do so."""
    things, out, kind = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1, resources={"trpexport_device": 1})
    stop: Any = cluster.shutdown
    environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = typed(things, out, cluster.address)
    try:
        if kind == "worker":
            killed: list[int] = []
            thread = Thread(target=kill_a_worker, args=(killed,), daemon=True)
            thread.start()
        if kind == "driver":
            with subprocess.Popen(command, cwd=ROOT, env=environment) as driver:
                while cells_done(out) < 2 and driver.poll() is None:
                    time.sleep(0.05)
                driver.kill()
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        assert kind != "worker" or killed
    finally:
        stop()


if __name__ == "__main__":
    main()
