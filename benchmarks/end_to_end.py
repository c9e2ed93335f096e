"""How long a checkpoint takes to become a verified bundle, how much memory, and which stage.

    python -m benchmarks.end_to_end [--checkpoint resnet20.th] [--runs 3]

Runs ``trpexport decompose`` as a user does, in a process of its own: ResNet-20 at 32 (with its
published weights where ``--checkpoint`` names them) and ResNet-50 at 224 (random weights, a third
of the ranks: its time does not depend on what the weights are). Time and peak memory are those of
the whole process, as the operating system counts them. Writes ``results/end_to_end.json``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run


def decompose(checkpoint: Path, options: Sequence[object], out: Path) -> dict[str, Any]:
    """Run the command once; return seconds by the clock and of processors, peak bytes, stages."""
    typed = [*map(str, options), "-o", str(out)]
    command = [sys.executable, "-m", "trpexport", "decompose", str(checkpoint)]
    command += [*typed, "--rank-multiple", "1"]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
    report = json.loads((out / "report.json").read_text())
    stages = report["seconds"]
    return {
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": usage.ru_maxrss * 1024,
        "stages": {"start Python and torch": seconds - sum(stages.values()), **stages},
        "inputs_verified": min(
            output["inputs"] for output in report["steps"][-1]["outputs"].values()
        ),
    }


def random_checkpoint(preset: str, folder: Path) -> Path:
    """Write a checkpoint of a network with random weights."""
    torch.manual_seed(0)
    zoo = importlib.import_module("trpexport.models_zoo")
    architecture = zoo.parse_architecture(preset, num_classes=1000)
    path = folder / f"{preset}.safetensors"
    tx.save_checkpoint(path, architecture.build().eval(), architecture=architecture)
    return path


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median over runs of every figure, and each stage's share of the time."""
    seconds = median(run["seconds"] for run in runs)
    stages = {name: median(run["stages"][name] for run in runs) for name in runs[0]["stages"]}
    return {
        "runs": len(runs),
        "seconds": {
            "median": round(seconds, 1),
            "all": [round(run["seconds"], 1) for run in runs],
        },
        "peak_gigabytes": round(max(run["peak_bytes"] for run in runs) / 1e9, 2),
        "inputs_verified": min(run["inputs_verified"] for run in runs),
        "share_of_time": {name: round(value / seconds, 3) for name, value in stages.items()},
    }


def main() -> None:
    """Measure both networks and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, help="a trained ResNet-20")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small = args.checkpoint or random_checkpoint("resnet20", folder)
        cases = {
            "ResNet-20 at 32": (small, "energy:0.9" if args.checkpoint else "fraction:0.33"),
            "ResNet-50 at 224": (random_checkpoint("resnet50", folder), "fraction:0.33"),
        }
        for label, (checkpoint, criterion) in cases.items():
            runs = [
                decompose(
                    checkpoint, ["--criterion", criterion], folder / f"{checkpoint.stem}-{index}"
                )
                for index in range(args.runs)
            ]
            found[label] = {"criterion": criterion, **summary(runs)}
            print(label, json.dumps(found[label], indent=2), flush=True)
    result = {"environment": environment(), "results": found}
    (RESULTS / "end_to_end.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
