"""Accuracy against measured time without training: ranks chosen by time, and by MACs.

    python -m benchmarks.tuned_curve --data cifar10:DIR --cache DIR resnet20.th resnet32.th

Each checkpoint is tuned to several speed-ups, and decomposed to several shares of its MACs in ranks
of whole channel blocks (the default of ``decompose``), both calibrated on the same 512 unlabelled
training images. Every file is timed beside the original one, in turns, on one thread at batch 1.
Top-1 is that on all test images. What is measured is kept in ``results/tuned_curve.json`` at once,
and a second run goes on where the first was stopped.
"""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trpexport as tx
from benchmarks.calibration_curve import SHAPE, Images
from benchmarks.environment import RESULTS, environment, run
from trpexport.datasets.calibration import ArrayImages
from trpexport.latency.stopwatch import Conditions, LocalStopwatch
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import Decomposed, decompose_network

SPEEDUPS = (1.25, 1.5, 1.6, 1.75, 2.0)
SHARES = (0.75, 0.6, 0.5, 0.45)
RESULT = RESULTS / "tuned_curve.json"
_SECONDS = 3.0


class Curve:
    """The networks of one checkpoint.

    Args:
        checkpoint: the file.
        data: what ``trpexport`` takes as ``--calib``.
        cache: folder of tables.
    """

    def __init__(self, checkpoint: Path, data: str, cache: Path) -> None:
        loaded = tx.load(checkpoint)
        self.network = TorchNetwork.open(loaded.module, SHAPE)
        self.images = Images(data, loaded, 512)
        self.before = self.images.top1(self.network)
        self._cache = cache

    def tuned(self, speedup: float) -> Decomposed[TorchNetwork]:
        """Return the network of a speed-up."""
        return self._decomposed(tx.ByLatency(speedup=speedup, cache=self._cache))

    def by_macs(self, share: float) -> Decomposed[TorchNetwork]:
        """Return the network of a share of the MACs."""
        return self._decomposed(tx.ByBudget(macs=share, scheme="auto", cache=self._cache))

    def row(self, small: Decomposed[TorchNetwork]) -> dict[str, Any]:
        """Return what a network saves and loses."""
        facts = small.plan.options["calibration"]
        with tempfile.TemporaryDirectory() as folder:
            small.export(
                Path(folder) / "small", settings=tx.ExportSettings(verify_seconds=1, baseline=True)
            )
            files = [Path(folder) / "small" / name for name in ("baseline.onnx", "model.onnx")]
            _, timed = LocalStopwatch(Conditions()).race(files, _SECONDS)
        return {
            "speedup": timed.speedup.to_json(),
            "macs_ratio": small.plan.macs_before / small.plan.macs_after,
            "top1_before": self.before,
            "top1": self.images.top1(small.network),
            "images": len(self.images.labels),
            "output_error": facts["output_error"],
            "ranks": {layer.name: [layer.scheme, layer.rank] for layer in small.plan.rewritten},
        }

    def _decomposed(self, chooser: tx.ByLatency | tx.ByBudget) -> Decomposed[TorchNetwork]:
        return decompose_network(self.network, chooser, ArrayImages(self.images.calibration))


def measure(checkpoint: Path, args: argparse.Namespace, known: dict[str, Any]) -> None:
    """Add to ``known`` what is missing of a checkpoint; each row is written when it is there."""
    curve = Curve(checkpoint, args.data, args.cache)
    jobs: dict[str, Callable[[], Decomposed[TorchNetwork]]] = {
        f"{checkpoint.stem}/time/{one:g}": functools.partial(curve.tuned, one) for one in SPEEDUPS
    }
    jobs |= {
        f"{checkpoint.stem}/macs/{one:g}": functools.partial(curve.by_macs, one) for one in SHARES
    }
    for key, job in jobs.items():
        if key in known:
            continue
        started = time.perf_counter()
        try:
            row = curve.row(job())
        except tx.TrpexportError as error:
            row = {"refused": str(error)}
        known[key] = {**row, "seconds": time.perf_counter() - started}
        found = {"environment": environment(), "results": known}
        RESULT.write_text(json.dumps(found, indent=2) + "\n")
        print(line(key, row), flush=True)


def line(key: str, row: dict[str, Any]) -> str:
    """Return a row as text."""
    if "refused" in row:
        return f"{key:34} {row['refused']}"
    speedup = row["speedup"]
    return (
        f"{key:34} {speedup['mid']:.2f}x ({speedup['low']:.2f} to {speedup['high']:.2f}), "
        f"{row['macs_ratio']:.2f}x fewer MACs, top-1 {row['top1_before']:.1f} -> {row['top1']:.1f}"
    )


def main() -> None:
    """Measure every checkpoint and print the curve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True, help="as trpexport tune --calib takes it")
    parser.add_argument("--cache", type=Path, required=True, help="folder of tables")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULT.read_text())["results"] if RESULT.is_file() else {}
    for checkpoint in args.checkpoints:
        measure(checkpoint, args, known)


if __name__ == "__main__":
    run(main)
