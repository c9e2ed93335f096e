"""A profile runs networks as a bench does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trpexport.measure.profile import profile as profiling
from trpexport.measure.profile.bench_profile import profile_bench
from trpexport.measure.profile.jobs import ProfileJob
from trpexport.measure.settings import BenchSettings, ModelFile
from trpexport.report.blocks import Text
from trpexport.report.views.profile import profile_view
from trpexport.runtime.session import open_session

WriteOnnx = Callable[..., Path]
ADVICE = {"provider": "cpu", "threads": 1, "options": {"memory_pattern": False, "arena": False}}


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """With what each session was opened."""
    seen: list[dict[str, Any]] = []

    def spy(model: Path, **options: Any) -> Any:
        seen.append(options)
        return open_session(model, **options)

    monkeypatch.setattr(profiling, "open_session", spy)
    return seen


def test_networks_run_with_what_their_bundles_recommend(
    linear: WriteOnnx, opened: list[dict[str, Any]]
) -> None:
    path = linear()
    models = (ModelFile(str(path), "base"), ModelFile(str(path), "fast", advice=ADVICE))
    found = profile_bench(BenchSettings(models, min_runs=2), [path])
    assert ["arena" in options for options in opened] == [False, True]
    assert opened[1]["memory_pattern"] is False
    told = [model["session"] for model in found.to_json()["models"]]
    assert told == [{}, ADVICE["options"]]
    said = [str(block) for block in profile_view(found) if isinstance(block, Text)]
    assert (
        sum("fast ran as its bundle recommends: memory pattern off" in text for text in said) == 1
    )
    # It holds for one number of threads.
    profile_bench(BenchSettings(models, threads=(2,), min_runs=2), [path])
    assert not any("arena" in options for options in opened[2:])


def test_so_do_those_that_are_profiled_elsewhere(
    linear: WriteOnnx, opened: list[dict[str, Any]]
) -> None:
    job = ProfileJob((ModelFile(str(linear()), "fast", advice=ADVICE),), runs=2)
    ProfileJob.from_json(job.to_json()).run()
    assert [options["arena"] for options in opened] == [False]
