"""What each scheme adds to ``--scheme auto``: the choice is made once more without it.

    python -m benchmarks.scheme_gain --data cifar10:DIR resnet20.th resnet32.th
    python -m benchmarks.scheme_gain --data imagefolder:natural-1000.tar --images 64 --size 224 \
        --resize 256 craft.onnx squeezenet.onnx

The errors are squared errors of the network's output, relative to its variation, as
:mod:`trpexport.choose.allotment` predicts them from the sensitivity table. Writes
``results/scheme_gain.json``, in which the rows of other networks stay.
"""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import trpexport as tx
from benchmarks.environment import RESULTS, environment, run
from benchmarks.networks import resized, source_of
from trpexport.calibration_data import CalibrationData
from trpexport.choose.allotment import Allotment, allot
from trpexport.choose.base import gathered
from trpexport.choose.table import SensitivityTable, sensitivity_table
from trpexport.errors import NothingToDoError
from trpexport.stages import Stages

RATIOS = (1.5, 2.0, 2.5, 3.0, 4.0, 5.0)
RESULT = RESULTS / "scheme_gain.json"


def among(table: SensitivityTable, schemes: set[str]) -> SensitivityTable:
    """Return the table with the options of some schemes; gains stay, so that errors compare."""
    layers = [
        replace(layer, options=tuple(x for x in layer.options if x.scheme in {None, *schemes}))
        for layer in table.layers
    ]
    return replace(table, layers=tuple(layers))


def chosen(table: SensitivityTable, ratio: float) -> Allotment | None:
    """Return the choice at a MAC ratio; None where no ranks get there."""
    with suppress(NothingToDoError):
        return allot(table, 1 / ratio)
    return None


def gains(table: SensitivityTable, ratio: float) -> dict[str, Any] | None:
    """Return what schemes have a share in a choice, and what it loses without each of them.

    None where no ranks get there; a loss is None where none get there without the scheme.
    """
    whole = chosen(table, ratio)
    if whole is None:
        return None
    taken = [option.scheme for option in whole.chosen.values()]
    every = set(table.schemes)
    others = {scheme: chosen(among(table, every - {scheme}), ratio) for scheme in table.schemes}
    alone = {scheme: chosen(among(table, {scheme}), ratio) for scheme in table.schemes}
    return {
        "squared_error": whole.error,
        "layers": {scheme: taken.count(scheme) for scheme in table.schemes},
        "more_error_without_percent": {
            scheme: None if other is None else 100 * (other.error / whole.error - 1)
            for scheme, other in others.items()
        },
        "more_error_alone_percent": {
            scheme: None if one is None else 100 * (one.error / whole.error - 1)
            for scheme, one in alone.items()
        },
    }


def measure(path: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return one row a MAC ratio."""
    stages = Stages(print)
    origin, network = source_of(path).open(stages)
    data = CalibrationData(
        tx.open_dataset(args.data), args.images, preprocessing=resized(args.size, args.resize)
    )
    images, _ = data.read_for(origin, network.inputs)
    gatherer = gathered(network, images)
    table = sensitivity_table(network, gatherer, cache=args.cache, announce=stages.say)
    rows = []
    for ratio in args.ratios:
        found = gains(table, ratio)
        if found is None:
            print(f"{path.stem}: no ranks save {ratio:g}x", flush=True)
            continue
        row = {"network": path.stem, "images": args.images, "macs_ratio": ratio}
        rows.append(row | found)
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure every network."""
    parser = argparse.ArgumentParser()
    parser.add_argument("networks", type=Path, nargs="+", help="checkpoints, or ONNX files")
    parser.add_argument("--data", required=True, help="as trpexport decompose --calib takes it")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--size", type=int, help="edge of the input")
    parser.add_argument("--resize", type=int, help="shorter edge before the middle is cut out")
    parser.add_argument("--cache", type=Path, help="folder for the sensitivity tables")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    for path in args.networks:
        rows = measure(path, args)
        known = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
        rows = [row for row in known if row["network"] != path.stem] + rows
        text = json.dumps({"environment": environment(), "rows": rows}, indent=2) + "\n"
        args.out.write_text(text)


if __name__ == "__main__":
    run(main)
