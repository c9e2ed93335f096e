r"""Trained networks of strangers, as ONNX files: which layers are taken, and does it pay?

    python -m benchmarks.foreign_networks --networks DIR --images natural-1000.tar \
        --bundles DIR [NAME ...]

Each network goes through decomposition by its weights and calibrated on unlabelled photographs, at
the same ranks, through export, verification and a bench against the original on one thread
(interleaved, batch 1). Errors are of outputs on 64 photographs that nothing was fitted to, relative
to their variation. Adds to ``results/foreign_networks.json``.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import time
from collections import Counter
from collections.abc import Iterable
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
from trpexport.ops import LinearOp
from trpexport.plan import LayerPlan
from trpexport.stages import Stages

RESULT = RESULTS / "foreign_networks.json"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNSEEN = 64
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


def kind(op: LinearOp) -> str:
    """Name what a user would call an operator: by its kernel, or a matrix product."""
    if not op.ndim:
        return "linear"
    kernel = "x".join(map(str, op.kernel))
    return f"{kernel}{' transposed' if op.window.transposed else ''}"


def counted(layers: Iterable[LayerPlan]) -> dict[str, int]:
    """Return how many layers there are of each kind, the commonest first."""
    return dict(Counter(kind(layer.op) for layer in layers).most_common())


def decomposed(foreign: Foreign, args: argparse.Namespace, target: Path) -> dict[str, Any]:
    """Decompose one network both ways, and leave the bundle of the calibrated one in ``target``."""
    path = args.networks / foreign.file
    inputs = foreign.inputs(photographs(args.images, foreign.images + UNSEEN))
    fitted, others = inputs[: foreign.images], inputs[foreign.images :]
    budget = tx.ByBudget(macs=args.macs, scheme=args.scheme, rank_multiple=args.rank_multiple)
    start = time.perf_counter()
    small = tx.decompose(path, budget, images=fitted)
    seconds = time.perf_counter() - start
    plain = tx.decompose(path, tx.ByPlan(small.plan), example=inputs[:1])
    _, network = OnnxFileSource(path, inputs[:1].shape).open(Stages())
    held_out = HeldOut(network, "photographs", others)
    settings = tx.ExportSettings(baseline=True, verify_seconds=5, replace=True)
    small.export(target, settings=settings, inputs=others[:8])
    reasons = Counter(layer.reason for layer in small.plan.layers if layer.reason)
    return {
        "layers": counted(small.plan.layers),
        "rewritten": counted(small.plan.rewritten),
        "kept": dict(reasons.most_common()),
        "macs": small.plan.macs_before,
        "macs_ratio": small.plan.macs_before / small.plan.macs_after,
        "error_calibrated": held_out.facts(small.network),
        "error_plain": held_out.facts(plain.network),
        "calibration_images": len(fitted),
        "calibration_seconds": seconds,
        "notes": list(small.notes),
    }


def benched(bundle: Path) -> dict[str, Any]:
    """Time a bundle's network against the original one, on one thread, one image at a time."""
    record = tx.bench([bundle], threads=(1,), min_time=3.0, memory=False)
    timed = record["results"][0]["models"][-1]
    return {
        "milliseconds": timed["seconds"]["median"] * 1e3,
        "speedup": {name: timed["ratio"][name] for name in ("low", "mid", "high")},
    }


def main() -> None:
    """Run the networks; each is written when it is there."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(NETWORKS))
    parser.add_argument("--networks", type=Path, required=True, help="folder of the ONNX files")
    parser.add_argument("--images", type=Path, required=True, help="archive of photographs")
    parser.add_argument("--bundles", type=Path, required=True, help="folder for the bundles")
    parser.add_argument("--macs", type=float, default=0.7, help="share that may remain")
    parser.add_argument("--scheme", default="auto")
    parser.add_argument("--rank-multiple", type=int, default=16)
    parser.add_argument("--bench-only", action="store_true", help="time the bundles that stand")
    args = parser.parse_args()
    for name in args.names:
        known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        foreign = NETWORKS[name]
        bundle = args.bundles / Path(foreign.file).stem
        row = known.get(name, {})
        if not args.bench_only:
            asked = {key: getattr(args, key) for key in ("macs", "scheme", "rank_multiple")}
            try:
                row = {"asked": asked, **decomposed(foreign, args, bundle)}
            except NothingToDoError as error:
                row = {"asked": asked, "refused": str(error)}
        if "refused" not in row:
            row |= benched(bundle)
        row["environment"] = environment()
        print(name, json.dumps(row, indent=1), flush=True)
        RESULT.write_text(json.dumps({**known, name: row}, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
