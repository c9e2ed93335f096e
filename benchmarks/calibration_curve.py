"""Accuracy against MACs without training: plain SVD, and calibrated on unlabelled images.

    python -m benchmarks.calibration_curve --data cifar10:DIR resnet20.th resnet32.th

Each checkpoint is decomposed to several fractions of its MACs, for each scheme: by its weights'
singular values alone (the energy criterion that gets there), and calibrated on 512 unlabelled
training images with ranks allotted by output error. Top-1 is that on all test images. What is
measured is kept in ``results/calibration_curve.json`` at once, and a second run goes on where the
first was stopped.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run, stamp
from benchmarks.networks import NORMALISE, plan_at
from trpexport.choose.alignment import find_alignment
from trpexport.choose.base import gathered
from trpexport.choose.budget import Budgeter
from trpexport.choose.calibrate import truncations
from trpexport.choose.gathering import Gatherer
from trpexport.choose.spectra import analyse
from trpexport.choose.table import sensitivity_table
from trpexport.datasets.calibration import ArrayImages, spread
from trpexport.networks.torch.network import TorchNetwork

SHAPE = (1, 3, 32, 32)
BATCH = 500
RATIOS = (1.5, 2.0, 2.5, 3.0)
SCHEMES = ("spatial", "channel", "decoupling", "auto")
RESULT = RESULTS / "calibration_curve.json"


class Images:
    """Calibration images and test images of a data set, as a checkpoint takes them.

    Args:
        data: what ``trpexport`` takes as ``--calib``.
        checkpoint: says how images become its input, or else was published with ``NORMALISE``.
        count: of calibration images.
        seed: which ones.
    """

    def __init__(self, data: str, checkpoint: tx.Checkpoint, count: int, seed: int = 0) -> None:
        how = checkpoint.preprocessing or NORMALISE
        dataset = tx.open_dataset(data)
        train, test = dataset.split("train"), dataset.split("test")
        self.calibration = how.normalise(how.prepare_split(train, spread(len(train), count, seed)))
        self.test = how.normalise(how.prepare_split(test, np.arange(len(test))))
        self.labels = test.labels

    def gatherer(self, network: TorchNetwork) -> Gatherer:
        """Return what gathers the moments of a network's layers on the calibration images."""
        return gathered(network, ArrayImages(self.calibration))

    def top1(self, network: TorchNetwork) -> float:
        """Return top-1 on all test images, in percent."""
        batches = np.array_split(self.test, -(-len(self.test) // BATCH))
        classes = [network.run({"input": batch})["output"].argmax(1) for batch in batches]
        return 100.0 * float((np.concatenate(classes) == self.labels).mean())


def plain(network: TorchNetwork, scheme: str, ratio: float) -> tuple[TorchNetwork, float]:
    """Return the network cut by its weights alone at least to a MAC ratio, and the ratio."""
    plan = plan_at(analyse(network, scheme), ratio, "energy")
    return network.rewritten(truncations(network, plan)), plan.macs_before / plan.macs_after


def measure(checkpoint: Path, args: argparse.Namespace, known: dict[str, dict[str, Any]]) -> None:
    """Add to ``known`` what is missing of a checkpoint; each row is written when it is there."""
    loaded = tx.load(checkpoint)
    network = TorchNetwork.open(loaded.module, SHAPE)
    images = Images(args.data, loaded, args.images)
    gatherer = images.gatherer(network)
    before = images.top1(network)
    for scheme in args.schemes:
        keys = [f"{checkpoint.stem}/{scheme}/m{args.rank_multiple}/{r:g}" for r in args.ratios]
        if all(key in known for key in keys):
            continue
        table = sensitivity_table(
            network,
            gatherer,
            scheme=scheme,
            alignment=find_alignment(args.rank_multiple),
            cache=args.cache,
        )
        budgeter = Budgeter(network, table, gatherer, scheme=scheme)
        for key, ratio in zip(keys, args.ratios, strict=True):
            if key in known:
                continue
            try:
                outcome = budgeter.to_fraction(1 / ratio)
            except tx.TrpexportError as error:
                print(f"{key}: {error}", flush=True)
                continue
            plan = outcome.calibrated.plan
            row = {
                "images": len(images.labels),
                "top1_before": before,
                "top1_calibrated": images.top1(network.rewritten(outcome.calibrated.chains)),
                "macs_ratio": plan.macs_before / plan.macs_after,
                "output_error": outcome.error,
                "measured": stamp(),
                "ranks": {layer.name: [layer.scheme, layer.rank] for layer in plan.rewritten},
            }
            if scheme != "auto":
                cut, reached = plain(network, scheme, ratio)
                row |= {"top1_plain": images.top1(cut), "plain_macs_ratio": reached}
            known[key] = row
            write(known)
            print(line(key, row), flush=True)


def line(key: str, row: dict[str, Any]) -> str:
    """Return a row as text."""
    plain_svd = f"{row['top1_plain']:5.1f}" if "top1_plain" in row else "    -"
    return (
        f"{key:44} {row['macs_ratio']:.2f}x  top-1 {row['top1_before']:.1f}: "
        f"plain SVD {plain_svd}, calibrated {row['top1_calibrated']:.1f}"
    )


def write(known: dict[str, dict[str, Any]]) -> None:
    """Write all that is known."""
    RESULT.write_text(json.dumps({"environment": environment(), "results": known}, indent=2) + "\n")


def main() -> None:
    """Measure every checkpoint and print the curve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rank-multiple", type=int, default=1)
    parser.add_argument("--schemes", nargs="+", default=SCHEMES)
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--cache", type=Path, help="folder for the sensitivity tables")
    args = parser.parse_args()
    known: dict[str, dict[str, Any]] = {}
    if RESULT.exists():
        known = json.loads(RESULT.read_text())["results"]
    for checkpoint in args.checkpoints:
        measure(checkpoint, args, known)
    for key, row in sorted(known.items()):
        print(line(key, row))


if __name__ == "__main__":
    run(main)
