"""``trpexport tune`` as it is typed, on this machine and on another one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from tests.cli.conftest import Chained
from tests.conftest import ROOT, Run
from tests.device.loopback import Device
from tests.latency.networks import FakeStopwatch
from trpexport.artifact.build import ExportSettings
from trpexport.calibration_data import CalibrationData
from trpexport.choose.by_latency import ByLatency
from trpexport.datasets import open_data
from trpexport.errors import TrpexportError
from trpexport.latency.store import NAME, Store
from trpexport.onnx_files import OnnxFileSource
from trpexport.refining.refinement import Refinement
from trpexport.tuning import Tuning


@pytest.fixture(scope="module")
def network(chained: Chained) -> Path:
    """A small network, for a clock that is not real."""
    return chained(24, 16)


@pytest.fixture(scope="module")
def tensors(smooth_tensors: Callable[[int], str]) -> str:
    return smooth_tensors(16)


@pytest.fixture(scope="module")
def wide(chained: Chained, smooth_tensors: Callable[[int], str]) -> tuple[Path, str]:
    """A network that is faster as chains on any processor, and inputs of it."""
    return chained(96, 24), smooth_tensors(24)


@pytest.fixture
def typed(network: Path, tensors: str, tmp_path: Path) -> tuple[object, ...]:
    """What makes a bundle, but for the limit."""
    quick = ("--scheme", "channel", "--rank-multiple", 4, "--verify-seconds", 0)
    return ("tune", network, "--calib", tensors, *quick, "--cache", tmp_path / "cache")


def test_a_network_gets_faster(
    run: Run, clock: FakeStopwatch, typed: tuple[object, ...], tmp_path: Path
) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
    result = run(*typed, "--min-speedup", 1.3, "-o", out, "--json")
    assert result.code == 0, result.err
    assert re.search(r"calibration: about \d+ s on 32 images", result.err)
    told = json.loads(result.out)
    latency = told["latency"]
    assert 1.3 <= latency["files"]["fp32"]["speedup"]["mid"] < 2
    assert latency["networks_profiled"] > 0
    assert json.loads((out / "report.json").read_text())["latency"] == latency
    assert clock.latency(out / "baseline.onnx") == pytest.approx(latency["seconds"])
    assert run("verify", out).code == 0
    # What was measured is known now, and shown.
    with Store(cache) as store:
        (contents,) = store.contents()
    assert {time["scheme"] for time in contents["times"]} == {"channel"}
    shown = run("tune", "--show-table", "--cache", cache)
    assert shown.code == 0
    assert "channel 4" in shown.out
    # A bundle that stands is kept.
    assert "exists" in run(*typed, "--min-speedup", 1.3, "-o", out).error


def test_the_original_in_another_precision_is_timed_beside_it(
    run: Run, clock: FakeStopwatch, typed: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    clock.int8 = 0.5
    result = run(*typed, "--min-speedup", 1.3, "--precision", "fp32,int8", "-o", out, "--json")
    assert result.code == 0, result.err
    latency = json.loads(result.out)["latency"]
    assert latency["files"].keys() == {"fp32", "int8"}
    # Ranks are those that are fast in float32: it was named first.
    assert 1.3 <= latency["files"]["fp32"]["speedup"]["mid"] < 2
    assert (latency["gain"]["mid"], latency["beside"]) == (1, None)
    assert latency["originals"].keys() == {"int8"}
    timed = clock.latency(out / "model.int8.onnx")
    assert latency["files"]["int8"]["seconds"] == pytest.approx(timed)
    assert run("verify", f"{out}@int8").code == 0
    shown = " ".join(run("bench", f"{out}@int8", "--no-memory", "--min-time", 0).out.split())
    assert "int8" in shown


def test_ranks_are_chosen_for_another_precision(
    run: Run, clock: FakeStopwatch, typed: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    clock.int8 = 0.5
    result = run(*typed, "--min-speedup", 2.6, "--precision", "int8", "-o", out, "--json")
    assert result.code == 0, result.err
    latency = json.loads(result.out)["latency"]
    files, gain = latency["files"], latency["gain"]["mid"]
    assert (latency["precision"], gain) == ("int8", pytest.approx(2))
    # What was asked for is over the original in float32; half of it comes with the precision.
    assert 2.6 <= files["int8"]["speedup"]["mid"] < 4
    beside = latency["originals"]["int8"]["seconds"] / files["int8"]["seconds"]
    assert latency["beside"]["mid"] == pytest.approx(beside)
    assert latency["predicted_speedup"] == pytest.approx(beside, rel=0.01)
    with Store(tmp_path / "cache") as store:
        (contents,) = store.contents()
    assert contents["precision"] == "int8"
    assert "int8" in run("tune", "--show-table", "--cache", tmp_path / "cache").out


@pytest.mark.parametrize(
    ("dense", "says"),
    [
        (0.5, "runs 1.89x as fast in int8, which is what was asked for"),
        (0.01, "does not pay here over the network as it is in int8: no layer gets faster"),
    ],
)
def test_ranks_that_int8_does_not_need_are_not_made(
    run: Run,
    clock: FakeStopwatch,
    typed: tuple[object, ...],
    tmp_path: Path,
    dense: float,
    says: str,
) -> None:
    clock.int8 = {(24, 24, 3, 3): dense, (24, 3, 3, 3): 2 * dense}
    speedup = 1.5 if dense == 0.5 else 500
    result = run(*typed, "--min-speedup", speedup, "--precision", "int8", "-o", tmp_path / "out")
    assert (result.code, says in result.error) == (3, True), result.error
    assert not (tmp_path / "out").exists()


def test_factors_are_refined_before_the_files_are_timed(
    run: Run, clock: FakeStopwatch, typed: tuple[object, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    typed = (*typed, "--min-speedup", 1.3, "-o", out)
    result = run(*typed, "--refine", 0.02, "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    refined = told["calibration"]["refined"]
    assert refined["after"]["output_error"] <= refined["before"]["output_error"]
    assert refined["images"] == 32 and refined["steps"] > 0
    assert told["latency"]["files"]["fp32"]["speedup"]["mid"] >= 1.3
    assert run("verify", out).code == 0
    shown = run(*typed, "--refine", 0)
    assert (shown.code, "0 minutes makes no sense" in shown.error) == (2, True)


def test_a_bundle_of_another_refinement_is_another_one(
    network: Path, tensors: str, tmp_path: Path
) -> None:
    job = Tuning(ByLatency(speedup=1.3, stopwatch=FakeStopwatch()), ExportSettings())
    data, source = CalibrationData(open_data(tensors)), OnnxFileSource(network)
    how = (None, Refinement(1.0), Refinement(2.0), Refinement(1.0, cache=tmp_path))
    requests = [replace(job, refinement=one).request(source, data) for one in how]
    assert requests[1] == requests[3]
    assert len(set(requests)) == 3


def test_a_front(run: Run, clock: FakeStopwatch, typed: tuple[object, ...], tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(*typed, "--pareto", "-o", out, "--json")
    assert result.code == 0, result.err
    bundles = json.loads(result.out)["bundles"]
    names = [Path(one["bundle"]).name for one in bundles]
    assert names[:2] == ["1.25x", "1.5x"] and sorted(p.name for p in out.iterdir()) == sorted(names)
    speedups = [one["latency"]["files"]["fp32"]["speedup"]["mid"] for one in bundles]
    assert speedups == sorted(speedups)
    assert all(one >= float(name[:-1]) for one, name in zip(speedups, names, strict=True))
    # Those that stand are not made again; of another request they are no part.
    profiled, races = clock.profiled, clock.races
    again = run(*typed, "--pareto", "-o", out, "--json")
    assert [one["bundle"] for one in json.loads(again.out)["bundles"]] == [
        one["bundle"] for one in bundles
    ]
    assert clock.profiled - profiled < 20 and clock.races - races < 10
    other = run(*typed, "--pareto", "--images", 20, "-o", out)
    assert (other.code, "1.25x exists" in other.error) == (2, True)


@pytest.mark.parametrize(("factor", "noise"), [(0.8, 0.0), (0.99, 0.0), (1.0, 0.3), (1.3, 0.0)])
def test_options_of_a_session_are_recommended_where_they_are_faster(
    run: Run,
    clock: FakeStopwatch,
    typed: tuple[object, ...],
    tmp_path: Path,
    factor: float,
    noise: float,
) -> None:
    clock.sessions = {"memory_pattern": factor}
    real = clock.race

    def race(files: Any, seconds: float, sessions: Any = ()) -> Any:
        clock.noise = noise if sessions else 0.0
        return real(files, seconds, sessions)

    clock.race = race  # type: ignore[method-assign]
    out = tmp_path / "out"
    result = run(*typed, "--min-speedup", 1.3, "-o", out)
    assert result.code == 0, result.err
    said = " ".join(result.out.split())
    told = json.loads((out / "manifest.json").read_text()).get("session")
    if factor > 0.98:
        assert told is None
        assert "No option of the session gains 2 % or more" in said
        return
    assert told["options"] == {"memory_pattern": False}
    assert told["speedup"]["mid"] == pytest.approx(1 / factor)
    assert "model.onnx runs 1.250x as fast (1.250 to 1.250x) with memory pattern off" in said
    quick = ("--no-memory", "--min-time", 0, "--min-runs", 1)
    shown = " ".join(run("bench", out, *quick).out.split())
    assert "out ran as its bundle recommends: memory pattern off" in shown
    _, entry = json.loads(run("bench", out, *quick, "--json").out)["results"][0]["models"]
    assert entry["session"] == {"memory_pattern": False}


@pytest.mark.slow
def test_a_network_gets_faster_on_this_processor(
    run: Run, wide: tuple[Path, str], tmp_path: Path
) -> None:
    network, tensors = wide
    options = ("--min-speedup", 1.3, "--scheme", "channel", "--rank-multiple", 16)
    result = run(
        "tune", network, "--calib", tensors, *options, "--cache", tmp_path, "-o", tmp_path / "out",
        "--verify-seconds", 1, "--json",
    )  # fmt: skip
    assert result.code == 0, result.err
    latency = json.loads(result.out)["latency"]
    assert latency["files"]["fp32"]["speedup"]["low"] > 1.2
    assert latency["speedup"]["mid"] >= 1.3


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ((), "name a checkpoint or an ONNX file"),
        (("NETWORK",), "give --min-speedup"),
        (("NETWORK", "--min-speedup", 2), "give --calib"),
        (("NETWORK", "--min-speedup", 2, "--max-error", 0.1), "exclude each other"),
        (("NETWORK", "--min-speedup", 1, "--calib", "CALIB"), "more than 1"),
        (("NETWORK", "--max-latency", "fast", "--calib", "CALIB"), "5ms"),
        (("NETWORK", "--min-speedup", 2, "--calib", "CALIB", "--scheme", "x"), "unknown"),
        (("NETWORK", "--min-speedup", 2, "--calib", "CALIB", "--provider", "x"), "unknown"),
        (("NETWORK", "--min-speedup", 2, "--calib", "CALIB", "--batch", 4), "batch"),
        (("NETWORK", "--min-speedup", 2, "--calib", "CALIB", "--python", "p"), "--host"),
        (("missing.onnx", "--min-speedup", 2, "--calib", "CALIB"), "missing.onnx"),
        (("NETWORK", "--show-table"), "does nothing beside --show-table"),
    ],
)
def test_what_is_typed_wrong_is_told_in_a_line(
    run: Run, network: Path, tensors: str, tmp_path: Path, typed: tuple[object, ...], says: str
) -> None:
    words = {"NETWORK": network, "CALIB": tensors}
    out = () if "--show-table" in typed else ("-o", tmp_path / "out")
    typed = tuple(words.get(str(word), word) for word in typed)
    result = run("tune", *typed, *out)
    assert result.code == 2
    assert says in result.error
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(
    "CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="there is CUDA"
)
def test_a_provider_that_is_not_there_is_told_before_any_work(
    run: Run, typed: tuple[object, ...], tmp_path: Path
) -> None:
    result = run(*typed, "--min-speedup", 2, "--provider", "cuda", "-o", tmp_path / "out")
    assert result.code == 2
    assert "has no CUDAExecutionProvider: pip install" in result.error
    assert len(result.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_more_than_can_be_is_told_and_writes_nothing(
    run: Run, clock: FakeStopwatch, typed: tuple[object, ...], tmp_path: Path
) -> None:
    result = run(*typed, "--min-speedup", 500, "-o", tmp_path / "out")
    assert result.code == 3
    assert "a speed-up of 500 can't be met: with each layer in its fastest way" in result.error
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "cache" / NAME).is_file()


def test_a_device_that_vanishes_leaves_what_it_told(
    run: Run, clock: FakeStopwatch, typed: tuple[object, ...], tmp_path: Path
) -> None:
    real, calls = clock.profiles, count()

    def profiles(files: Any, runs: int) -> Any:
        if next(calls) == 1:
            raise TrpexportError("the connection to device was lost")
        return real(files, runs)

    clock.profiles = profiles  # type: ignore[method-assign]
    typed = (*typed, "--min-speedup", 1.3, "-o", tmp_path / "out", "--json")
    lost = run(*typed)
    assert (lost.code, lost.error.endswith("the connection to device was lost")) == (2, True)
    assert not (tmp_path / "out").exists()
    with Store(tmp_path / "cache") as store:
        known = sum(len(one["times"]) for one in store.contents())
    assert known > 0
    found = run(*typed)
    assert found.code == 0, found.err
    with Store(tmp_path / "cache") as store:
        (contents,) = store.contents()
    ways = len({(time["layer"], time["scheme"], time["rank"]) for time in contents["times"]})
    assert ways == len(contents["times"]) > known


def test_a_table_that_is_none_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("something else")
    result = run("tune", "--show-table", "--cache", tmp_path)
    assert result.code == 2
    assert "remove it" in result.error


@pytest.mark.slow
def test_killed_and_typed_again(wide: tuple[Path, str], tmp_path: Path) -> None:
    network, tensors = wide
    command: list[Any] = [sys.executable, "-m", "trpexport", "tune", network, "--calib", tensors]
    command += ["--min-speedup", "1.3", "--rank-multiple", "4", "--verify-seconds", "1"]
    command += ["--cache", tmp_path / "cache", "-o", tmp_path / "out"]
    first = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    known = 0
    while first.poll() is None and known == 0:
        time.sleep(0.2)
        if (tmp_path / "cache" / NAME).is_file():
            with Store(tmp_path / "cache") as store:
                known = sum(len(one["times"]) for one in store.contents())
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert known > 0
    assert not (tmp_path / "out").exists()
    second = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert (tmp_path / "out" / "manifest.json").is_file()


@pytest.mark.slow
def test_another_machine_times(
    run: Run,
    device: Device,
    wide: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = " ".join(device.options["ssh"])
    real = subprocess.run(["which", "ssh"], capture_output=True, text=True, check=True)
    script = tmp_path / "bin" / "ssh"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {program.replace("ssh", real.stdout.strip(), 1)} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    network, tensors = wide
    typed: tuple[object, ...] = (
        "tune",
        network,
        "--calib",
        tensors,
        "--min-speedup",
        1.3,
        "--scheme",
        "channel",
    )
    typed = (*typed, "--cache", tmp_path / "cache", "--rank-multiple", 32, "--verify-seconds", 1)
    result = run(*typed, "-o", tmp_path / "out", "--host", "device", "--python", sys.executable)
    assert result.code == 0, result.err
    assert device.left_behind() == []
    # One that does not answer is told before any work is done.
    gone = run(*typed, "-o", tmp_path / "other", "--host", "off", "--python", sys.executable)
    assert gone.code == 2
    assert "can't be reached" in gone.error
