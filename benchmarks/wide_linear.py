"""What decomposing networks with very wide linear layers takes: time and memory, from end to end.

    python -m benchmarks.wide_linear [NETWORK/plain|calibrated ...]

Networks of the zoo at ImageNet's size with random weights, whose singular values are made to fall
as trained ones do; each decomposed by ``trpexport decompose`` in a process of its own, into
channel pairs: plain of a quarter of the full ranks, calibrated on 64 random images at half of the
parameters. Of the latter it says besides what the network loses on other images, and what it would
lose with the SVD's factors of the same ranks. Seconds of the processor are of all threads, and are
what a busy machine changes least. Adds to ``results/wide_linear.json``.
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
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from benchmarks.environment import RESULTS, environment, run
from trpexport.choose.calibrate import truncations
from trpexport.networks.torch.network import TorchNetwork
from trpexport.plan import parse_plan
from trpexport.runtime.session import open_session, run_in_batches

RESULT = RESULTS / "wide_linear.json"
CASES = (
    "alexnet-imagenet/plain",
    "alexnet-imagenet/calibrated",
    "vgg16-imagenet/plain",
    "vgg16-imagenet/calibrated",
)
IMAGES, OTHERS = 64, 16


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


def images(count: int, seed: int) -> NDArray[np.float32]:
    """Return random images, (count, 3, 224, 224)."""
    return np.random.default_rng(seed).standard_normal((count, 3, 224, 224), dtype=np.float32)


def errors(name: str, checkpoint: Path, bundle: Path) -> dict[str, float]:
    """Return what a bundle loses on other images, and the SVD's factors of its ranks."""
    zoo = importlib.import_module("trpexport.models_zoo")
    module = zoo.parse_architecture(name, num_classes=1000).build().eval()
    module.load_state_dict(load_file(checkpoint))
    network = TorchNetwork.open(module, (1, 3, 224, 224))
    plan = parse_plan(json.loads((bundle / "plan.json").read_text()))
    feeds = {"input": images(OTHERS, seed=1)}
    wanted = network.run(feeds)["output"]
    found = network.rewritten(truncations(network, plan)).run(feeds)["output"]
    session = open_session(bundle / "model.onnx")
    given = run_in_batches(session, {session.inputs[0].name: feeds["input"]})
    variation = np.linalg.norm(wanted - wanted.mean(0))
    return {
        "error_on_others": float(np.linalg.norm(next(iter(given.values())) - wanted) / variation),
        "svd_error_on_others": float(np.linalg.norm(found - wanted) / variation),
    }


def decomposed(case: str, folder: Path) -> dict[str, Any]:
    """Decompose such a network, and return what the process took and what the bundle says."""
    name, kind = case.split("/")
    checkpoint, out = folder / f"{name}.safetensors", folder / "bundle"
    if not checkpoint.exists():
        write_checkpoint(name, checkpoint)
    command = [sys.executable, "-m", "trpexport", "decompose", str(checkpoint), "--arch", name]
    command += ["--scheme", "channel", "--rank-multiple", "1", "--force", "-o", str(out)]
    if kind == "plain":
        command += ["--criterion", "fraction:0.25"]
    else:
        np.savez(folder / "images.npz", input=images(IMAGES, seed=0))
        command += ["--target-params", "0.5", "--calib", f"tensors:{folder / 'images.npz'}"]
        command += ["--cache", str(folder / "tables")]
    start = time.perf_counter()
    child = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(child, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"{case}: exit code {os.waitstatus_to_exitcode(status)}")
    plan = json.loads((out / "plan.json").read_text())
    lost = errors(name, checkpoint, out) if kind == "calibrated" else {}
    return {
        **lost,
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
