"""What decomposing networks with very wide linear layers takes: time and memory, from end to end.

    python -m benchmarks.wide_linear [NETWORK/plain|calibrated ...]

Networks of the zoo at ImageNet's size with random weights, whose singular values are made to fall
as trained ones do; each decomposed by ``trpexport decompose`` in a process of its own, into
channel pairs of a quarter of the full ranks. Calibration is on 32 random images. Seconds of the
processor are of all threads, and are what a busy machine changes least. Adds to
``results/wide_linear.json``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.environment import RESULTS, environment, run

RESULT = RESULTS / "wide_linear.json"
CASES = (
    "alexnet-imagenet/plain",
    "alexnet-imagenet/calibrated",
    "vgg16-imagenet/plain",
    "vgg16-imagenet/calibrated",
)
IMAGES = 32


def write_checkpoint(name: str, path: Path) -> None:
    """Write the weights of a network of the zoo, each a product that favours some directions."""
    torch.manual_seed(0)
    zoo = importlib.import_module("trpexport.models_zoo")
    weights = zoo.parse_architecture(name, num_classes=1000).build().state_dict()
    for key, weight in weights.items():
        if weight.ndim > 1:
            rows = weight.flatten(1)
            scale = torch.arange(1, len(rows) + 1) ** -0.5
            mixed = torch.randn(len(rows), len(rows)) @ (scale[:, None] * rows)
            weights[key] = (mixed * (rows.norm() / mixed.norm())).reshape(weight.shape)
    save_file({key: weight.contiguous() for key, weight in weights.items()}, path)


def decomposed(case: str, folder: Path) -> dict[str, Any]:
    """Decompose such a network, and return what the process took and what the bundle says."""
    name, kind = case.split("/")
    checkpoint, out = folder / f"{name}.safetensors", folder / "bundle"
    if not checkpoint.exists():
        write_checkpoint(name, checkpoint)
    command = [sys.executable, "-m", "trpexport", "decompose", str(checkpoint), "--arch", name]
    command += ["--scheme", "channel", "--criterion", "fraction:0.25"]
    command += ["--rank-multiple", "1", "--force", "-o", str(out)]
    if kind == "calibrated":
        images = folder / "images.npz"
        shape = (IMAGES, 3, 224, 224)
        values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        np.savez(images, input=values)
        command += ["--calib", f"tensors:{images}"]
    start = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{case}: exit code {os.waitstatus_to_exitcode(status)}")
    plan = json.loads((out / "plan.json").read_text())
    return {
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
        "ranks": {
            layer["name"]: layer["rank"] for layer in plan["layers"] if layer["rank"] is not None
        },
    }


def main() -> None:
    """Measure each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("cases", nargs="*", default=CASES)
    args = parser.parse_args()
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for case in args.cases:
            found = decomposed(case, Path(folder))
            results[case] = {**found, "environment": environment()}
            RESULT.write_text(json.dumps(results, indent=1) + "\n")
            print(case, found)


if __name__ == "__main__":
    run(main)
