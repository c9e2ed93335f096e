"""Where low rank and fewer bits multiply, and where one of them is the answer alone.

    python -m benchmarks.precision prepare --shared DIR --networks DIR --work DIR [NAME ...]
    python -m benchmarks.precision time --work DIR [NAME ...]

Each network dense and at two ratios of MACs, each in float32, int8 and float16. ``prepare`` writes
the files, judges them, and leaves what is there: so it goes on where it was stopped. ``time``
benches the nine files of a network in turns, on one thread at batch 1. Both add to
``results/precision.json``. Errors are of the worst output, relative to how much it varies, against
the float32 file of the same version; ``PYTHONPATH`` must hold ``DIR/models`` for SqueezeNet's code.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.environment import RESULTS, environment, run
from benchmarks.precision_networks import CASES, VERSIONS, Case, Images, Material, Prepared
from trpexport.compare import OutputComparer
from trpexport.measure.bench import BenchSettings, ModelFile, bench
from trpexport.onnxfile.counting import count_onnx
from trpexport.quantization.half import FLOAT16, convert
from trpexport.quantization.settings import QuantizationSettings
from trpexport.quantization.static import quantize_static
from trpexport.runtime.session import Session, open_session

RESULT = RESULTS / "precision.json"
PRECISIONS = ("fp32", "int8", "fp16")
# CRAFT's outputs have no labels; this is what its error may be.
_MAX_ERROR = {"CRAFT at 224": 0.05}
_BATCH = 50


def slug(text: str) -> str:
    """Return a name for a file."""
    return text.replace(" ", "_")


def file_of(work: Path, case: Case, version: str, precision: str) -> Path:
    """Return where a file lies."""
    suffix = "" if precision == "fp32" else f".{precision}"
    return work / slug(case.name) / slug(version) / f"model{suffix}.onnx"


def add(case: Case, **facts: Any) -> None:
    """Write facts of a network into the result."""
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    entry = known.get(case.name, {"weights": case.weights}) | facts
    RESULT.write_text(json.dumps({**known, case.name: entry}, indent=1) + "\n")


def prepare(case: Case, material: Material, work: Path) -> None:
    """Write and judge the nine files of a network."""
    images = case.images(material)
    rows: dict[str, Any] = {}
    for version in VERSIONS:
        dense = file_of(work, case, version, "fp32")
        if not dense.exists():
            shutil.rmtree(dense.parent, ignore_errors=True)
            case.write(material, images.calibration, version, dense.parent)
        macs = count_onnx(dense, shapes={}).macs
        for precision in PRECISIONS:
            facts = made(case, images, dense, file_of(work, case, version, precision), precision)
            row = judged(dense, file_of(work, case, version, precision), images)
            rows[f"{version}, {precision}"] = {"macs": macs, **row, **facts}
            print(case.name, version, precision, row, flush=True)
            add(case, test_images=len(images.test), files=rows)


def made(case: Case, images: Prepared, dense: Path, file: Path, precision: str) -> dict[str, Any]:
    """Write a file in another precision, unless it is there, and return what was found."""
    facts = file.with_suffix(".json")
    if precision == "fp32":
        return {}
    if not facts.exists():
        name = open_session(dense).inputs[0].name
        settings = QuantizationSettings(
            calibration={name: images.calibration}, max_error=_MAX_ERROR.get(case.name)
        )
        if precision == "int8":
            found = quantize_static(dense, file, settings)
        else:
            found = convert(dense, file, FLOAT16, settings)
        facts.write_text(json.dumps(dict(found.facts)))
    known = json.loads(facts.read_text())
    chains = [link["error_ratio"] for link in known.get("chains", [])]
    kept = ("numbers", "method", "methods", "excluded", "error", "images")
    return {
        "quantization": {key: known[key] for key in kept if key in known}
        | ({"links": len(chains), "link_error_ratio": float(np.mean(chains))} if chains else {})
        | {"ranking": known.get("ranking", [])[:5]}
    }


def judged(reference: Path, file: Path, images: Prepared) -> dict[str, Any]:
    """Return the error of a file against the float32 one, its top-1 in percent, and its bytes."""
    truth, suspect = open_session(reference), open_session(file)
    comparer = OutputComparer()
    right = 0
    for rows in batches(truth, len(images.test)):
        expected, given = (_outputs(one, images.test[rows]) for one in (truth, suspect))
        comparer.update(expected, given)
        if images.labels is not None:
            classes = next(iter(given.values())).argmax(1)
            right += int((classes == images.labels[rows]).sum())
    error = max(found.variation_error for found in comparer.result().values())
    top1 = None if images.labels is None else 100 * right / len(images.test)
    return {"output_error": error, "top1": top1, "bytes": file.stat().st_size}


def batches(session: Session, count: int) -> list[NDArray[np.int64]]:
    """Return the numbers of the images of each batch."""
    size = session.batch_size or _BATCH
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]


def _outputs(session: Session, images: Images) -> dict[str, Any]:
    return session.run({session.inputs[0].name: images})


def measure(case: Case, work: Path, min_runs: int) -> None:
    """Time those of the nine files of a network that are there, in turns."""
    both = [(version, precision) for version in VERSIONS for precision in PRECISIONS]
    labels = [label for label in both if file_of(work, case, *label).exists()]
    models = tuple(
        ModelFile(str(file_of(work, case, *label).resolve()), ", ".join(label)) for label in labels
    )
    settings = BenchSettings(
        models, min_runs=min_runs, max_time=3.0, warmup_seconds=2.0, memory=False
    )
    record = bench(settings)
    times = {
        entry["label"]: {"seconds": entry["seconds"], "ratio": entry["ratio"]}
        for entry in record["results"][0]["models"]
    }
    add(case, times=times, environment=environment())
    for label, entry in times.items():
        print(case.name, label, json.dumps(entry), flush=True)


def main() -> None:
    """Prepare or time the networks that were named, or all."""
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=("prepare", "time"))
    parser.add_argument("names", nargs="*", default=[case.name for case in CASES])
    parser.add_argument("--shared", type=Path, help="folder of checkpoints, networks and images")
    parser.add_argument("--networks", type=Path, help="folder of craft.onnx")
    parser.add_argument("--work", type=Path, required=True, help="where files are kept")
    parser.add_argument("--min-runs", type=int, default=10)
    args = parser.parse_intermixed_args()
    for case in CASES:
        if case.name in args.names and args.stage == "prepare":
            prepare(case, Material(args.shared, args.networks), args.work)
        elif case.name in args.names:
            measure(case, args.work, args.min_runs)


if __name__ == "__main__":
    run(main)
