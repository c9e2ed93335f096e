"""What needs the emulator is skipped unless ``TRPEXPORT_ARM`` names a prepared environment."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from trpexport.device.emulate import emulation
from trpexport.device.emulate.arm_cpus import CPUS
from trpexport.device.emulate.arm_setup import ArmEnvironment, find_environment, prepare
from trpexport.device.emulate.emulation import Counts, run_emulated
from trpexport.errors import ModelError, TrpexportError
from trpexport.runtime.session import open_session
from trpexport.tensors import Array

WriteOnnx = Callable[..., Path]

# Entries of the auxiliary vector, and their bits: Linux, arch/arm64/include/uapi/asm/hwcap.h
HWCAP, HWCAP2 = 16, 26
BITS = {
    HWCAP: {"fp": 0, "asimd": 1, "aes": 3, "pmull": 4, "sha1": 5, "sha2": 6, "crc32": 7}
    | {"atomics": 8, "fphp": 9, "asimdhp": 10, "cpuid": 11, "asimdrdm": 12, "lrcpc": 15}
    | {"dcpop": 16, "asimddp": 20, "sve": 22},
    HWCAP2: {"sve2": 1, "i8mm": 13, "bf16": 14, "sme": 23},
}


@pytest.fixture(scope="session")
def arm() -> ArmEnvironment:
    path = os.environ.get("TRPEXPORT_ARM")
    if not path:
        pytest.skip("needs the ARM emulation: set TRPEXPORT_ARM=DIR, then trpexport arm-setup")
    return find_environment(Path(path))


@pytest.fixture
def unprepared(tmp_path: Path) -> ArmEnvironment:
    """An environment whose emulator each test makes up as a shell script."""
    (tmp_path / "host/usr/bin").mkdir(parents=True)
    return ArmEnvironment(tmp_path, {"onnxruntime": "1.31.1"}, None)


def emulator(environment: ArmEnvironment, script: str) -> None:
    program = environment.root / "host/usr/bin/qemu-aarch64"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def inputs(count: int = 1) -> dict[str, Array]:
    x = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    return {"input": x}


def test_without_preparation_the_command_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linear: WriteOnnx
) -> None:
    monkeypatch.setenv("TRPEXPORT_ARM", str(tmp_path))
    with pytest.raises(TrpexportError, match=r"not prepared in .*: run trpexport arm-setup"):
        run_emulated("cortex-a53", [linear()], [inputs()])
    with pytest.raises(TrpexportError, match=r"did you mean .*cortex-a53"):
        run_emulated("cortex-a5", [linear()], [inputs()])


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo noise >&2; echo 'error: no good' >&2; exit 2", "on an emulated cortex-a76: no good"),
        ("echo one >&2; echo two >&2; exit 1", "on an emulated cortex-a76: two"),
        ("exit 7", "on an emulated cortex-a76: exit code 7"),
        ("kill -SEGV $$", r"cortex-a76: onnxruntime crashed \(SIGSEGV\): run trpexport arm-setup"),
    ],
)
def test_a_failure_is_one_line(
    unprepared: ArmEnvironment, linear: WriteOnnx, script: str, message: str
) -> None:
    emulator(unprepared, script)
    with pytest.raises(TrpexportError, match=message) as caught:
        run_emulated("cortex-a76", [linear()], [inputs()], environment=unprepared)
    assert "\n" not in str(caught.value)


def test_inputs_are_checked_before_the_emulator_starts(
    unprepared: ArmEnvironment, linear: WriteOnnx
) -> None:
    with pytest.raises(ModelError, match="but was given none"):
        run_emulated("cortex-a76", [linear()], [{}], environment=unprepared)


@pytest.fixture
def pretending(unprepared: ArmEnvironment) -> ArmEnvironment:
    """An emulator that runs this very Python, and counts 3000 instructions and 30 FMAs."""
    emulator(
        unprepared,
        'until [ "${1##*/}" = python3.11 ]; do shift; done\n'
        "echo '[icount] instructions 3001 fma 30' >&2\n"
        f'unset PYTHONPATH LD_LIBRARY_PATH; shift; exec {sys.executable} "$@"',
    )
    return unprepared


def test_outputs_are_compared_and_counts_are_per_run(
    pretending: ArmEnvironment, linear: WriteOnnx
) -> None:
    model, lines = linear(), list[str]()
    result = run_emulated(
        "max", [model], [inputs(2)], counted_runs=3, environment=pretending, announce=lines.append
    )
    (emulated,) = result.models
    np.testing.assert_array_equal(
        emulated.outputs["output"], open_session(model).run(inputs(2))["output"]
    )
    assert emulated.comparison["output"].max_error == 0
    assert emulated.counts == Counts(instructions=1000, neon_fmas=10)
    assert lines[0] == (
        "max: emulates SME, which takes about ten times as long as the other processors"
    )
    facts = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert facts["models"][0]["counts"] == {"instructions": 1000, "neon_fmas": 10}
    assert facts["counts_unavailable"] is None


def test_each_network_runs_on_inputs_of_its_own(
    pretending: ArmEnvironment, write_onnx: WriteOnnx
) -> None:
    sizes = (3, 5)
    models = [
        write_onnx([helper.make_node("Neg", ["x"], ["y"])], {"x": ("n", n)}, {"y": ("n", n)})
        for n in sizes
    ]
    arrays = [{"x": np.full((1, n), n, np.float32)} for n in sizes]
    result = run_emulated("cortex-a53", models, arrays, environment=pretending)
    for model, n in zip(result.models, sizes, strict=True):
        assert model.outputs["y"].tolist() == [[-n] * n]


def test_counts_that_are_not_there_say_why(pretending: ArmEnvironment, linear: WriteOnnx) -> None:
    without = ArmEnvironment(pretending.root, pretending.versions, "no gcc")
    result = run_emulated("cortex-a53", [linear()], [inputs()], environment=without)
    assert (result.models[0].counts, result.counts_unavailable) == (None, "no gcc")
    result = run_emulated(
        "cortex-a53", [linear()], [inputs()], environment=pretending, counted_runs=0
    )
    assert result.models[0].counts is None
    assert result.counts_unavailable == "they were not asked for"


def test_an_emulator_that_does_not_count_is_told(
    pretending: ArmEnvironment, linear: WriteOnnx, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulation, "_COUNTS", re.compile("never"))
    with pytest.raises(TrpexportError, match=r"counted no instructions: run .* again"):
        run_emulated("cortex-a53", [linear()], [inputs()], environment=pretending)


def test_what_is_prepared_is_found_ready(arm: ArmEnvironment) -> None:
    lines: list[str] = []
    assert prepare(arm.root, announce=lines.append) == arm
    assert lines == [f"{arm.root} is ready"]
    assert arm.versions["onnxruntime"] == onnxruntime.__version__


@pytest.mark.parametrize("cpu", list(CPUS))
def test_the_guest_is_told_what_the_processor_can_do(arm: ArmEnvironment, cpu: str) -> None:
    program = (
        "import ctypes, platform\n"
        "c = ctypes.CDLL(None)\n"
        "c.getauxval.restype = ctypes.c_ulong; c.getauxval.argtypes = [ctypes.c_ulong]\n"
        f"print(platform.machine(), c.getauxval({HWCAP}), c.getauxval({HWCAP2}))\n"
        "print(open('/proc/cpuinfo').read(), end='')"
    )
    command = arm.command(cpu, "-c", program)
    output = subprocess.check_output(command, env=arm.variables, text=True)
    first, _, cpuinfo = output.partition("\n")
    machine, *words = first.split()
    assert machine == "aarch64"
    assert cpuinfo == CPUS[cpu].cpuinfo(os.cpu_count() or 1)
    capabilities = dict(zip((HWCAP, HWCAP2), map(int, words), strict=True))
    able = {
        name
        for entry, bits in BITS.items()
        for name, bit in bits.items()
        if capabilities[entry] >> bit & 1
    }
    told = set(CPUS[cpu].features.split()) - {"evtstrm"}  # the kernel's, not the processor's
    assert told <= able
    if cpu != "max":
        assert able == told


def test_fmas_are_those_that_a_product_needs(arm: ArmEnvironment, write_onnx: WriteOnnx) -> None:
    """64x64 by 64x64 takes 64^3 MACs, of which an FMA on a 128-bit register does 4."""
    weight = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
    model = write_onnx(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"x": (64, 64)},
        {"y": (64, 64)},
        {"w": weight},
    )
    result = run_emulated("cortex-a72", [model], [{"x": weight}], environment=arm)
    (emulated,) = result.models
    assert emulated.comparison["y"].max_error < 1e-5
    if arm.counts_unavailable:
        pytest.skip(arm.counts_unavailable)
    assert emulated.counts is not None
    assert emulated.counts.neon_fmas == 64**3 // 4
    assert emulated.counts.instructions > emulated.counts.neon_fmas


@pytest.mark.slow
def test_a_real_network_gives_the_same_outputs_and_counts(
    arm: ArmEnvironment, shared: Path, tmp_path: Path
) -> None:
    app = importlib.import_module("trpexport.cli")
    checkpoint = str(shared / "checkpoints/resnet20-12fca82f.th")
    quick = ["--verify-seconds", "0"]
    assert app.run(["export", checkpoint, "-o", str(tmp_path / "dense"), *quick]) == 0
    pairs = ["decompose", checkpoint, "--criterion", "energy:0.9", "-o", str(tmp_path / "pairs")]
    assert app.run([*pairs, *quick]) == 0
    models = [tmp_path / name / "model.onnx" for name in ("dense", "pairs")]
    x = open_session(models[0]).random_inputs(4)
    first, second = (run_emulated("cortex-a76", models, [x, x], environment=arm) for _ in range(2))
    for model in first.models:
        assert all(comparison.max_error < 1e-5 for comparison in model.comparison.values())
    if arm.counts_unavailable:
        pytest.skip(arm.counts_unavailable)
    counts = [[m.counts for m in result.models if m.counts] for result in (first, second)]
    for one, other in zip(*counts, strict=True):
        assert one.instructions == pytest.approx(other.instructions, rel=0.005)
        assert one.neon_fmas == other.neon_fmas
    dense, pair = counts[0]
    # 40.55 million MACs (cost.py's tests), 4 an FMA; the kernels fill up odd widths.
    assert dense.neon_fmas == pytest.approx(40_551_040 / 4, rel=0.02)
    assert pair.instructions < 0.75 * dense.instructions
