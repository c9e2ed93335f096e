"""One network of every family, and ONNX files, through ``tune``: faster, or told why not.

    python -m benchmarks.tuned_zoo --cache DIR [NAME ...] [--files FILE.onnx:SHAPE ...] [--shared D]

Each is to become 1.2 times as fast, on one thread at batch 1. Weights of the families are random
(times do not depend on them), calibrated on noise; files on photographs, where their folder is
given, and compared with the original network on others. A bundle that comes out is timed once more
beside the original network. ``results/tuned_zoo.json`` gets for each what was measured or refused,
and after how many seconds it was said what can be won at best. A second run goes on where the first
was stopped.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run
from benchmarks.networks import random_network
from benchmarks.precision import judged
from benchmarks.precision_networks import Material, Prepared, photographs
from trpexport.datasets import TensorSet
from trpexport.errors import NothingToDoError
from trpexport.inputs import Inputs
from trpexport.latency.stopwatch import Conditions, LocalStopwatch
from trpexport.onnxfile.recognition import is_onnx

RESULT = RESULTS / "tuned_zoo.json"
_SPEEDUP = 1.2
_SECONDS = 4.0
_IMAGES = 32
# The smallest network of each family, of those for small images where there are such.
_FAMILIES = (
    "alexnet-trp",
    "densenet-40-12",
    "preresnet20",
    "resnet20-bottleneck",
    "resnet18",
    "resnext29-32x4d",
    "vgg11_bn",
    "wrn-16-4",
)
_SETTINGS = tx.ExportSettings(verify_seconds=1, dynamic_batch=False)


def tuned(
    path: Path, shape: tuple[int, ...], cache: Path, arch: str | None, images: Prepared
) -> dict[str, Any]:
    """Return what ``tune`` makes of a network, or why it makes nothing.

    Args:
        path: the checkpoint or ONNX file.
        shape: of its input at batch 1.
        cache: folder of tables.
        arch: a checkpoint's architecture.
        images: to calibrate and, if there are any, to compare on.
    """
    started = time.perf_counter()
    told: dict[str, float] = {}

    def heed(line: str) -> None:
        print(f"  {line}", flush=True)
        if "can be won" in line:
            told.setdefault("told_after", time.perf_counter() - started)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "tuned"
        try:
            tx.tune(
                path,
                tx.ByLatency(speedup=_SPEEDUP, cache=cache),
                images=TensorSet("images", {input_of(path): images.calibration}, {}),
                out=out,
                settings=_SETTINGS,
                inputs=shape,
                arch=arch,
                announce=heed,
            )
        except NothingToDoError as error:
            seconds = time.perf_counter() - started
            return {"refused": str(error), "told_after": seconds, "seconds": seconds} | told
        seconds = time.perf_counter() - started
        files = [out / name for name in ("baseline.onnx", "model.onnx")]
        # An ONNX file may leave its sizes open.
        watch = LocalStopwatch(Conditions()).at(Inputs.of({input_of(files[1]): shape}))
        _, timed = watch.race(files, _SECONDS)
        found = {"speedup": timed.speedup.to_json(), "seconds": seconds} | told
        if len(images.test):
            found["output_error"] = judged(files[0], files[1], images)["output_error"]
    return found


def noise(shape: tuple[int, ...]) -> Prepared:
    """Return random images to calibrate on, and none to compare on."""
    images = np.random.default_rng(0).normal(size=(_IMAGES, *shape[1:])).astype(np.float32)
    return Prepared(images, images[:0], None)


def input_of(path: Path) -> str:
    """Return the name of a network's input."""
    return (
        str(onnx.load(path, load_external_data=False).graph.input[0].name) if is_onnx(path) else "x"
    )


def network_of(name: str, folder: Path) -> tuple[Path, tuple[int, ...]]:
    """Write the checkpoint of a family, and return it with its input's shape."""
    size = 224 if name == "resnet18" else 32
    path = folder / f"{name}.pth"
    torch.save(random_network(name, 10).state_dict(), path)
    return path, (1, 3, size, size)


def file_of(some: str) -> tuple[Path, tuple[int, ...]]:
    """Return an ONNX file and its input's shape, of ``FILE:SHAPE``."""
    file, _, shape = some.rpartition(":")
    return Path(file), tuple(int(part) for part in shape.split("x"))


def measure(
    name: str,
    path: Path,
    shape: tuple[int, ...],
    cache: Path,
    known: dict[str, Any],
    *,
    images: Prepared,
) -> None:
    """Tune a network that is not known yet, and write what came out."""
    if name in known:
        return
    known[name] = tuned(path, shape, cache, None if is_onnx(path) else name, images)
    content = {"environment": environment(), "results": known}
    RESULT.write_text(json.dumps(content, indent=2) + "\n")
    print(line(name, known[name]), flush=True)


def line(name: str, facts: dict[str, Any]) -> str:
    """Return a row as text."""
    if "refused" in facts:
        said = facts["refused"]
    else:
        found = facts["speedup"]
        said = f"{found['mid']:.3f}x ({found['low']:.3f} to {found['high']:.3f})"
    if "output_error" in facts:
        said += f", output error {facts['output_error']:.1%}"
    return (
        f"{name}: {said}; told after {facts['told_after']:.0f} s, {facts['seconds']:.0f} s in all"
    )


def main() -> None:
    """Tune what is not tuned yet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(_FAMILIES))
    parser.add_argument("--cache", type=Path, required=True, help="folder of tables")
    parser.add_argument(
        "--files", nargs="*", default=[], metavar="FILE:SHAPE", help="as craft.onnx:1x3x224x224"
    )
    parser.add_argument("--shared", type=Path, help="folder of photographs, for files")
    args = parser.parse_args()
    known = json.loads(RESULT.read_text())["results"] if RESULT.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or _FAMILIES:
            path, shape = network_of(name, Path(folder))
            measure(name, path, shape, args.cache, known, images=noise(shape))
        for some in args.files:
            path, shape = file_of(some)
            images = noise(shape)
            if args.shared is not None:
                read = photographs(shape[2], _IMAGES, 2 * _IMAGES, caffe=False)
                images = read(Material(args.shared, path.parent))
            measure(path.stem, path, shape, args.cache, known, images=images)


if __name__ == "__main__":
    run(main)
