"""Trained networks of strangers, as ONNX files: which layers are taken, what it gives, does it pay.

    python -m benchmarks.foreign_networks --networks DIR --images natural-1000.tar [NAME ...]

Each network goes through decomposition by its weights and calibrated on unlabelled photographs, at
the same share of the MACs, through export, verification and a bench against the original on one
thread (interleaved, batch 1). Errors are of outputs on photographs that nothing was fitted to,
relative to their variation. Adds to ``results/foreign_networks.json``.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run
from trpexport.choose.held_out import HeldOut
from trpexport.errors import NothingToDoError
from trpexport.onnx_files import OnnxFileSource
from trpexport.stages import Stages

RESULT = RESULTS / "foreign_networks.json"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class Foreign:
    """A network's file, and how a photograph becomes its input.

    Attributes:
        file: in the folder of networks.
        size: height and width.
        mean, std: of each channel, of values from 0 to 1.
        images: to calibrate on.
        caffe: whether it takes rows, columns, blue, green and red, from 0 to 255 less the mean.
    """

    file: str
    size: tuple[int, int]
    norm: tuple[tuple[float, ...], tuple[float, ...]]
    images: int = 128
    caffe: bool = False

    def inputs(self, photographs: list[bytes]) -> NDArray[np.float32]:
        """Return photographs as inputs."""
        from PIL import Image

        height, width = self.size
        pixels = np.stack(
            [
                np.asarray(Image.open(io.BytesIO(one)).convert("RGB").resize((width, height)))
                for one in photographs
            ]
        ).astype(np.float32)
        if self.caffe:
            return np.ascontiguousarray(pixels[..., ::-1] - np.array([104, 117, 123], np.float32))
        mean, std = (np.array(values, np.float32) for values in self.norm)
        return np.ascontiguousarray(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2))


NETWORKS = {
    "OpenNSFW": Foreign("opennsfw.onnx", (224, 224), IMAGENET, caffe=True),
    "PP-OCR detector": Foreign("ppocr-det.onnx", (320, 320), IMAGENET, images=64),
    "PP-OCR recogniser": Foreign("ppocr-rec.onnx", (48, 320), HALVES),
    "PP-OCR classifier": Foreign("ppocr-cls.onnx", (48, 192), HALVES),
    "CRAFT": Foreign("craft.onnx", (224, 224), IMAGENET, images=32),
    "EfficientNet-Lite0": Foreign("efficientnet-lite0.onnx", (224, 224), HALVES),
}


def photographs(path: Path, count: int) -> list[bytes]:
    """Return the first ``count`` photographs of an archive, as files."""
    with tarfile.open(path) as archive:
        names = sorted(name for name in archive.getnames() if name.endswith(".jpg"))[:count]
        found = [archive.extractfile(name) for name in names]
        return [file.read() for file in found if file is not None]


def measured(foreign: Foreign, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Decompose one network both ways and bench the calibrated one."""
    path = args.networks / foreign.file
    inputs = foreign.inputs(photographs(args.images, foreign.images + 64))
    fitted, others = inputs[: foreign.images], inputs[foreign.images :]
    _, network = OnnxFileSource(path, inputs[:1].shape).open(Stages())
    held_out = HeldOut(network, "photographs", others)
    start = time.perf_counter()
    try:
        small = tx.decompose(path, tx.ByBudget(macs=args.macs, scheme=args.scheme), images=fitted)
    except NothingToDoError as error:
        return {"kept": str(error)}
    seconds = time.perf_counter() - start
    plain = tx.decompose(path, tx.ByPlan(small.plan), example=inputs[:1])
    report = small.export(
        folder / "bundle", settings=tx.ExportSettings(baseline=True, verify_seconds=5)
    )
    bench = tx.bench([report.path], threads=1, min_time=1.0, memory=False)
    timed = bench["results"][0]["models"][-1]
    layers = small.plan.layers
    return {
        "layers": len(layers),
        "rewritten": len(small.plan.rewritten),
        "macs_ratio": small.plan.macs_before / small.plan.macs_after,
        "error_calibrated": held_out.facts(small.network),
        "error_plain": held_out.facts(plain.network),
        "calibration_seconds": seconds,
        "speedup": timed["ratio"],
        "notes": list(small.notes),
    }


def main() -> None:
    """Run the networks; each is written when it is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    parser.add_argument("--networks", type=Path, required=True, help="folder of the ONNX files")
    parser.add_argument("--images", type=Path, required=True, help="archive of photographs")
    parser.add_argument("--macs", type=float, default=0.7, help="share that may remain")
    parser.add_argument("--scheme", default="auto")
    args = parser.parse_args()
    for name in args.names:
        with tempfile.TemporaryDirectory() as folder:
            row = measured(NETWORKS[name], args, Path(folder))
        row |= {"macs": args.macs, "scheme": args.scheme, "environment": environment()}
        print(name, json.dumps(row, indent=1), flush=True)
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        RESULT.write_text(json.dumps({**known, name: row}, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
