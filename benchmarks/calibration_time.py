"""How long calibrated decomposition to half the MACs takes, start to end, and how much memory.

    python -m benchmarks.calibration_time --data cifar10:DIR --checkpoint resnet20.th [CASE ...]

Runs ``trpexport decompose --calib`` as a user does, in a process of its own and with nothing in the
cache: ResNet-20 with 512 images, and ResNet-50 at 224 with random weights and the same images
enlarged, since neither changes how much there is to compute. Adds to
``results/calibration_time.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import trpexport as tx
from benchmarks.calibration_curve import NORMALISE, Images
from benchmarks.end_to_end import decompose, random_checkpoint
from benchmarks.environment import RESULTS, environment

RESULT = RESULTS / "calibration_time.json"
# Name: network, scheme, images.
CASES = {
    "resnet20-spatial": ("resnet20", "spatial", 512),
    "resnet20-channel": ("resnet20", "channel", 512),
    "resnet20-auto": ("resnet20", "auto", 512),
    "resnet50-spatial": ("resnet50", "spatial", 64),
    "resnet50-spatial-256": ("resnet50", "spatial", 256),
}


def enlarged(args: argparse.Namespace, count: int, folder: Path) -> str:
    """Write images of 224 x 224 pixels and return what ``--calib`` takes."""
    images = Images(args.data, tx.load_checkpoint(args.checkpoint), count)
    mean, std = (np.array(some)[:, None, None] for some in (NORMALISE.mean, NORMALISE.std))
    pixels = ((images.calibration * std + mean) * 255).round().astype(np.uint8)
    large = pixels.repeat(7, axis=2).repeat(7, axis=3).transpose(0, 2, 3, 1)
    labels = np.zeros(count, dtype=np.int64)
    path = folder / "images.npz"
    np.savez(path, train_images=large, train_labels=labels)
    return f"npz:{path}"


def measure(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one case."""
    network, scheme, count = CASES[name]
    small = network == "resnet20"
    checkpoint = args.checkpoint if small else random_checkpoint(network, folder)
    calib = args.data if small else enlarged(args, count, folder)
    mean, std = (",".join(map(str, some)) for some in (NORMALISE.mean, NORMALISE.std))
    options = [
        "--scheme", scheme, "--calib", calib, "--calib-images", count, "--mean", mean, "--std", std,
        "--target-macs", 0.5, "--calib-cache", folder / "cache",
    ]  # fmt: skip
    return decompose(checkpoint, options, folder / "out")


def main() -> None:
    """Run the cases; each is written when it is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", default=list(CASES))
    parser.add_argument("--checkpoint", type=Path, required=True, help="a trained ResNet-20")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    args = parser.parse_args()
    for name in args.cases:
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, args, Path(folder))
        row = {
            "environment": environment(),
            "seconds": round(found["seconds"], 1),
            "peak_gigabytes": round(found["peak_bytes"] / 1e9, 2),
            "stages": {stage: round(seconds, 1) for stage, seconds in found["stages"].items()},
        }
        print(name, json.dumps(row, indent=2), flush=True)
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        RESULT.write_text(json.dumps({**known, name: row}, indent=2) + "\n")


if __name__ == "__main__":
    main()
