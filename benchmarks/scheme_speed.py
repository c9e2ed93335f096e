"""Which scheme runs fastest at the same MACs: the reason that ``--scheme auto`` handicaps one.

    python -m benchmarks.scheme_speed [resnet20 resnet18]

Each network, with random weights, is cut by each scheme to half its MACs, one share of the full
rank for all layers, and all are timed in turns by ``trpexport bench``. Writes
``results/scheme_speed.json``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.environment import RESULTS, environment, run
from benchmarks.networks import export_decomposed, export_dense, plan_at, random_network
from trpexport.choose.spectra import analyse
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.torch.network import TorchNetwork

RATIO = 2.0


def measure(preset: str, folder: Path) -> dict[str, Any]:
    """Time a network and its pairs in turns."""
    zoo = importlib.import_module("trpexport.models_zoo")
    shape = zoo.parse_architecture(preset, num_classes=10).input_shape
    model = random_network(preset, 10)
    files, saved = [export_dense(model, shape, folder / "dense")], {}
    for scheme in SCHEMES:
        analysis = analyse(TorchNetwork.open(model, shape), scheme)
        plan = plan_at(analysis, RATIO, "fraction")
        file, plan = export_decomposed(model, plan, folder / scheme)
        files.append(file)
        saved[scheme] = plan.macs_before / plan.macs_after
    command = [sys.executable, "-m", "trpexport", "bench", *map(str, files), "--json"]
    done = subprocess.run([*command, "--no-memory"], capture_output=True, text=True, check=True)
    timed = json.loads(done.stdout)["results"][0]["models"][1:]
    return {
        scheme: {"macs_saved": saved[scheme], "speedup": entry["ratio"]}
        for scheme, entry in zip(saved, timed, strict=True)
    }


def main() -> None:
    """Measure every network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("presets", nargs="*", default=["resnet20", "resnet18"])
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for preset in args.presets:
        with tempfile.TemporaryDirectory() as folder:
            found[preset] = measure(preset, Path(folder))
        print(preset, json.dumps(found[preset], indent=2), flush=True)
    result = {"environment": environment(), "results": found}
    (RESULTS / "scheme_speed.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
