"""Which 8-bit numbers a processor is fast with.

    python -m benchmarks.int8_formats NAME=model.onnx ...

Each network in float32 and with activations and weights in each format, benched in turns, on one
thread at batch 1. Ranges are those of random inputs, on whose values times do not depend. Writes
``results/int8_formats.json``; ``trpexport/quantization/formats.py`` chooses by it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.environment import RESULTS, environment, run
from trpexport.measure.bench import BenchSettings, ModelFile, bench
from trpexport.measure.machine import instruction_sets
from trpexport.quantization.formats import NumberFormat, number_format
from trpexport.quantization.observing import histograms
from trpexport.quantization.ort import Quantizer, ready, serialized
from trpexport.quantization.ranges import METHODS
from trpexport.runtime.session import open_session

RESULT = RESULTS / "int8_formats.json"
_FLOAT = number_format("cpu", ()).float_operators
FORMATS = (
    NumberFormat(float_operators=_FLOAT),
    NumberFormat(is_reduced=True, float_operators=_FLOAT),
    NumberFormat(is_signed=True, float_operators=_FLOAT),
    NumberFormat(is_signed=True, is_symmetric=True, float_operators=_FLOAT),
)


def label_of(numbers: NumberFormat) -> str:
    """Return what a format is called here."""
    return f"{numbers.name}{', symmetric' if numbers.is_symmetric else ''}"


def measured(path: Path, min_runs: int) -> dict[str, Any]:
    """Return how fast a network is in float32 and in each format."""
    model = ready(path)
    found = histograms(model, open_session(path).random_inputs(4))
    ranges = {name: METHODS["min-max"](one) for name, one in found.items()}
    with TemporaryDirectory() as folder:
        files = [ModelFile(str(path), "float32")]
        for place, numbers in enumerate(FORMATS):
            file = Path(folder) / f"{place}.onnx"
            file.write_bytes(serialized(Quantizer(model, numbers)(ranges)))
            files.append(ModelFile(str(file), label_of(numbers)))
        settings = BenchSettings(
            tuple(files), min_runs=min_runs, max_time=3.0, warmup_seconds=2.0, memory=False
        )
        (result,) = bench(settings)["results"]
    return {
        entry["label"]: {"seconds": entry["seconds"], "ratio": entry["ratio"]}
        for entry in result["models"]
    }


def main() -> None:
    """Measure the networks that were named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", nargs="+", help="NAME=FILE")
    parser.add_argument("--min-runs", type=int, default=10)
    args = parser.parse_args()
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {"networks": {}}
    for text in args.networks:
        name, _, file = text.rpartition("=")
        known["networks"][name] = measured(Path(file), args.min_runs)
        print(name, json.dumps(known["networks"][name]), flush=True)
    chosen = label_of(number_format("cpu", instruction_sets()))
    known |= {"chosen": chosen, "environment": environment()}
    RESULT.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    run(main)
