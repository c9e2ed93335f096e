"""Whether calibration on a part of the pixels loses anything: the same ranks, fitted to them all.

    python -m benchmarks.sampled_pixels --data cifar10:DIR --ratios 2.5 3 resnet20.th

Takes the ranks of a row of ``results/calibration_curve.json`` and fits their factors to sampled
pixels and to all, for several draws of 512 unlabelled images: how far top-1 moves from draw to draw
says what a difference of it is worth. The output error on the test images, relative to the
variation of the output, says the same of all they hold instead of the nearest class. Writes
``results/sampled_pixels.json``, each row when it is there; a second run measures what is missing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trpexport as tx
from benchmarks import calibration_curve
from benchmarks.calibration_curve import SHAPE, Images
from benchmarks.environment import RESULTS, environment, run, stamp
from trpexport.choose import gathering
from trpexport.choose.by_plan import revised
from trpexport.choose.calibrate import calibrate
from trpexport.choose.held_out import HeldOut
from trpexport.choose.sampling import share_of
from trpexport.choose.spectra import keep_all
from trpexport.networks.torch.network import TorchNetwork
from trpexport.plan import Plan

RESULT = RESULTS / "sampled_pixels.json"
ALL = "all"
WAYS = ("sampled", ALL)


def plan_of(network: TorchNetwork, ranks: Mapping[str, tuple[str, int]]) -> Plan:
    """Return the plan of a network with schemes and ranks by layer; other layers stay."""
    plan = keep_all(network)
    layers = []
    for layer in plan.layers:
        scheme, rank = ranks.get(layer.name, (None, None))
        layers.append(replace(layer, scheme=scheme, rank=rank))
    return revised(network, replace(plan, layers=tuple(layers)))


def measure(checkpoint: Path, args: argparse.Namespace, known: dict[str, Any]) -> None:
    """Add to ``known`` what is missing of a checkpoint."""
    loaded = tx.load(checkpoint)
    network = TorchNetwork.open(loaded.module, SHAPE)
    curve = json.loads(calibration_curve.RESULT.read_text())["results"]
    for seed in range(args.draws):
        images = Images(args.data, loaded, args.images, seed)
        test = HeldOut(network, "test", images.test)
        for ratio in args.ratios:
            row = curve[f"{checkpoint.stem}/{args.scheme}/m1/{ratio:g}"]
            plan = plan_of(network, row["ranks"])
            for way in WAYS:
                key = f"{checkpoint.stem}/{args.scheme}/{ratio:g}/{way}/draw {seed}"
                if key in known:
                    continue
                share = (lambda *_, **__: 1.0) if way == ALL else share_of
                with patch.object(gathering, "share_of", share):
                    found = calibrate(network, plan, images.gatherer(network))
                cut = network.rewritten(found.chains)
                known[key] = {
                    "images": len(images.labels),
                    "top1": images.top1(cut),
                    "output_error": (test.facts(cut) or {})["output_error"],
                    "fitted_error": found.error,
                    "measured": stamp(),
                }
                content = {"environment": environment(), "results": known}
                RESULT.write_text(json.dumps(content, indent=2) + "\n")
                print(line(key, known[key]), flush=True)


def line(key: str, row: dict[str, Any]) -> str:
    """Return a row as text."""
    return (
        f"{key:48} top-1 {row['top1']:.1f} on {row['images']}, output error "
        f"{row['output_error']:.2%} (fitted {row['fitted_error']:.2%})"
    )


def main() -> None:
    """Measure every checkpoint."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--scheme", default="spatial")
    parser.add_argument("--ratios", type=float, nargs="+", default=(1.5, 2.5, 3.0))
    args = parser.parse_args()
    known = json.loads(RESULT.read_text())["results"] if RESULT.exists() else {}
    for checkpoint in args.checkpoints:
        measure(checkpoint, args, known)


if __name__ == "__main__":
    run(main)
