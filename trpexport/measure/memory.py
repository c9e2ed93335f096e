"""Peak memory of running a network: that of a process that does nothing else.

A process that runs several networks, or one network twice, tells nothing of a single one: memory
is not given back. Each figure is that of a fresh process, and the memory of one that only imports
ONNX Runtime is said beside it.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trpexport.arrays import read_arrays, write_arrays
from trpexport.errors import ModelError
from trpexport.measure.children import run_child
from trpexport.runtime.session import import_onnxruntime, open_session
from trpexport.tensors import Arrays

_RUNS = 2  # the second one allocates by the pattern that the first one has shown


@dataclass(frozen=True)
class PeakMemory:
    """Largest resident sets, in bytes.

    Attributes:
        baseline: of a process that imports ONNX Runtime.
        with_arena: of one that opens and runs the network too, where ONNX Runtime keeps memory in
            an arena, as it does by default.
        without_arena: of one where it gives memory back after each operator.
    """

    baseline: int
    with_arena: int
    without_arena: int

    def to_json(self) -> dict[str, int]:
        """Return the figures, and what is above the baseline, as JSON-ready data."""
        data = {f"{name}_bytes": value for name, value in asdict(self).items()}
        return data | {
            "above_baseline_with_arena_bytes": self.with_arena - self.baseline,
            "above_baseline_without_arena_bytes": self.without_arena - self.baseline,
        }


def baseline_memory() -> int:
    """Return the peak memory of a fresh process that imports ONNX Runtime, in bytes.

    Raises:
        ModelError: it fails.
    """
    return _peak_of_child({}, "onnxruntime")


def measure_peak_memory(
    model: Path, inputs: Arrays, options: Mapping[str, Any], *, baseline: int
) -> PeakMemory:
    """Open and run a network in processes of its own.

    Args:
        model: the ONNX file.
        inputs: an array for every input, by name.
        options: JSON-ready keyword arguments of :func:`open_session`, without ``arena``.
        baseline: what :func:`baseline_memory` returned.

    Raises:
        ModelError: such a process fails, of too little memory for instance.
    """
    with tempfile.TemporaryDirectory(prefix="trpexport-memory-") as directory:
        file = Path(directory) / "inputs.npz"
        write_arrays(file, inputs)
        job = {"model": str(model), "inputs": str(file)}
        with_arena, without_arena = (
            _peak_of_child({**job, "options": {**options, "arena": arena}}, str(model))
            for arena in (True, False)
        )
    return PeakMemory(baseline, with_arena, without_arena)


def _peak_of_child(job: Mapping[str, Any], label: str) -> int:
    """Return the peak memory of a process that does one job."""
    done = run_child("trpexport.measure.memory", job)
    try:
        return int(done.stdout)
    except ValueError:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"its process ended with {done.returncode}"
        raise ModelError(
            f"the peak memory of {label} can't be measured ({reason}): leave it out, or free memory"
        ) from None


def _do(job: Mapping[str, Any]) -> int:
    """Do a job in this process, and return the peak memory in bytes."""
    import_onnxruntime()
    if job:
        inputs = read_arrays(Path(job["inputs"]))
        session = open_session(Path(job["model"]), **job["options"])
        for _ in range(_RUNS):
            session.run(inputs)
    return _own_peak()


def _own_peak() -> int:
    """Return the largest resident set that this process had, in bytes.

    Linux counts the parent's into ``ru_maxrss`` of a child that was started with vfork, as Python
    does it; VmHWM is the process's own.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.stdout.write(str(_do(json.load(sys.stdin))))
