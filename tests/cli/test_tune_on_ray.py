"""``trpexport tune --ray`` as it is typed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Chained
from tests.conftest import Run
from tests.latency.networks import FakeStopwatch
from tests.ray_clusters import FakeRay
from trpexport import pareto


@pytest.fixture
def typed(
    chained: Chained, smooth_tensors: Callable[[int], str], tmp_path: Path
) -> tuple[object, ...]:
    """What makes a bundle, but for the limit."""
    quick = ("--scheme", "channel", "--rank-multiple", 4, "--verify-seconds", 0)
    where = ("--cache", tmp_path / "cache", "-o", tmp_path / "out")
    return ("tune", chained(24, 16), "--calib", smooth_tensors(16), *quick, *where)


@pytest.fixture
def cluster(fake_ray: FakeRay) -> FakeRay:
    """A cluster of one core."""
    fake_ray.cores = 1
    return fake_ray


def test_a_front(
    run: Run, clock: FakeStopwatch, cluster: FakeRay, typed: tuple[object, ...], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(pareto, "_SPEEDUPS", (1.25, 1.5, 50.0))
    result = run(*typed, "--pareto", "--ray", "auto", "--json")
    assert result.code == 0, result.err
    bundles = [Path(one["bundle"]).name for one in json.loads(result.out)["bundles"]]
    assert bundles == ["1.25x", "1.5x"] == sorted(path.name for path in tmp_path.glob("out/*"))
    assert {name for name, _ in cluster.calls} == {"_fit_apart"}
    assert "- 1.5x: 1 of 1: calibrated on the cluster" in result.err


def test_ray_that_is_missing_is_named(
    run: Run, clock: FakeStopwatch, typed: tuple[object, ...], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "ray", None)
    for limit in (("--min-speedup", 1.3), ("--pareto",)):
        result = run(*typed, *limit, "--ray", "auto")
        assert result.code == 2
        assert "clusters need Ray: pip install" in result.err
    assert not (tmp_path / "out").exists()


def test_a_cluster_that_is_not_there_is_told(
    run: Run, clock: FakeStopwatch, cluster: FakeRay, typed: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def init(**how: object) -> None:
        raise ConnectionError(f"nobody answers at {how['address']}\nand more")

    monkeypatch.setattr(cluster, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster, "init", init, raising=False)
    result = run(*typed, "--min-speedup", 1.3, "--ray", "nowhere")
    assert result.code == 2
    assert "there is no Ray cluster at nowhere (nobody answers at nowhere)" in result.error


def test_a_cluster_calibrates_on_its_processors(run: Run, typed: tuple[object, ...]) -> None:
    result = run(*typed, "--min-speedup", 1.3, "--ray", "auto", "--device", "cuda")
    assert result.code == 2
    assert "--device does nothing beside --ray" in result.error
