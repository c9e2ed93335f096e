"""A front whose points are calibrated on a cluster is that of one process, point by point."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.latency.networks import FakeStopwatch
from tests.ray_clusters import FakeRay, kill_a_worker
from tests.tuned import SPEEDUPS, Job, twins_in
from trpexport import pareto as module
from trpexport.artifact.settings import ExportSettings
from trpexport.choose import budget
from trpexport.choose.by_latency import ByLatency
from trpexport.errors import NothingToDoError
from trpexport.files import read_json
from trpexport.latency.alone import AloneStopwatch
from trpexport.pareto import pareto
from trpexport.stages import Stages
from trpexport.tuning import Tuning


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    return twins_in(tmp_path_factory.mktemp("network"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, fake_ray: FakeRay) -> None:
    """Two points that can be met, and one that can't; all on one core."""
    fake_ray.cores = 1
    torch.set_num_threads(1)
    monkeypatch.setattr(module, "_SPEEDUPS", (1.2, 1.5, 50.0))


def tuning(cache: Path | None, **limit: Any) -> Tuning:
    how: dict[str, Any] = {"scheme": "channel", "rank_multiple": 4, "cache": cache, **limit}
    return Tuning(ByLatency(stopwatch=FakeStopwatch(), **how), ExportSettings(verify_seconds=0))


def on_cluster(tuning: Tuning) -> Tuning:
    chooser = tuning.chooser.on_cluster("auto", lambda line: None)
    return replace(tuning, chooser=chooser, device="cpu")


def facts(place: Path) -> tuple[Any, Mapping[str, Any]]:
    """Return what is known of a bundle, but for how many networks were profiled this time."""
    plan, latency = read_json(place / "plan.json"), read_json(place / "report.json")["latency"]
    for one in (plan["options"]["calibration"]["latency"], latency):
        one.pop("networks_profiled")
    return plan, latency


@pytest.mark.usefixtures("quick")
def test_a_front_is_the_same(job: Job, fake_ray: FakeRay, tmp_path: Path) -> None:
    said: list[str] = []
    _, expected = pareto(tuning(None), *job, tmp_path / "here")
    assert not fake_ray.calls
    there = on_cluster(tuning(tmp_path / "cache"))
    _, found = pareto(there, *job, tmp_path / "there", Stages(said.append))
    assert [report.path.name for report in found] == ["1.2x", "1.5x"]
    assert len(expected) == 2
    for report, other in zip(found, expected, strict=True):
        assert facts(report.path) == facts(other.path)
    assert fake_ray.calls
    # All are begun before one ends; what needs calibration is fitted there alone.
    begun = [said.index(f"{point}: tune to {point}") for point in ("1.2x", "1.5x")]
    assert max(begun) < min(said.index(f"{point}: write the bundle") for point in ("1.2x", "1.5x"))
    fitted = [line for line in said if ": pass " in line]
    assert fitted
    assert all(line.endswith("fitted before") for line in fitted)
    assert any("a speed-up of 50 can't be met" in line for line in said)
    # What stands is not made again.
    count = len(fake_ray.calls)
    pareto(there, *job, tmp_path / "there", Stages(said.append))
    assert len(fake_ray.calls) == count
    assert f"1.5x: {tmp_path / 'there/1.5x'} stands already" in said


@pytest.mark.usefixtures("quick")
def test_nothing_that_can_be_met_is_refused(job: Job, fake_ray: FakeRay, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(module, "_SPEEDUPS", (40.0, 50.0))
    with pytest.raises(NothingToDoError, match="a speed-up of 40 can't be met"):
        pareto(on_cluster(tuning(None)), *job, tmp_path / "out")
    assert not fake_ray.calls


@pytest.mark.usefixtures("quick")
def test_one_limit_is_the_same_without_a_cache(
    job: Job, fake_ray: FakeRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "BISECTIONS", 1)
    here, said = tuning(None, error=0.3), list[str]()
    here(*job, tmp_path / "here")
    assert not fake_ray.calls
    on_cluster(here)(*job, tmp_path / "there", Stages(said.append))
    assert facts(tmp_path / "there") == facts(tmp_path / "here")
    fitted = [line for line in said if line.startswith("pass ")]
    assert fitted
    assert all(line.endswith("fitted before") for line in fitted)


def test_the_same_is_asked_for_with_and_without_a_cluster(job: Job, tmp_path: Path) -> None:
    here = tuning(tmp_path, speedup=1.2)
    assert on_cluster(here).request(*job) == here.request(*job)


def test_what_is_timed_here_is_timed_alone() -> None:
    assert isinstance(ByLatency().on_cluster("auto", print).timekeeper, AloneStopwatch)
    clock = FakeStopwatch()
    assert ByLatency(stopwatch=clock).on_cluster("auto", print).timekeeper is clock


@pytest.fixture(scope="module")
def here(
    job: Job, ray_place: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What one process makes of it."""
    out = tmp_path_factory.mktemp("here") / "out"
    command = [sys.executable, "-m", "tests.tuned", str(job[0].path.parent), str(out)]
    subprocess.run(command, check=True, timeout=300, **ray_place)
    return {f"{speedup:g}x": facts(out / f"{speedup:g}x") for speedup in SPEEDUPS}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray")
@pytest.mark.parametrize("kind", ["whole", "worker", "driver"])
def test_a_cluster_of_two_nodes_gives_the_same(
    kind: str,
    here: dict[str, Any],
    job: Job,
    ray_address: str,
    ray_place: dict[str, Any],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.tuned", str(job[0].path.parent), str(out), ray_address]
    killed = kill_a_worker("_fit_apart") if kind == "worker" else []
    if kind == "driver":
        with subprocess.Popen(command, **ray_place) as driver:
            while not list(tmp_path.glob("cache/calibration/*.npz")) and driver.poll() is None:
                time.sleep(0.01)
            driver.kill()
        assert not (out / "1.5x").exists()
    done = subprocess.check_output(command, timeout=500, text=True, **ray_place)
    assert kind != "worker" or killed
    assert "calibrated on the cluster" in done
    assert "calibrated here" not in done
    for name, expected in here.items():
        assert facts(out / name) == expected
