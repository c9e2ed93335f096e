"""Profiles that another process takes."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from trpexport.errors import ModelError
from trpexport.latency import stopwatch
from trpexport.latency.stopwatch import Conditions, LocalStopwatch
from trpexport.measure.profile import jobs
from trpexport.measure.profile.jobs import ProfileJob, profiled_apart
from trpexport.measure.profile.profile import Profile
from trpexport.measure.settings import ModelFile
from trpexport.runtime.providers import PROVIDERS

WriteOnnx = Callable[..., Path]


def test_another_process_tells_what_this_one_would(linear: WriteOnnx) -> None:
    path = linear()
    (found,) = profiled_apart(ProfileJob((ModelFile(str(path), "a"),), runs=4))
    (here,) = LocalStopwatch(Conditions()).profiles([path], 4)
    assert [node.name for node in found.nodes] == [node.name for node in here.nodes]
    assert (found.runs, found.shapes) == (4, here.shapes)
    assert all(node.seconds > 0 for node in found.nodes)


def test_what_fails_there_is_told_in_a_line(linear: WriteOnnx) -> None:
    path = linear()
    path.write_bytes(b"no network")
    with pytest.raises(ModelError) as caught:
        profiled_apart(ProfileJob((ModelFile(str(path), "a"),)))
    assert str(path) in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_where_calls_must_be_waited_for_another_process_does(
    linear: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = replace(PROVIDERS["cpu"], environment={"TRPEXPORT_WAITS": "1"})
    for module in (jobs, stopwatch):
        monkeypatch.setattr(module, "PROVIDERS", {"cpu": waiting})
    seen: list[ProfileJob] = []

    def apart(job: ProfileJob) -> list[Profile]:
        seen.append(job)
        return []

    monkeypatch.setattr(stopwatch, "profiled_apart", apart)
    LocalStopwatch(Conditions(threads=2)).profiles([linear()], 7)
    assert [(job.provider, job.threads, job.runs) for job in seen] == [("cpu", 2, 7)]
    # Whoever runs the job sets what makes the provider wait.
    monkeypatch.setenv("TRPEXPORT_WAITS", "")
    seen[0].run()
    assert os.environ["TRPEXPORT_WAITS"] == "1"
    assert {name for name, one in PROVIDERS.items() if one.environment} == {"cuda", "tensorrt"}
