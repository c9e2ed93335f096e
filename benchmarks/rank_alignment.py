"""Do ranks that are multiples of the runtime's channel block save more time than others?

    python -m benchmarks.rank_alignment [--checkpoint resnet20.th]

ResNet-18 at 224 (random weights, a third of the ranks) and ResNet-20 at 32 (random weights, or a
trained checkpoint at energy 0.85), channel and spatial, with ranks as they come (m1) and rounded
to multiples of 8 and 16; the guard stays on. All variants of a network run against the dense one,
interleaved in one process, on one thread at batch 1. Writes ``results/rank_alignment.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from torch import nn

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run
from benchmarks.networks import aligned, export_decomposed, export_dense, random_network
from trpexport.measure.bench import BenchSettings, ModelFile, bench
from trpexport.measure.records import attach_costs

MULTIPLES = (1, 8, 16)
SCHEMES = ("spatial", "channel")


def measure(
    model: nn.Module, shape: tuple[int, ...], criterion: str, seconds: float, folder: Path
) -> list[dict[str, Any]]:
    """Export every variant of a network, bench them together, and return a row for each."""
    files = [ModelFile(str(export_dense(model, shape, folder / "dense")), "dense")]
    rewritten = {}
    for scheme in SCHEMES:
        plan = tx.decompose(
            model, tx.ByCriterion(scheme, criterion, rank_multiple=1), example=shape
        ).plan
        for multiple in MULTIPLES:
            label = f"{scheme} m{multiple}"
            path, final = export_decomposed(
                model, aligned(plan, multiple), folder / label.replace(" ", "-")
            )
            files.append(ModelFile(str(path), label))
            rewritten[label] = len(final.rewritten)
    settings = BenchSettings(models=tuple(files), min_time=seconds, memory=False)
    record = attach_costs(bench(settings), settings.models)
    return [
        {
            "variant": entry["label"],
            "layers_rewritten": rewritten.get(entry["label"], 0),
            "macs": entry["macs"],
            "macs_saved": entry["macs_ratio"],
            "speedup": entry["ratio"],
            "efficiency": entry["efficiency"],
            "median_ms": 1e3 * entry["seconds"]["median"],
        }
        for entry in record["results"][0]["models"]
    ]


def main() -> None:
    """Measure both networks and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--checkpoint", type=Path, help="a trained ResNet-20")
    parser.add_argument("--seconds", type=float, default=10.0, help="timed for each variant")
    args = parser.parse_args()
    small, criterion = random_network("resnet20", 10), "fraction:0.33"
    if args.checkpoint is not None:
        small, criterion = tx.load(args.checkpoint).module, "energy:0.85"
    cases = {
        f"ResNet-20 at 32, {criterion}": (small, (1, 3, 32, 32), criterion),
        "ResNet-18 at 224, fraction:0.33": (
            random_network("resnet18", 1000),
            (1, 3, 224, 224),
            "fraction:0.33",
        ),
    }
    found = {}
    for label, (model, shape, chosen) in cases.items():
        with tempfile.TemporaryDirectory() as name:
            found[label] = measure(model, shape, chosen, args.seconds, Path(name))
        print(label)
        for row in found[label]:
            ratio, saved = row["speedup"], row["macs_saved"]
            if ratio is not None:
                print(
                    f"  {row['variant']:12} MACs {saved:.2f}x, time {ratio['mid']:.3f}x "
                    f"({ratio['low']:.3f} to {ratio['high']:.3f}), "
                    f"efficiency {row['efficiency']:.2f}",
                    flush=True,
                )
    result = {"environment": environment(), "results": found}
    (RESULTS / "rank_alignment.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
