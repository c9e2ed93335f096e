"""Every network of the zoo under every scheme: rewritten, verified, exported, run by ONNX Runtime.

    python -m benchmarks.zoo_matrix

Random weights; every layer that the scheme takes is rewritten at a quarter of its full rank, the
guard off. The ImageNet networks run at 64 x 64: the same layers at a tenth of the cost. Each ONNX
file has an open batch size and is compared with PyTorch at batch 1, 3 and more. Appends a line a
pair to ``results/zoo_matrix.jsonl``, the networks in random order: an interrupted run goes on where
it stopped, and several may run side by side.
"""

from __future__ import annotations

import importlib
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import torch

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run
from trpexport.lowrank.schemes import SCHEMES

TARGET = RESULTS / "zoo_matrix.jsonl"


def measure(preset: str, scheme: str) -> dict[str, Any]:
    """Rewrite, verify and export one network, and return its largest differences."""
    zoo = importlib.import_module("trpexport.models_zoo")
    torch.manual_seed(0)
    architecture = zoo.parse_architecture(preset, num_classes=10)
    model = architecture.build().eval()
    shape = architecture.input_shape
    if shape[2] > 64:
        shape = (*shape[:2], 64, 64)
    chooser = tx.ByCriterion(scheme, "fraction:0.25", keep_expensive=True, rank_multiple=1)
    small = tx.decompose(model, chooser, example=shape)
    settings = tx.ExportSettings(verify_seconds=0, simplify=False, dynamic_batch=True)
    with tempfile.TemporaryDirectory() as folder:
        report = small.export(Path(folder) / "out", settings=settings).data
    outputs = {step["name"]: step["outputs"]["output"] for step in report["steps"]}
    return {
        "network": preset,
        "scheme": scheme,
        "convolutions": len(small.plan.layers),
        "rewritten": len(small.plan.rewritten),
        "layer_error": max(
            layer["equivalence_error"] for layer in report["layers"] if layer["scheme"]
        ),
        "rewrite_error": outputs["rewrite"]["max_error"],
        "onnx_error": outputs["annotate"]["max_error"],
    }


def done() -> set[tuple[str, str]]:
    """Return the pairs that are in the result already."""
    if not TARGET.exists():
        return set()
    rows = map(json.loads, TARGET.read_text().splitlines())
    return {(row["network"], row["scheme"]) for row in rows}


def main() -> None:
    """Measure what is not measured yet, and save after each network."""
    presets = importlib.import_module("trpexport.models_zoo").PRESETS
    pairs = [(preset, scheme) for preset in presets for scheme in SCHEMES]
    random.shuffle(pairs)
    for preset, scheme in pairs:
        if (preset, scheme) in done():
            continue
        row = measure(preset, scheme) | {"environment": environment()}
        with TARGET.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{preset} {scheme}: {row['onnx_error']:.1g}", flush=True)


if __name__ == "__main__":
    run(main)
