"""How much memory the calibration of one very wide layer takes, and how long.

    python -m benchmarks.wide_layers [CHANNELS/SCHEME/CRITERION ...]

A 3x3 layer of so many channels between a small one and a small one, 16 random images of 16 x 16
pixels, in a process of its own. Adds to ``results/wide_layers.json``.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.environment import RESULTS, environment, run
from trpexport.choose.by_criterion import ByCriterion
from trpexport.choose.calibrate import calibrate
from trpexport.choose.gathering import Gatherer
from trpexport.networks.samples import checked_samples
from trpexport.networks.torch.network import TorchNetwork
from trpexport.stages import Stages

RESULT = RESULTS / "wide_layers.json"
SHAPE = (1, 3, 16, 16)
CASES = ("1024/spatial/fraction:0.3", "2048/channel/fraction:0.3", "2048/spatial/fraction:0.3")


def calibrated(case: str) -> dict[str, Any]:
    """Calibrate such a network and return what it took, of this process from its start."""
    channels, scheme, criterion = case.split("/")
    torch.manual_seed(0)
    wide = int(channels)
    model = nn.Sequential(
        *(nn.Conv2d(3, wide, 1), nn.ReLU()),
        *(nn.Conv2d(wide, wide, 3, padding=1), nn.ReLU()),
        nn.Conv2d(wide, 8, 1),
    )
    images = np.random.default_rng(0).standard_normal((16, *SHAPE[1:]), dtype=np.float32)
    network = TorchNetwork(model, SHAPE)
    choice = ByCriterion(scheme, criterion, rank_multiple=1)(network, None, Stages(), label="wide")
    start = time.perf_counter()
    gatherer = Gatherer(network, network.watch(checked_samples(images, SHAPE)))
    result = calibrate(network, choice.plan, gatherer)
    widest = next(layer for layer in result.layers if layer.name == "2")
    return {
        "rank": widest.rank,
        "seconds": time.perf_counter() - start,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "error_before": widest.error_before,
        "error_after": widest.error_after,
    }


def main() -> None:
    """Measure each case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--here", action="store_true", help="measure in this process, print JSON")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(calibrated(args.cases[0])))
        return
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    for case in args.cases:
        command = [sys.executable, "-m", "benchmarks.wide_layers", "--here", case]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results[case] = {**json.loads(done.stdout), "environment": environment()}
        RESULT.write_text(json.dumps(results, indent=1) + "\n")
        print(case, results[case])


if __name__ == "__main__":
    run(main)
