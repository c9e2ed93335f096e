"""``trpexport tune`` as it is typed, on this machine and on another one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.conftest import ROOT, Run
from tests.device.loopback import Device
from trpexport.latency.store import NAME, Store

CHANNELS, SIZE = 96, 24


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three wide convolutions of low rank: to write them as chains pays on any processor."""
    generator = np.random.default_rng(0)
    nodes, stored, value = [], [], "input"
    for index, channels in enumerate((3, CHANNELS, CHANNELS, CHANNELS)):
        left = generator.standard_normal((CHANNELS, 8))
        right = generator.standard_normal((8, channels * 9)) / (channels * 9 * 8) ** 0.5
        kernel = (left @ right).reshape(CHANNELS, channels, 3, 3).astype(np.float32)
        stored.append(numpy_helper.from_array(kernel, f"conv{index}.weight"))
        nodes.append(
            helper.make_node(
                "Conv",
                [value, f"conv{index}.weight"],
                [f"y{index}"],
                pads=[1] * 4,
                name=f"n{index}",
            )
        )
        nodes.append(helper.make_node("Relu", [f"y{index}"], [value := f"x{index}"]))
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["output"]))
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, (1, 3, SIZE, SIZE))],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, (1, CHANNELS, 1, 1))],
        stored,
    )
    path = tmp_path_factory.mktemp("network") / "network.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Inputs to calibrate on, as they are typed."""
    path = tmp_path_factory.mktemp("tensors") / "inputs.npz"
    noise = np.random.default_rng(1).standard_normal((40, 3, SIZE, SIZE))
    np.savez(path, input=noise.cumsum(3).astype(np.float32) / 8)
    return f"tensors:{path}"


def test_a_network_gets_faster(run: Run, network: Path, tensors: str, tmp_path: Path) -> None:
    out, cache = tmp_path / "out", tmp_path / "cache"
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
    typed = (*typed, "--cache", cache, "--rank-multiple", 16, "--verify-seconds", 1)
    result = run(*typed, "-o", out, "--json")
    assert result.code == 0, result.err
    told = json.loads(result.out)
    latency = told["latency"]
    assert latency["files"]["fp32"]["speedup"]["low"] > 1.2
    assert latency["speedup"]["mid"] >= 1.3
    assert latency["networks_profiled"] > 0
    assert json.loads((out / "report.json").read_text())["latency"] == latency
    assert (out / "baseline.onnx").is_file()
    assert run("verify", out).code == 0
    # What was measured is known now, and shown.
    with Store(cache) as store:
        (contents,) = store.contents()
    assert {time["scheme"] for time in contents["times"]} == {"channel"}
    shown = run("tune", "--show-table", "--cache", cache)
    assert shown.code == 0
    assert "channel 16" in shown.out
    # A bundle that stands is kept.
    assert "exists" in run(*typed, "-o", out).error


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


def test_more_than_can_be_is_told_and_writes_nothing(
    run: Run, network: Path, tensors: str, tmp_path: Path
) -> None:
    typed: tuple[object, ...] = (
        "tune",
        network,
        "--calib",
        tensors,
        "--min-speedup",
        500,
        "--scheme",
        "channel",
    )
    typed = (*typed, "--cache", tmp_path / "cache", "--rank-multiple", 32)
    result = run(*typed, "-o", tmp_path / "out")
    assert result.code == 3
    assert "a speed-up of 500 can't be met: with each layer in its fastest way" in result.error
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "cache" / NAME).is_file()


def test_a_table_that_is_none_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("something else")
    result = run("tune", "--show-table", "--cache", tmp_path)
    assert result.code == 2
    assert "remove it" in result.error


@pytest.mark.slow
def test_killed_and_typed_again(network: Path, tensors: str, tmp_path: Path) -> None:
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
    network: Path,
    tensors: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("ssh", "scp"):
        program = " ".join(device.options[name])
        real = subprocess.run(["which", name], capture_output=True, text=True, check=True)
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\nexec {program.replace(name, real.stdout.strip(), 1)} "$@"\n')
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
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
