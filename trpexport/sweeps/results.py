"""What came of a sweep: a row a cell, and the cells that no other beats."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpexport.fronts import front_of
from trpexport.shown import Shown
from trpexport.sweeps.cells import Cell
from trpexport.sweeps.journal import Outcome

_COLUMNS = (
    *("scheme", "target", "precision", "macs", "macs_before", "parameters", "parameters_before"),
    *("bytes", "bytes_before", "error", "metric", "before", "after", "loss", "loss_low"),
    *("loss_high", "images", "seconds", "seconds_before", "speedup", "speedup_low"),
    *("speedup_high", "front", "failed"),
)


@dataclass(frozen=True, repr=False)
class SweepResult(Shown):
    """What came of a sweep.

    Attributes:
        path: its directory.
        network: what the network is called.
        data: JSON-ready facts: ``cells``, of which each has ``failed``; ``front``, the labels of
            those that none beats in both; ``gain`` and ``loss``, by what.
        codes: exit codes of the cells that failed.
    """

    path: Path
    network: str
    data: Mapping[str, Any]
    codes: tuple[int, ...] = ()

    @classmethod
    def of(cls, path: Path, network: str, outcomes: Mapping[Cell, Outcome]) -> SweepResult:
        """Return what came of cells."""
        cells = [_cell(cell, outcome) for cell, outcome in outcomes.items()]
        gain, loss = _gain_of(cells), _loss_of(cells)
        compared = [
            cell for cell in cells if cell["macs"] is not None and _lost(cell, loss) is not None
        ]
        points = [(_gained(cell, gain), _lost(cell, loss) or 0.0) for cell in compared]
        front = [compared[place]["label"] for place in front_of(points)]
        data = {
            **{"kind": "sweep", "network": network, "gain": gain, "loss": loss},
            **{"front": front, "cells": cells},
        }
        codes = tuple(outcome.code for outcome in outcomes.values() if outcome.error is not None)
        return cls(path, network, data, codes)

    def csv(self) -> str:
        """Return a line a cell, with a header."""
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        for cell in self.data["cells"]:
            writer.writerow({**_flat(cell), "front": cell["label"] in self.data["front"]})
        return text.getvalue()

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        cells: Sequence[Mapping[str, Any]] = self.data["cells"]
        return {
            "path": self.path,
            "cells": len(cells),
            "failed": len(self.codes),
            "front": ", ".join(self.data["front"]),
        }


def _cell(cell: Cell, outcome: Outcome) -> dict[str, Any]:
    facts = outcome.facts or dict.fromkeys(
        ("macs", "parameters", "bytes", "error", "judged", "uncounted")
    )
    return {
        **{"label": cell.label, "scheme": cell.scheme, "target": cell.target},
        **{"precision": cell.precision, "bundle": None if outcome.facts is None else cell.folder},
        **facts,
        "time": outcome.time,
        "failed": outcome.error,
    }


def _gain_of(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return by what cells are compared: time where it was measured for all that stand."""
    standing = [cell for cell in cells if cell["macs"] is not None]
    if standing and all(cell["time"] is not None for cell in standing):
        return "speedup"
    return "bytes" if len({cell["precision"] for cell in cells}) > 1 else "macs"


def _loss_of(cells: Sequence[Mapping[str, Any]]) -> str:
    judged = next((cell["judged"] for cell in cells if cell["judged"] is not None), None)
    return "error" if judged is None else str(judged["metric"])


def _gained(cell: Mapping[str, Any], gain: str) -> float:
    if gain == "speedup":
        return float(cell["time"]["speedup"]["mid"])
    return float(cell[gain]["before"] / max(1, cell[gain]["after"]))


def _lost(cell: Mapping[str, Any], loss: str) -> float | None:
    if loss == "error":
        found = cell["error"] and cell["error"]["value"]
        return None if found is None else float(found)
    return None if cell["judged"] is None else float(cell["judged"]["loss"])


def _flat(cell: Mapping[str, Any]) -> dict[str, Any]:
    """Return a cell as a line of a table; what is not known is left out."""
    row = {name: cell[name] for name in ("scheme", "target", "precision", "failed")}
    for name in ("macs", "parameters", "bytes"):
        if cell[name] is not None:
            row |= {name: cell[name]["after"], f"{name}_before": cell[name]["before"]}
    if cell["error"] is not None:
        row["error"] = cell["error"]["value"]
    if (judged := cell["judged"]) is not None:
        row |= {name: judged[name] for name in ("metric", "before", "after", "loss", "images")}
        row |= {"loss_low": judged["low"], "loss_high": judged["high"]}
    if (time := cell["time"]) is not None:
        speedup = time["speedup"]
        row |= {"seconds": time["seconds"], "seconds_before": time["original"]}
        row |= {"speedup": speedup["mid"], "speedup_low": speedup["low"]}
        row |= {"speedup_high": speedup["high"]}
    return row
