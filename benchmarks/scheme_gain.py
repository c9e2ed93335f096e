"""What each scheme adds to ``--scheme auto``: the choice is made once more without it.

    python -m benchmarks.scheme_gain --data cifar10:DIR resnet20.th resnet32.th

The errors are squared errors of the network's output, relative to its variation, as
:mod:`trpexport.choose.allotment` predicts them from the sensitivity table. Writes
``results/scheme_gain.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import trpexport as tx
from benchmarks.calibration_curve import SHAPE, Images
from benchmarks.environment import RESULTS, environment, run
from trpexport.choose.allotment import allot
from trpexport.choose.table import SensitivityTable, sensitivity_table
from trpexport.networks.torch.network import TorchNetwork

RATIOS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0)


def without(table: SensitivityTable, scheme: str) -> SensitivityTable:
    """Return the table without the options of a scheme."""
    layers = [
        replace(layer, options=tuple(x for x in layer.options if x.scheme != scheme))
        for layer in table.layers
    ]
    return replace(table, layers=tuple(layers))


def measure(checkpoint: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row a MAC ratio."""
    loaded = tx.load(checkpoint)
    network = TorchNetwork.open(loaded.module, SHAPE)
    images = Images(args.data, loaded, args.images)
    table = sensitivity_table(network, images.gatherer(network), cache=args.cache)
    rows = []
    for ratio in RATIOS:
        chosen = allot(table, 1 / ratio)
        taken = [option.scheme for option in chosen.chosen.values()]
        rows.append(
            {
                "network": checkpoint.stem,
                "macs_ratio": ratio,
                "squared_error": chosen.error,
                "layers": {scheme: taken.count(scheme) for scheme in table.schemes},
                "more_error_without_percent": {
                    scheme: 100
                    * (allot(without(table, scheme), 1 / ratio).error / chosen.error - 1)
                    for scheme in table.schemes
                },
            }
        )
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure every checkpoint."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--cache", type=Path, help="folder for the sensitivity tables")
    args = parser.parse_args()
    rows = [row for checkpoint in args.checkpoints for row in measure(checkpoint, args)]
    text = json.dumps({"environment": environment(), "rows": rows}, indent=2) + "\n"
    (RESULTS / "scheme_gain.json").write_text(text)


if __name__ == "__main__":
    run(main)
