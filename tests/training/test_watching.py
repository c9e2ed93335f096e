"""What TensorBoard is told, and what the terminal shows."""

from __future__ import annotations

import importlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

from trpexport.training.watching import TensorBoard, Watchers


def facts(step: int, loss: float) -> dict[str, Any]:
    return {
        "epoch": step // 10, "step": step, "loss": loss, "test_top1": 50.0, "energy": None,
        "test_images": 7,
    }  # fmt: skip


def points(path: Path, name: str) -> list[tuple[int, float]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(path))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"loss", "test_top1"}
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_tensorboard_holds_the_metrics_and_a_resumed_run_adds_none_twice(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    first = TensorBoard(tmp_path / "tb")
    first.begin(3, 10, 0)
    first.epoch(facts(10, 3.0))
    first.epoch(facts(20, 2.5))
    first.end()
    # Killed before the state of the second epoch was written: that epoch is done again.
    second = TensorBoard(tmp_path / "tb")
    second.begin(3, 10, 10)
    second.epoch(facts(20, 2.0))
    second.epoch(facts(30, 1.0))
    second.end()
    assert points(tmp_path / "tb", "loss") == [(10, 3.0), (20, 2.0), (30, 1.0)]


def test_watchers_pass_everything_on() -> None:
    class Notes:
        def __init__(self) -> None:
            self.heard: list[Any] = []

        def begin(self, epochs: int, steps_per_epoch: int, done: int) -> None:
            self.heard.append((epochs, steps_per_epoch, done))

        def step(self, facts: dict[str, Any]) -> None:
            self.heard.append(facts)

        def epoch(self, facts: dict[str, Any]) -> None:
            self.heard.append(facts)

        def end(self) -> None:
            self.heard.append("end")

    notes = [Notes(), Notes()]
    watchers = Watchers(notes)
    watchers.begin(1, 2, 0)
    watchers.step({"step": 1})
    watchers.epoch({"epoch": 1})
    watchers.end()
    assert notes[0].heard == notes[1].heard == [(1, 2, 0), {"step": 1}, {"epoch": 1}, "end"]


@pytest.fixture(params=[60, 80, 100])
def screen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal that somebody watches; ``screen.width`` is its width."""
    import rich.console

    class Screen(io.StringIO):
        width = request.param

        def isatty(self) -> bool:
            return True

    shown, real = Screen(), rich.console.Console

    def terminal(**_: object) -> rich.console.Console:
        return real(
            file=shown, force_terminal=True, width=shown.width, height=24, legacy_windows=False
        )

    monkeypatch.setattr(rich.console, "Console", terminal)
    return shown


def last_line(screen: io.StringIO) -> str:
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    return [line for line in re.split(r"[\r\n]+", shown) if line.strip()][-1]


def test_the_bar_of_a_run_stays_on_one_line(screen: Any) -> None:
    bar = importlib.import_module("trpexport.cli.watch").EpochBar()
    bar.begin(164, 390, 63_000)
    status = {"loss": 12.3456, "top1": 99.99, "mean_rank_share": 0.345, "macs_ratio": 0.351}
    for step in range(63_001, 63_004):
        bar.step({"step": step, **status})
        bar.bar.refresh()
    bar.end()
    last = last_line(screen)
    assert len(last) <= screen.width
    if screen.width >= 80:
        for word in ("loss 12.346", "top-1 100.0 %", "rank 0.34", "MACs 0.35", "63003/63960"):
            assert word in last
        assert re.search(r"\d+:\d\d|-:-", last)  # the time that is left


def test_a_bar_fills_one_line(screen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen)
    with importlib.import_module("trpexport.cli.console").bar(50_000, "evaluate") as advance:
        advance(20_000)
        advance(30_000)
    last = last_line(screen)
    assert last.startswith("evaluate ")
    assert "50000/50000" in last
    assert len(last.rstrip()) == screen.width
