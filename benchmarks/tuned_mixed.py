"""float32 or int8 layer by layer, chosen with the ranks, beside int8 alone at the same error.

    python -m benchmarks.tuned_mixed --shared DIR --networks DIR --cache DIR [NAME ...]

Each network is tuned with ``precision="free"`` to the output error of int8 alone, at full rank, and
to larger ones, on one thread at batch 1. Every file is timed in turns with the original network and
with that in int8 alone, and compared with the original on photographs that nothing was fitted to.
A first row holds what is predicted for networks with any layers in int8, at full rank, against what
they take. ``results/tuned_mixed.json`` gets each row when it is there; a second run goes on where
the first was stopped. What an earlier run timed stands in the folder of tables.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run, stamp
from benchmarks.networks import random_network
from benchmarks.precision import judged
from benchmarks.precision_networks import Material, Prepared, photographs
from benchmarks.tuned_curve import SUBJECTS, Subject
from benchmarks.tuned_zoo import input_of
from trpexport.artifact.variants import BlankForm
from trpexport.bundle import BASELINE, FLOAT32, MODEL, variant_name
from trpexport.datasets import TensorSet
from trpexport.latency.blanks import Blanks
from trpexport.latency.stopwatch import Conditions, LocalStopwatch
from trpexport.latency.store import Store
from trpexport.latency.timer import Timer
from trpexport.latency.timetable import time_layers
from trpexport.mixed.between import prices
from trpexport.mixed.mix import Mix, whole
from trpexport.mixed.places import find_places
from trpexport.mixed.times import MixTimer, MixTimes, fit, probes
from trpexport.networks.base import Network
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.torch.network import TorchNetwork
from trpexport.quantization.wiring import INT8

RESULT = RESULTS / "tuned_mixed.json"
NAMES = ("ResNet-18 at 224", "CRAFT at 224")
_SIZE = 224
_IMAGES = photographs(_SIZE, 48, 64, caffe=False)
_DRAWN = 12  # networks of which the time is predicted
# Output errors that are allowed; None for what int8 alone has, which the row before it measures.
_ERRORS = (0.1, None, 0.05, 0.2)
_SETTINGS = tx.ExportSettings(verify_seconds=1, dynamic_batch=True)


def row(
    subject: Subject, material: Material, images: Prepared, error: float, cache: Path
) -> dict[str, Any]:
    """Return what is measured of a network that is tuned to an output error."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path, arch = _file_of(subject, material, Path(folder))
        out = Path(folder) / "tuned"
        report = tx.tune(
            path,
            tx.ByLatency(error=error, scheme=subject.scheme, cache=cache),
            images=TensorSet("photographs", {input_of(path): images.calibration}, {}),
            out=out,
            settings=_SETTINGS,
            inputs=(1, *images.calibration.shape[1:]),
            arch=arch,
            precision="free",
            announce=lambda line: print(f"  {line}", flush=True),
        ).data
        latency = report["latency"]
        tuned = latency.get("precision", FLOAT32)
        original = out / (BASELINE if (out / BASELINE).exists() else MODEL)
        found = judged(original, out / variant_name(tuned), images)
    mixed = latency.get("mixed")
    return {
        "error": error,
        "output_error": found["output_error"],
        "speedup": latency["files"][tuned]["speedup"],
        "int8_alone": latency["originals"]["int8"]["speedup"],
        "over_int8_alone": latency["beside"],
        "predicted_speedup": latency["predicted_speedup"],
        "mixed": mixed,
        "notes": report["notes"],
        "macs_ratio": report["macs"]["ratio"],
        "seconds": time.perf_counter() - started,
    }


def predictions(subject: Subject, material: Material) -> dict[str, Any]:
    """Return what is predicted of a dozen networks in two precisions, and what they take."""
    shape = (1, 3, _SIZE, _SIZE)
    with tempfile.TemporaryDirectory() as folder:
        path, _ = _file_of(subject, material, Path(folder))
        network: Network = (
            OnnxNetwork.open(OnnxSource(path, read_model(path)), shape)
            if path.suffix == ".onnx"
            else TorchNetwork.open(random_network(subject.file, 1000), shape)
        )
        blanks = Blanks(network, Path(folder))
        stopwatch = LocalStopwatch(Conditions()).at(network.inputs)
        timer = MixTimer(blanks, stopwatch)
        places = find_places(blanks.original, blanks.layers, "cpu")
        (gain,) = timer.speedups([whole(places.layers, INT8)])
        with Store(None) as store:
            float32, int8 = (
                time_layers(Timer(blanks.into(form), stopwatch), {}, store)
                for form in (None, BlankForm(INT8))
            )
        between = prices(places, timer.between(places, probes(places)))
        times = MixTimes(places, float32, int8, gain, between)
        fit(times, timer)
        drawn = np.random.default_rng(0).random((_DRAWN, len(places.layers)))
        mixes = [
            Mix({}, {name: INT8 if one < share else FLOAT32 for name, one in named})
            for row, share in zip(drawn, np.linspace(0.25, 0.95, _DRAWN), strict=True)
            for named in [list(zip(places.layers, row, strict=True))]
        ]
        measured = timer.speedups(mixes)
        rows = [
            {
                "int8": [name for name, one in mix.precisions.items() if one == INT8],
                "predicted": 1 / times.predicted(mix),
                "speedup": one.to_json(),
            }
            for mix, one in zip(mixes, measured, strict=True)
        ]
    return {"int8_alone": gain.to_json(), "mixtures": rows}


def _file_of(subject: Subject, material: Material, folder: Path) -> tuple[Path, str | None]:
    """Return the file of a network, and its architecture where that is one of the zoo."""
    if "{" in subject.file:
        named = subject.file.format(shared=material.shared, networks=material.networks)
        return Path(named), None
    path = folder / f"{subject.file}.pth"
    torch.save(random_network(subject.file, 1000).state_dict(), path)
    return path, subject.file


def measure(name: str, material: Material, cache: Path, known: dict[str, Any]) -> None:
    """Add to ``known`` what is missing of a network; each row is written when it is there."""
    key = f"{name}/predictions"
    if key not in known:
        known[key] = predictions(SUBJECTS[name], material)
        _keep(known, key)
    rows = known[key]["mixtures"]
    off = [abs(one["speedup"]["mid"] / one["predicted"] - 1) for one in rows]
    print(f"{key}: off by {np.median(off):.1%}, at most {max(off):.1%}", flush=True)
    images, alone = _IMAGES(material), None
    for error in _ERRORS:
        key = f"{name}/{'int8 alone' if error is None else f'{error:g}'}"
        if key not in known:
            limit = alone if error is None else error
            if limit is None:
                continue
            try:
                known[key] = row(SUBJECTS[name], material, images, limit, cache)
            except tx.TrpexportError as refusal:
                known[key] = {"error": limit, "refused": str(refusal)}
            _keep(known, key)
        print(line(key, known[key]), flush=True)
        if (mixed := known[key].get("mixed")) is not None:
            alone = mixed["int8_alone"]["error"]


def _keep(known: dict[str, Any], key: str) -> None:
    known[key] |= stamp()
    content = {"environment": environment(), "results": known}
    RESULT.write_text(json.dumps(content, indent=2) + "\n")


def line(key: str, facts: dict[str, Any]) -> str:
    """Return a row as text."""
    if "refused" in facts:
        return f"{key}: {facts['refused']}"
    speedup, alone, beside = (facts[name] for name in ("speedup", "int8_alone", "over_int8_alone"))
    told = "all in float32" if beside is None else f"{beside['mid']:.2f}x as fast as int8 alone"
    return (
        f"{key}: {speedup['mid']:.2f}x, int8 alone {alone['mid']:.2f}x, {told}; output error "
        f"{facts['output_error']:.1%} on other photographs; {facts['seconds']:.0f} s"
    )


def main() -> None:
    """Measure the networks that are named, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--shared", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--networks", type=Path, required=True, help="folder of craft.onnx")
    parser.add_argument("--cache", type=Path, required=True, help="folder of tables")
    args = parser.parse_args()
    args.cache.mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULT.read_text())["results"] if RESULT.is_file() else {}
    for name in args.names or NAMES:
        measure(name, Material(args.shared, args.networks), args.cache, known)


if __name__ == "__main__":
    run(main)
