from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from trpexport.device.app import build_device_app
from trpexport.errors import ModelError
from trpexport.measure import memory
from trpexport.measure.memory import PeakMemory, baseline_memory, measure_peak_memory

WriteOnnx = Callable[..., Path]
MIB = 2**20
OPTIONS = {"threads": 1, "provider": "cpu", "provider_options": {}}


@pytest.fixture(scope="module")
def heavy(write_onnx: WriteOnnx) -> Path:
    """A network whose result takes 64 MiB, from an input called as a parameter of numpy.savez."""
    return write_onnx(
        [helper.make_node("Expand", ["file", "shape"], ["y"])],
        {"file": (1, 1)},
        {"y": (16, MIB)},
        {"shape": np.array([16, MIB])},
    )


def test_the_figures_and_what_is_above_the_baseline() -> None:
    assert PeakMemory(baseline=10, with_arena=25, without_arena=22).to_json() == {
        "baseline_bytes": 10,
        "with_arena_bytes": 25,
        "without_arena_bytes": 22,
        "above_baseline_with_arena_bytes": 15,
        "above_baseline_without_arena_bytes": 12,
    }


def test_peak_memory_is_that_of_the_network_alone(heavy: Path) -> None:
    held = np.ones(300 * MIB // 8)  # a child of vfork inherits the parent's ru_maxrss
    baseline = baseline_memory()
    inputs = {"file": np.ones((1, 1), np.float32)}
    peak = measure_peak_memory(heavy, inputs, OPTIONS, baseline=baseline)
    assert held[0] == 1
    assert 10 * MIB < baseline < 250 * MIB
    for figure in (peak.with_arena, peak.without_arena):
        assert 64 * MIB < figure - baseline < 230 * MIB


def test_files_in_the_working_directory_do_not_get_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('not this one')")
    monkeypatch.chdir(tmp_path)
    assert baseline_memory() > 10 * MIB


def test_both_ways_to_allocate_are_measured(
    linear: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[dict[str, Any]] = []

    def peak(job: dict[str, Any], label: str) -> int:
        jobs.append(job)
        return 100 * len(jobs)

    monkeypatch.setattr(memory, "_peak_of_child", peak)
    inputs = {"input": np.zeros((1, 3), np.float32)}
    assert measure_peak_memory(linear(), inputs, OPTIONS, baseline=7) == PeakMemory(7, 100, 200)
    assert [job["options"] for job in jobs] == [
        {**OPTIONS, "arena": True},
        {**OPTIONS, "arena": False},
    ]


def test_a_process_that_fails_is_one_line(linear: WriteOnnx) -> None:
    with pytest.raises(ModelError, match=r"peak memory of .*model\.onnx can't be measured") as e:
        measure_peak_memory(linear(), {"input": np.zeros((1, 4), np.float32)}, OPTIONS, baseline=0)
    assert "needs the input input float32[batchx3]" in str(e.value)
    assert "\n" not in str(e.value)


def test_it_works_from_an_archive(tmp_path: Path) -> None:
    build_device_app(tmp_path / "app.pyz")
    program = (
        f"import json, sys; sys.path[:] = [{str(tmp_path / 'app.pyz')!r}] + "
        f"[p for p in {sys.path!r} if 'site-packages' in p or 'lib/python' in p]\n"
        "from trpexport.measure import memory\n"
        "print(json.dumps([memory.__file__, memory.baseline_memory()]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    file, peak = json.loads(done.stdout)
    assert file.startswith(str(tmp_path))
    assert peak > 10 * MIB
