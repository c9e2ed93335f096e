"""Calibrated as a checkpoint, and as the ONNX file that it exports to: the same accuracy?

    python -m benchmarks.onnx_route --data cifar10:DIR resnet20.th resnet32.th

Each network is decomposed to half its MACs on 512 unlabelled training images in both ways. Top-1 is
that on all test images. Adds to ``results/onnx_route.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import trpexport as tx
from benchmarks.calibration_curve import SHAPE, Images
from benchmarks.environment import RESULTS, environment, run
from benchmarks.networks import export_dense

RESULT = RESULTS / "onnx_route.json"


def measured(checkpoint: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return what both ways give of one checkpoint."""
    loaded = tx.load(checkpoint)
    images = Images(args.data, loaded, args.images)
    row: dict[str, Any] = {"images": len(images.labels)}
    budget = tx.ByBudget(macs=1 / args.ratio, scheme=args.scheme, rank_multiple=1)
    with tempfile.TemporaryDirectory() as folder:
        file = export_dense(loaded.module, SHAPE, Path(folder) / "dense")
        for route, source in (("torch", loaded.module), ("onnx", file)):
            small = tx.decompose(source, budget, example=SHAPE, images=images.calibration)
            row[route] = {
                "top1": images.top1(small.network),
                "macs_ratio": small.plan.macs_before / small.plan.macs_after,
                "ranks": {layer.name: layer.rank for layer in small.plan.rewritten},
            }
    return row


def main() -> None:
    """Measure the checkpoints; each is written when it is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--ratio", type=float, default=2.0)
    parser.add_argument("--scheme", default="spatial")
    args = parser.parse_args()
    for checkpoint in args.checkpoints:
        row = measured(checkpoint, args) | {"environment": environment()}
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        known[f"{checkpoint.stem}/{args.scheme}/{args.ratio:g}"] = row
        RESULT.write_text(json.dumps(known, indent=1) + "\n")
        print(checkpoint.stem, {way: row[way]["top1"] for way in ("torch", "onnx")}, flush=True)


if __name__ == "__main__":
    run(main)
