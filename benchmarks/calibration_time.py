"""How long calibrated decomposition takes, start to end, and how much memory.

    python -m benchmarks.calibration_time --data cifar10:DIR --checkpoint resnet20.th \
        [--craft craft.onnx --photographs imagefolder:natural-1000.tar] [CASE ...]

Runs ``trpexport decompose --calib`` as a user does, in a process of its own and with nothing in the
cache: to half the MACs ResNet-20 with 512 images, and ResNet-50 at 224 with the same images
enlarged; to 0.4 of them the text detector CRAFT at 224. ResNet-50's weights are random, but its
batch norms know these images: it loses so much that its ranks are corrected by a second
calibration, as may be true of a trained network. Adds to ``results/calibration_time.json``, where
the first measurement of a case stays under ``before``, and prints both, stage by stage. Seconds of
processors tell more than those by the clock where a machine has other work.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Case:
    """What is measured: ``images`` to calibrate on, ``macs`` the share of the MACs that remains."""

    network: str
    scheme: str
    images: int
    macs: float = 0.5


CASES = {
    "resnet20-spatial": Case("resnet20", "spatial", 512),
    "resnet20-channel": Case("resnet20", "channel", 512),
    "resnet20-auto": Case("resnet20", "auto", 512),
    "resnet50-spatial": Case("resnet50", "spatial", 64),
    "resnet50-spatial-256": Case("resnet50", "spatial", 256),
    "craft-spatial": Case("craft", "spatial", 64, 0.4),
    "craft-auto": Case("craft", "auto", 64, 0.4),
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


def measure(case: Case, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one case."""
    file, calib, size = args.checkpoint, args.data, []
    if case.network == "craft":
        file, calib, size = args.craft, args.photographs, ["--size", 224, "--resize", 256]
    elif case.network != "resnet20":
        images = enlarged(args, case.images)
        calib = written(images, folder)
        file = settled_checkpoint(case.network, images, folder)
    mean, std = (",".join(map(str, some)) for some in (NORMALISE.mean, NORMALISE.std))
    options = [
        "--scheme", case.scheme, "--calib", calib, "--images", case.images,
        "--mean", mean, "--std", std, *size,
        "--target-macs", case.macs, "--cache", folder / "cache",
    ]  # fmt: skip
    found = decompose(file, options, folder / "out")
    report = json.loads((folder / "out" / "report.json").read_text())
    return {**found, "output_error": report["calibration"]["output_error"]}


def stage_lines(row: dict[str, Any]) -> list[str]:
    """Return a line a stage: its seconds before, where that is known, and now."""
    before = row.get("before", row)
    seconds = [
        ("whole process", before["seconds"], row["seconds"]),
        ("of processors", before.get("processor_seconds"), row["processor_seconds"]),
    ]
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
    parser.add_argument("cases", nargs="*", help="all that there are files for if none is named")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a trained ResNet-20")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    parser.add_argument("--craft", type=Path, help="CRAFT as an ONNX file")
    parser.add_argument("--photographs", help="as --data, for CRAFT")
    args = parser.parse_args()
    possible = [name for name, case in CASES.items() if args.craft or case.network != "craft"]
    unknown = set(args.cases) - set(possible)
    if unknown:
        parser.error(f"no case {', '.join(sorted(unknown))}: choose from {', '.join(possible)}")
    if args.craft and not args.photographs:
        parser.error("CRAFT needs photographs")
    for name in args.cases or possible:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(CASES[name], args, Path(folder))
        row = {
            "environment": environment(),
            "seconds": round(found["seconds"], 1),
            "processor_seconds": round(found["processor_seconds"], 1),
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
