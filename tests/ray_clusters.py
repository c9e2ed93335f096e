"""Ray clusters to test on: one in this process, and one of two nodes on this machine."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ROOT
from trpexport import clusters


class FakeRay:
    """A cluster of one node in this process, which does tasks when they are begun, one by one.

    What comes back is packed on the way.

    Args:
        cores: of the node.

    Attributes:
        calls: the function and the arguments of each task, in the order in which they were begun.
        lost: how many of the next results the cluster loses.
        cancelled: how many tasks were.
        cores: of the node.
        resources: what else the node has.
        job: what the connection is called.
    """

    cloudpickle = pickle

    class RayError(Exception):
        """What Ray raises for a worker that is gone for good."""

    class RayTaskError(RayError):
        """What Ray raises for an error of a task."""

        def __init__(self, cause: Exception) -> None:
            self.cause = cause

    def __init__(self, cores: int = 3) -> None:
        self.exceptions = SimpleNamespace(RayError=self.RayError, RayTaskError=self.RayTaskError)
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.lost = self.cancelled = 0
        self.cores = cores
        self.job = "1"
        self.resources: dict[str, float] = {}

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": float(self.cores), **self.resources}

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": float(self.cores)}}]

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_job_id=lambda: self.job)

    def put(self, content: Any) -> Any:
        return pickle.loads(pickle.dumps(content))

    def remote(self, function: Callable[..., Any]) -> Any:
        def work(*given: Any) -> Any:
            self.calls.append((function.__name__, given))
            try:
                found = pickle.dumps(function(*given))
            except Exception as error:
                return partial(_raised, self.RayTaskError(error))
            return partial(pickle.loads, found)

        return SimpleNamespace(options=lambda **_: SimpleNamespace(remote=work))

    def wait(self, refs: list[Any], *, num_returns: int, timeout: float) -> tuple[Any, Any]:
        # The last one first: in whatever order they end.
        return refs[-num_returns:], refs[:-num_returns]

    def cancel(self, ref: Any, *, force: bool) -> None:
        assert force
        self.cancelled += 1

    def get(self, refs: Any) -> Any:
        if self.lost:
            self.lost -= 1
            raise self.RayError("the node is gone")
        return [ref() for ref in refs] if isinstance(refs, list) else refs()


def _raised(error: Exception) -> Any:
    raise error


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    """A cluster in this process, in the place of Ray; its tasks leave nothing behind."""
    import torch

    from trpexport.choose import on_ray

    fake = FakeRay()
    monkeypatch.setattr(clusters, "_ray", lambda: fake)
    monkeypatch.setattr(on_ray, "_jobs", {})
    before = torch.get_num_threads()
    yield fake
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def ray_place(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Where processes run: on a machine that nobody else times anything on."""
    variables = {
        **{"OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"},
        # By default they give way to all others, which on a busy machine takes for ever.
        "RAY_worker_niceness": "0",
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")),
    }
    return {"cwd": ROOT, "env": {**os.environ, **variables}}


@pytest.fixture(scope="session")
def ray_address(ray_place: dict[str, Any]) -> Iterator[str]:
    """A cluster of two nodes, whose processes are warm from test to test."""
    command = [sys.executable, "-m", "tests.clustered"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, **ray_place) as cluster:
        assert cluster.stdout is not None
        assert cluster.stdin is not None
        yield cluster.stdout.readline().strip()
        cluster.stdin.close()


def kill_a_worker(task: str) -> list[int]:
    """Kill the first worker that is at work on a task, once there is one; return who was killed."""
    killed: list[int] = []

    def kill() -> None:
        while not killed:
            for process in _workers(task):
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                return
            time.sleep(0.05)

    Thread(target=kill, daemon=True).start()
    return killed


def _workers(task: str) -> Iterator[int]:
    """Yield the processes that are at work on a task now."""
    for place in Path("/proc").glob("[0-9]*"):
        try:
            name = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if name.startswith(f"ray::{task}".encode()):
            yield int(place.name)
