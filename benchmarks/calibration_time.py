"""How long calibrated decomposition to half the MACs takes, start to end, and how much memory.

    python -m benchmarks.calibration_time --data cifar10:DIR --checkpoint resnet20.th [CASE ...]

Runs ``trpexport decompose --calib`` as a user does, in a process of its own and with nothing in the
cache: ResNet-20 with 512 images, and ResNet-50 at 224 with the same images enlarged. Its weights
are random, but its batch norms know these images: it loses so much that its ranks are corrected by
a second calibration, as may be true of a trained network. Adds to
``results/calibration_time.json``, where the first measurement of a case stays under ``before``, and
prints both, stage by stage.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import trpexport as tx
from benchmarks.calibration_curve import Images
from benchmarks.end_to_end import decompose, random_checkpoint
from benchmarks.environment import RESULTS, environment, run
from benchmarks.networks import NORMALISE

RESULT = RESULTS / "calibration_time.json"
BATCH = 16
# Name: network, scheme, images.
CASES = {
    "resnet20-spatial": ("resnet20", "spatial", 512),
    "resnet20-channel": ("resnet20", "channel", 512),
    "resnet20-auto": ("resnet20", "auto", 512),
    "resnet50-spatial": ("resnet50", "spatial", 64),
    "resnet50-spatial-256": ("resnet50", "spatial", 256),
}


def enlarged(args: argparse.Namespace, count: int) -> NDArray[np.float32]:
    """Return images of 224 x 224 pixels, normalised."""
    images = Images(args.data, tx.load(args.checkpoint), count)
    return images.calibration.repeat(7, axis=2).repeat(7, axis=3)


def written(images: NDArray[np.float32], folder: Path) -> str:
    """Write images as pixels and return what ``--calib`` takes."""
    mean, std = (np.array(some)[:, None, None] for some in (NORMALISE.mean, NORMALISE.std))
    pixels = ((images * std + mean) * 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
    path = folder / "images.npz"
    np.savez(path, train_images=pixels, train_labels=np.zeros(len(images), dtype=np.int64))
    return f"npz:{path}"


def settled_checkpoint(preset: str, images: NDArray[np.float32], folder: Path) -> Path:
    """Write a checkpoint of a network with random weights, but batch norms that know the images."""
    path = random_checkpoint(preset, folder)
    checkpoint = tx.load(path)
    norms = [one for one in checkpoint.module.modules() if isinstance(one, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    checkpoint.module.train()
    with torch.no_grad():
        for batch in torch.split(torch.from_numpy(images), BATCH):
            checkpoint.module(batch)
    tx.save_checkpoint(path, checkpoint.module.eval(), architecture=checkpoint.architecture)
    return path


def measure(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one case."""
    network, scheme, count = CASES[name]
    checkpoint, calib = args.checkpoint, args.data
    if network != "resnet20":
        images = enlarged(args, count)
        calib = written(images, folder)
        checkpoint = settled_checkpoint(network, images, folder)
    mean, std = (",".join(map(str, some)) for some in (NORMALISE.mean, NORMALISE.std))
    options = [
        "--scheme", scheme, "--calib", calib, "--images", count, "--mean", mean, "--std", std,
        "--target-macs", 0.5, "--cache", folder / "cache",
    ]  # fmt: skip
    found = decompose(checkpoint, options, folder / "out")
    report = json.loads((folder / "out" / "report.json").read_text())
    return {**found, "output_error": report["calibration"]["output_error"]}


def stage_lines(row: dict[str, Any]) -> list[str]:
    """Return a line a stage: its seconds before, where that is known, and now."""
    before = row.get("before", row)
    seconds = [("whole process", before["seconds"], row["seconds"])]
    seconds += [
        (stage, before["stages"].get(stage), row["stages"].get(stage))
        for stage in {**before["stages"], **row["stages"]}
    ]
    return [
        f"  {stage:40}" + "".join(f"{'-' if some is None else some:>8}" for some in both)
        for stage, *both in seconds
    ]


def main() -> None:
    """Run the cases; each is written when it is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--checkpoint", type=Path, required=True, help="a trained ResNet-20")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    args = parser.parse_args()
    unknown = set(args.cases) - set(CASES)
    if unknown:
        parser.error(f"unknown case {', '.join(sorted(unknown))}: choose from {', '.join(CASES)}")
    for name in args.cases:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, args, Path(folder))
        row = {
            "environment": environment(),
            "seconds": round(found["seconds"], 1),
            "peak_gigabytes": round(found["peak_bytes"] / 1e9, 2),
            "output_error": round(found["output_error"], 3),
            "stages": {stage: round(seconds, 1) for stage, seconds in found["stages"].items()},
        }
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        if name in known:
            row["before"] = known[name].get("before", known[name])
        RESULT.write_text(json.dumps({**known, name: row}, indent=2) + "\n")
        print("\n".join([name, *stage_lines(row)]), flush=True)


if __name__ == "__main__":
    run(main)
