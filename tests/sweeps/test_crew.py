"""Several processes make what one makes, and one that crashes takes its cell with it alone."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trpexport.errors import TrpexportError
from trpexport.judge.metrics import OwnMetric
from trpexport.latency.stopwatch import Conditions
from trpexport.stages import Stages
from trpexport.sweeps.cells import Cell, grid
from trpexport.sweeps.crew import Crew
from trpexport.sweeps.order import Order, Turn
from trpexport.sweeps.sweep import Sweep
from trpexport.sweeps.work import Work

CELLS = grid(["channel"], [0.8, 0.6], ["fp32", "int8"])
GROUPS = [CELLS[:2], CELLS[2:]]


def deadly(predictions: object, targets: object) -> float:
    """A metric that ends the process it is computed in."""
    os.kill(os.getpid(), signal.SIGSEGV)
    return 0.0


def test_bundles_wait_for_what_their_scheme_shares() -> None:
    other = grid(["spatial"], [0.5], ["fp32"])
    order = Order([*GROUPS, other])
    measured, alone = order.first()
    assert measured == Turn(CELLS[:2])
    assert alone == Turn(other, 0)  # shared with nobody
    first, second = order.after(measured)
    assert (first.cell, second.cell) == (CELLS[0], CELLS[2])
    following = first.following()
    assert following == Turn(CELLS[:2], 1)
    assert following.following() is None


@pytest.mark.slow
def test_a_crew_gives_what_one_process_gives(work: Work, tmp_path: Path) -> None:
    said: list[str] = []
    alone = Sweep(work, CELLS)(tmp_path / "alone")
    timed = Conditions()  # which can't be handed over, and is not
    apart = replace(work, cache=tmp_path / "own-cache", conditions=timed, seconds=0.01)
    found = Sweep(apart, CELLS, Crew(2))(tmp_path / "crew", Stages(said.append))
    assert [cell["failed"] for cell in found.data["cells"]] == [None] * 4
    for one, other in zip(alone.data["cells"], found.data["cells"], strict=True):
        assert (one["label"], one["macs"], one["bundle"]) == (
            *(other["label"], other["macs"], other["bundle"]),
        )
        assert one["error"]["value"] == pytest.approx(other["error"]["value"], rel=1e-3)
        assert one["judged"]["after"] == pytest.approx(other["judged"]["after"], rel=1e-3)
    # What each layer loses is measured once, in one process.
    measured = [line for line in said if "ranks tried" in line]
    assert {line.partition(":")[0] for line in measured} == {"what each layer loses under channel"}


@pytest.mark.slow
def test_a_crash_is_a_line_and_the_others_go_on(work: Work, tmp_path: Path) -> None:
    assert work.labelled is not None
    judged = replace(work.labelled, metric=OwnMetric("deadly", deadly, lower_is_better=False))
    found = Sweep(replace(work, labelled=judged), CELLS[::2], Crew(2))(tmp_path / "out")
    lines = [cell["failed"] for cell in found.data["cells"]]
    assert lines == ["the process that worked on it ended (SIGSEGV)"] * 2
    assert found.codes == (TrpexportError.exit_code,) * 2


def test_what_can_not_be_handed_over_is_told(work: Work, tmp_path: Path) -> None:
    assert work.labelled is not None
    judged = replace(work.labelled, metric=OwnMetric("own", lambda *_: 0.0, lower_is_better=False))
    with pytest.raises(TrpexportError, match="can't be handed to other processes"):
        Sweep(replace(work, labelled=judged), CELLS, Crew(2))(tmp_path / "out")


@pytest.mark.slow
def test_what_the_processes_can_not_read_is_told_of_each_cell(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a function in a script that was run, which only its own process has."""
    main = sys.modules["__main__"]
    monkeypatch.setattr(deadly, "__module__", "__main__")
    monkeypatch.setattr(main, "deadly", deadly, raising=False)
    assert work.labelled is not None
    judged = replace(work.labelled, metric=OwnMetric("deadly", deadly, lower_is_better=False))
    found = Sweep(replace(work, labelled=judged), CELLS[::2], Crew(2))(tmp_path / "out")
    lines = [cell["failed"] for cell in found.data["cells"]]
    assert all(line.startswith("AttributeError: ") and "deadly" in line for line in lines), lines


def test_one_bundle_needs_no_crew(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trpexport.sweeps.crew._Worker", None)
    found = Sweep(work, (Cell("channel", 0.7),), Crew(4))(tmp_path / "out")
    assert found.codes == ()
