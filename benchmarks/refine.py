r"""What some minutes of gradient without labels win back after the closed form.

    python -m benchmarks.refine --data cifar10:DIR resnet20.th
    python -m benchmarks.refine --data cifar10:DIR --steps 600 --ratios 3 resnet32.th
    python -m benchmarks.refine --data imagelist:natural-1000/labels.csv --size 227 --steps 400 \
        --factory squeezenet:squeezenet --mean 0.48235,0.45882,0.40784 \
        --std 0.0039216,0.0039216,0.0039216 --scheme auto --ratios 1.43 1.8 squeezenet.pth

Each network is calibrated to some fractions of its MACs on a few images, and refined on the images
of the training split but those held out, which tell what is kept. Top-1 is that on all test images,
which nothing is chosen by; of the photographs the list must call them ``test``, the others
``train``. So many steps give the same everywhere, so many minutes what a machine
manages in them. Each row is written when it is there, and a second run measures what is missing, or
goes on where it was stopped. ``PYTHONPATH`` must hold the code that a factory is in.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run, stamp
from benchmarks.networks import NORMALISE, resized, source_of
from trpexport.calibration_data import CalibrationData
from trpexport.networks.base import Network
from trpexport.pipeline import Decomposable
from trpexport.plan import CALIBRATION
from trpexport.refining.refinement import REFINED
from trpexport.stages import Stages

RESULT = RESULTS / "refine.json"
BATCH = 50


class Test:
    """The test images of a data set, as a network takes them."""

    def __init__(self, dataset: tx.Dataset, how: tx.Preprocessing) -> None:
        self._split, self._how = dataset.split("test"), how

    def top1(self, network: Network) -> float:
        """Return top-1 on all test images, in percent."""
        hits = 0
        (name, wanted) = next(iter(network.inputs.items()))
        for start in range(0, len(self._split), BATCH):
            some = np.arange(start, min(start + BATCH, len(self._split)))
            x = self._how.inputs(self._how.prepare_split(self._split, some), wanted.shape)
            (output,) = network.run({name: x}).values()
            hits += int((output.argmax(1) == np.asarray(self._split.labels)[some]).sum())
        return 100.0 * hits / len(self._split)


def measure(source: Decomposable, ratio: float, args: argparse.Namespace) -> dict[str, Any]:
    """Return what a network loses at a fraction of its MACs, calibrated and refined."""
    dataset, stages = tx.open_dataset(args.data), Stages(print)
    how = replace(resized(args.size, args.resize), mean=args.mean, std=args.std)
    origin, network = source.open(stages)
    images, _ = CalibrationData(dataset, args.images, preprocessing=how).read_for(
        origin, network.inputs
    )
    chooser = tx.ByBudget(macs=1 / ratio, scheme=args.scheme, rank_multiple=1, cache=args.cache)
    before = chooser(network, images, stages, None)
    refinement = tx.Refinement(
        None if args.steps else args.minutes,
        args.steps,
        images=args.refine_images,
        cache=args.cache,
    )
    after = refinement(network, before, images, stages)
    test = Test(dataset, how)
    return {
        "macs_ratio": before.plan.macs_before / before.plan.macs_after,
        "calibration_images": args.images,
        "test_images": len(dataset.split("test")),
        "top1_dense": test.top1(network),
        "top1_calibrated": test.top1(network.rewritten(before.chains)),
        "top1_refined": test.top1(network.rewritten(after.chains)),
        "minutes": refinement.minutes,
        "measured": stamp(),
        **after.plan.options[CALIBRATION][REFINED],
    }


def line(key: str, row: dict[str, Any]) -> str:
    """Return a row as text."""
    before, after = (row[when]["output_error"] for when in ("before", "after"))
    return (
        f"{key:44} {row['macs_ratio']:.2f}x  top-1 {row['top1_dense']:.1f}: calibrated "
        f"{row['top1_calibrated']:.1f}, refined {row['top1_refined']:.1f}; on "
        f"{row['held_out_images']} {row['split']} images {before:.1%} -> {after:.1%} "
        f"({row['steps']} steps)"
    )


def numbers(text: str) -> tuple[float, ...]:
    """Return the numbers that commas separate."""
    return tuple(map(float, text.split(",")))


def main() -> None:
    """Measure every network and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", type=Path, nargs="+")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument("--refine-images", type=int, help="else all, as far as memory allows")
    parser.add_argument("--scheme", default="spatial")
    parser.add_argument("--ratios", type=float, nargs="+", default=(2.0, 2.5, 3.0))
    parser.add_argument("--size", type=int)
    parser.add_argument("--resize", type=int)
    parser.add_argument("--mean", type=numbers, default=NORMALISE.mean)
    parser.add_argument("--std", type=numbers, default=NORMALISE.std)
    parser.add_argument("--factory", help="builds a checkpoint's network: package.module:function")
    parser.add_argument("--cache", type=Path, help="folder for tables and for runs to go on from")
    args = parser.parse_args()
    known: dict[str, dict[str, Any]] = {}
    if RESULT.exists():
        known = json.loads(RESULT.read_text())["results"]
    for path in args.networks:
        source = source_of(path, args.factory, args.size)
        for ratio in args.ratios:
            long = f"{args.steps}steps" if args.steps else f"{args.minutes:g}min"
            key = f"{path.stem}/{args.scheme}/{args.images}/{long}/{ratio:g}"
            if key not in known:
                known[key] = measure(source, ratio, args)
                content = {"environment": environment(), "results": known}
                RESULT.write_text(json.dumps(content, indent=2) + "\n")
                print(line(key, known[key]), flush=True)
    for key, row in sorted(known.items()):
        print(line(key, row))


if __name__ == "__main__":
    run(main)
