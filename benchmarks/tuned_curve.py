"""What networks lose against measured time, without training: ranks by time, and by MACs.

    python -m benchmarks.tuned_curve --shared DIR --networks DIR --cache DIR [NAME ...]
    python -m benchmarks.tuned_curve --plot curve.svg

Each network is tuned to several speed-ups, and decomposed to several shares of its MACs in ranks of
whole channel blocks (the default of ``decompose``), both calibrated on the same unlabelled images.
Every file is timed beside the original one, in turns, on one thread at batch 1, and judged on
images that nothing was fitted to: by top-1, and by the output error against the original. What is
measured is kept in ``results/tuned_curve.json`` at once, and a second run goes on where the first
was stopped. ``PYTHONPATH`` must hold ``DIR/models`` for SqueezeNet's code.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run
from benchmarks.networks import random_network
from benchmarks.precision import judged
from benchmarks.precision_networks import Material, Prepared, cifar, photographs
from trpexport.choose.base import Chooser
from trpexport.latency.stopwatch import Conditions, LocalStopwatch

RESULT = RESULTS / "tuned_curve.json"
_SECONDS = 3.0
_EXPORT = tx.ExportSettings(verify_seconds=1, baseline=True, dynamic_batch=True)


@dataclass(frozen=True)
class Subject:
    """A network and how it is cut.

    Attributes:
        file: where it lies, with ``{shared}`` or ``{networks}``; or the name of a network of the
            zoo, which gets random weights.
        images: reads its images.
        speedups: that it is tuned to.
        shares: of the MACs that it is decomposed to.
        scheme: for both.
        factory: builds a checkpoint's network.
    """

    file: str
    images: Callable[[Material], Prepared]
    speedups: tuple[float, ...] = (1.25, 1.5, 1.6, 1.75, 2.0)
    shares: tuple[float, ...] = (0.75, 0.6, 0.5, 0.45)
    scheme: str = "auto"
    factory: str | None = None

    def decomposed(self, material: Material, chooser: Chooser, images: Prepared) -> Any:
        """Return the network with the ranks of a chooser."""
        if "{" not in self.file:
            network, shape = random_network(self.file, 1000), (1, *images.calibration.shape[1:])
            return tx.decompose(network, chooser, images=images.calibration, example=shape)
        path = self.file.format(shared=material.shared, networks=material.networks)
        return tx.decompose(Path(path), chooser, images=images.calibration, factory=self.factory)


_CIFAR = cifar("cifar10:{data}/cifar10-lossless", 512)
SUBJECTS: Mapping[str, Subject] = {
    "resnet20-12fca82f": Subject("{shared}/checkpoints/resnet20-12fca82f.th", _CIFAR),
    "resnet32-d509ac18": Subject("{shared}/checkpoints/resnet32-d509ac18.th", _CIFAR),
    "SqueezeNet at 227": Subject(
        "{shared}/models/squeezenet.pth",
        photographs(227, 128, 510, caffe=True),
        speedups=(1.1, 1.2, 1.3, 1.43),
        shares=(0.9, 0.85, 0.8, 0.75),
        factory="squeezenet:squeezenet",
    ),
    "ResNet-18 at 224": Subject(
        "resnet18",
        photographs(224, 32, 64, caffe=False),
        speedups=(2.0, 3.0),
        shares=(0.5, 0.33),
    ),
    "CRAFT at 224": Subject(
        "{networks}/craft.onnx",
        photographs(224, 16, 64, caffe=False),
        speedups=(2.0, 3.0, 1.5, 2.5),
        shares=(0.5, 0.33, 0.65, 0.4),
        scheme="spatial",
    ),
}


def row(small: Any, images: Prepared) -> dict[str, Any]:
    """Return what a network saves and loses."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "small"
        small.export(out, settings=_EXPORT)
        files = [out / name for name in ("baseline.onnx", "model.onnx")]
        _, timed = LocalStopwatch(Conditions()).race(files, _SECONDS)
        before, after = (judged(files[0], file, images) for file in files)
    plan = small.plan
    return {
        "speedup": timed.speedup.to_json(),
        "macs_ratio": plan.macs_before / plan.macs_after,
        "top1_before": before["top1"],
        "top1": after["top1"],
        "output_error": after["output_error"],
        "images": len(images.test),
        "ranks": {layer.name: [layer.scheme, layer.rank] for layer in plan.rewritten},
    }


def measure(name: str, material: Material, cache: Path, known: dict[str, Any]) -> None:
    """Add to ``known`` what is missing of a network; each row is written when it is there."""
    subject = SUBJECTS[name]
    choosers: dict[str, Chooser] = {
        f"{name}/time/{one:g}": tx.ByLatency(speedup=one, scheme=subject.scheme, cache=cache)
        for one in subject.speedups
    } | {
        f"{name}/macs/{one:g}": tx.ByBudget(macs=one, scheme=subject.scheme, cache=cache)
        for one in subject.shares
    }
    missing = {key: chooser for key, chooser in choosers.items() if key not in known}
    if not missing:
        return
    images = subject.images(material)
    for key, chooser in missing.items():
        started = time.perf_counter()
        try:
            found = row(subject.decomposed(material, chooser, images), images)
        except tx.TrpexportError as error:
            found = {"refused": str(error)}
        known[key] = {**found, "seconds": time.perf_counter() - started}
        content = {"environment": environment(), "results": known}
        RESULT.write_text(json.dumps(content, indent=2) + "\n")
        print(line(key, known[key]), flush=True)


def line(key: str, facts: dict[str, Any]) -> str:
    """Return a row as text."""
    if "refused" in facts:
        return f"{key:34} {facts['refused']}"
    speedup = facts["speedup"]
    top1 = facts["top1"]
    lost = "" if top1 is None else f"top-1 {facts['top1_before']:.1f} -> {top1:.1f}, "
    return (
        f"{key:34} {speedup['mid']:.2f}x ({speedup['low']:.2f} to {speedup['high']:.2f}), "
        f"{facts['macs_ratio']:.2f}x fewer MACs, {lost}error {facts['output_error']:.1%}"
    )


def plot(file: Path, known: Mapping[str, Any]) -> None:
    """Draw what each network loses against how much faster it is."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"font.size": 12, "svg.hashsalt": "trpexport"})
    names = [name for name in SUBJECTS if any(_points(known, name, how) for how in _HOW)]
    figure, axes = plt.subplots(2, 2, figsize=(11, 7.6), layout="constrained")
    for name, axis in zip(names, axes.flat, strict=False):
        for how, (label, marker, colour) in _HOW.items():
            points = _points(known, name, how)
            axis.plot(*zip(*points, strict=True), marker, color=colour, label=label, ms=8, lw=2)
        has_labels = any(known[key].get("top1") is not None for key in known if name in key)
        axis.set_title(name)
        axis.set_xlabel("measured speed-up")
        axis.set_ylabel("points of top-1 lost" if has_labels else "output error, %")
        axis.axhline(0, color="0.6", lw=1)
        axis.grid(alpha=0.3)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    axes.flat[0].legend(frameon=False)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


# Colours that are told apart without seeing red or green (Okabe and Ito), and marks for print.
_HOW = {
    "time": ("ranks by measured time", "o-", "#0072b2"),
    "macs": ("ranks by MACs, in whole blocks", "s--", "#d55e00"),
}


def _points(known: Mapping[str, Any], name: str, how: str) -> list[tuple[float, float]]:
    rows = [
        facts
        for key, facts in known.items()
        if key.startswith(f"{name}/{how}/") and "refused" not in facts
    ]
    return sorted((one["speedup"]["mid"], _lost(one)) for one in rows)


def _lost(facts: Mapping[str, Any]) -> float:
    top1, before = facts["top1"], facts["top1_before"]
    return float(100 * facts["output_error"] if top1 is None else before - top1)


def main() -> None:
    """Measure the networks that are named, or all; or draw what is known."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SUBJECTS))
    parser.add_argument("--shared", type=Path, help="folder of checkpoints, networks and data")
    parser.add_argument("--networks", type=Path, help="folder of craft.onnx")
    parser.add_argument("--cache", type=Path, help="folder of tables")
    parser.add_argument("--plot", type=Path, help="draw what is known into this file, and end")
    args = parser.parse_args()
    known = json.loads(RESULT.read_text())["results"] if RESULT.is_file() else {}
    if args.plot:
        plot(args.plot, known)
        return
    if None in (args.shared, args.networks, args.cache):
        parser.error("--shared, --networks and --cache are needed to measure")
    args.cache.mkdir(parents=True, exist_ok=True)
    for name in args.names or SUBJECTS:
        measure(name, Material(args.shared, args.networks), args.cache, known)


if __name__ == "__main__":
    run(main)
