"""Running networks with ONNX Runtime for aarch64 under QEMU: what they put out and what they cost.

An emulated network computes what it would on the real processor, and runs the same instructions,
so both are told. How long that takes says nothing about the processor, and is not.
"""

from __future__ import annotations

import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trpexport.arrays import read_arrays, write_arrays
from trpexport.compare import Comparison, compare_outputs
from trpexport.device.app import ERROR, build_device_app, told_error
from trpexport.device.app_runs import ReplaySettings
from trpexport.device.emulate.arm_cpus import CPUS
from trpexport.device.emulate.arm_setup import (
    PREPARE,
    Announce,
    ArmEnvironment,
    find_environment,
)
from trpexport.errors import TrpexportError
from trpexport.files import write_json
from trpexport.runtime.session import open_session, run_in_batches
from trpexport.tensors import Array, Arrays

_COUNTS = re.compile(r"^\[icount\] instructions (\d+) fma (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Counts:
    """What one run of a network takes: one image, or one batch where its size is fixed.

    Counted on one thread, after a warm-up, mean of a few runs. The call from Python is included,
    some 70 thousand instructions. Two counts of a network differ by far less than 0.5 %.

    Attributes:
        instructions: all instructions.
        neon_fmas: those of them that are NEON multiply-adds, each of up to 8 MACs. SVE and SME,
            which the CPU "max" has, are not among them.
    """

    instructions: int
    neon_fmas: int


@dataclass(frozen=True)
class EmulatedModel:
    """What a network did under emulation.

    Attributes:
        path: the ONNX file.
        outputs: an array for every output, by name.
        comparison: how they differ from the outputs that ONNX Runtime computes here, by name.
        counts: what a run takes; None if that can't be counted.
    """

    path: Path
    outputs: Arrays
    comparison: Mapping[str, Comparison]
    counts: Counts | None


@dataclass(frozen=True)
class Emulated:
    """What networks did under emulation.

    Attributes:
        cpu: the emulated processor, a name in :data:`~trpexport.device.emulate.arm_cpus.CPUS`.
        versions: versions of the emulated software, and of ``qemu``.
        models: one entry a network, in the order in which they were given.
        counts_unavailable: why instructions were not counted; None if they were.
    """

    cpu: str
    versions: Mapping[str, str]
    models: tuple[EmulatedModel, ...]
    counts_unavailable: str | None

    def to_json(self) -> dict[str, Any]:
        """Return all but the outputs as JSON-ready data."""
        return {
            "kind": "emulated",
            "cpu": self.cpu,
            "versions": dict(self.versions),
            "models": [
                {
                    "path": str(model.path),
                    "comparison": {name: c.to_json() for name, c in model.comparison.items()},
                    "counts": asdict(model.counts) if model.counts else None,
                }
                for model in self.models
            ],
            "counts_unavailable": self.counts_unavailable,
        }


def run_emulated(
    cpu: str,
    models: Sequence[Path],
    inputs: Sequence[Arrays],
    *,
    counted_runs: int = 3,
    environment: ArmEnvironment | None = None,
    announce: Announce | None = None,
) -> Emulated:
    """Run networks on an emulated ARM processor, each in a process of its own, on one thread.

    Args:
        cpu: a name in :data:`~trpexport.device.emulate.arm_cpus.CPUS`.
        models: ONNX files.
        inputs: for each network an array for every input, by name; first dimensions count images.
        counted_runs: runs that instructions are counted over; 0 counts none.
        environment: what to run in; the one in the user's cache folder if None.
        announce: called with a line on each step.

    Raises:
        TrpexportError: the emulation is not prepared, there is no such CPU, or it crashes.
        ModelError: a network can't be run on the inputs.
    """
    note = CPUS[cpu].note  # an unknown name is told before a missing environment
    environment = environment or find_environment()
    say = announce or (lambda line: None)
    if note is not None:
        say(f"{cpu}: {note}")
    # A network that can't be run is best explained here; the emulated runtime is the same one.
    expected = [
        run_in_batches(open_session(model, threads=1), own)
        for model, own in zip(models, inputs, strict=True)
    ]
    counting = counted_runs > 0 and environment.counts_unavailable is None
    emulated: list[EmulatedModel] = []
    with tempfile.TemporaryDirectory(prefix="trpexport-") as name:
        folder = Path(name)
        build_device_app(folder / "device.pyz")
        for model, own, reference in zip(models, inputs, expected, strict=True):
            write_arrays(folder / "inputs.npz", own)
            say(f"run {model} on an emulated {cpu}")
            outputs, counts = _replay(
                environment, cpu, model, folder, counted_runs if counting else 0
            )
            comparison = compare_outputs([(reference, outputs)])
            emulated.append(EmulatedModel(model, outputs, comparison, counts))
    unavailable = environment.counts_unavailable if counted_runs else "they were not asked for"
    return Emulated(cpu, environment.versions, tuple(emulated), unavailable)


def _replay(
    environment: ArmEnvironment, cpu: str, model: Path, folder: Path, counted_runs: int
) -> tuple[dict[str, Array], Counts | None]:
    """Run one network in a fresh process, with the app and the inputs in ``folder``."""
    settings = ReplaySettings(
        models=(str(model.absolute()),),
        inputs=str(folder / "inputs.npz"),
        outputs=(str(folder / "outputs.npz"),),
        counted_runs=counted_runs,
    )
    write_json(folder / "settings.json", settings.to_json())
    arguments = (str(folder / "device.pyz"), str(folder / "settings.json"))
    process = subprocess.run(
        environment.command(cpu, *arguments, count=counted_runs > 0),
        env=environment.variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode != 0:
        raise _failure(process, f"on an emulated {cpu}")
    outputs = read_arrays(folder / "outputs.npz")
    return outputs, _counts(process.stderr, counted_runs) if counted_runs else None


def _counts(log: str, runs: int) -> Counts:
    found = _COUNTS.search(log)
    if found is None:
        raise TrpexportError(f"the emulator counted no instructions: run {PREPARE} again")
    instructions, neon_fmas = map(int, found.groups())
    return Counts(round(instructions / runs), round(neon_fmas / runs))


def _failure(process: subprocess.CompletedProcess[str], where: str) -> TrpexportError:
    """Return in a line why the emulated program failed."""
    lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
    for line in lines:
        if line.startswith(ERROR):
            return told_error(line, where)
    reason = lines[-1]
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        reason = f"onnxruntime crashed ({name}): run {PREPARE} again, or choose another CPU"
    return TrpexportError(f"{where}: {reason}")
