"""How TRP's accuracy depends on its settings: one row a finished run.

    python -m benchmarks.trp_curve runs/plain-continued runs/spatial-calibrated ...

Each argument is a directory that ``trpexport train`` wrote, with ``--recipe one-cycle`` and what
the table names. Accuracy is that of the last epoch, after the last projection, on all test images;
the MAC ratio that at the value threshold, where a decomposition changes no more than rounding.
Writes ``results/trp_curve.json``; a run that was not finished is refused.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.environment import RESULTS, environment, run

COLUMNS = ("scheme", "energy", "target_macs", "nuclear_weight")


def row(directory: Path) -> dict[str, Any]:
    """Return the settings of a run and what it reached."""
    try:
        facts = json.loads((directory / "run.json").read_text())
        lines = (directory / "metrics.jsonl").read_text().splitlines()
    except OSError as error:
        raise SystemExit(f"{directory} is no training run: {error.strerror}") from None
    epochs = [json.loads(line) for line in lines]
    recipe, last = facts["recipe"], epochs[-1] if epochs else {"epoch": 0}
    if last["epoch"] != recipe["epochs"]:
        raise SystemExit(
            f"{directory} is not finished: {last['epoch']} of {recipe['epochs']} epochs"
        )
    low_rank = facts["low_rank"] or {}
    found = {"run": directory.name, "epochs": recipe["epochs"], "lr": recipe["lr"]}
    found |= {name: low_rank.get(name) for name in COLUMNS}
    if found["target_macs"] is not None:
        found["energy"] = None  # steered
    ratio = last.get("macs_ratio")
    return found | {
        "top1": last["test_top1"],
        "images": last["test_images"],
        "macs_ratio": None if ratio is None else 1 / ratio,
        "epoch_top1": [epoch["test_top1"] for epoch in epochs],
    }


def main() -> None:
    """Print and write the rows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", type=Path, nargs="+")
    rows = [row(directory) for directory in parser.parse_args().runs]
    for one in rows:
        print({name: value for name, value in one.items() if value is not None})
    text = json.dumps({"environment": environment(), "rows": rows}, indent=2) + "\n"
    (RESULTS / "trp_curve.json").write_text(text)


if __name__ == "__main__":
    run(main)
