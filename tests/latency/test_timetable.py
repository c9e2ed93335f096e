"""Tables of times are right about a machine whose times are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.latency.networks import FakeStopwatch
from trpexport.latency.blanks import Blanks
from trpexport.latency.store import Store
from trpexport.latency.timer import Timer
from trpexport.latency.timetable import time_layers
from trpexport.latency.ways import Way

WAYS = {
    name: [Way("spatial", 4), Way("spatial", 8), Way("channel", 4)]
    for name in ("first", "second", "wide")
}
# Seconds by kernel: 16 -> r 3x1 and r -> out 1x3, or 16 -> r 3x3 and r -> out 1x1.
SECONDS: dict[tuple[int, ...], float] = {
    **{(16, 3, 3, 3): 20e-6, (16, 16, 3, 3): 100e-6, (32, 16, 3, 3): 200e-6},
    **{(4, 16, 3, 1): 10e-6, (16, 4, 1, 3): 20e-6, (32, 4, 1, 3): 50e-6},
    **{(8, 16, 3, 1): 30e-6, (16, 8, 1, 3): 40e-6, (32, 8, 1, 3): 90e-6},
    **{(4, 16, 3, 3): 80e-6, (16, 4, 1, 1): 60e-6, (32, 4, 1, 1): 70e-6},
}
TRUE = {
    "first": {None: 100, Way("spatial", 4): 30, Way("spatial", 8): 70, Way("channel", 4): 140},
    "wide": {None: 200, Way("spatial", 4): 60, Way("spatial", 8): 120, Way("channel", 4): 150},
}


def timer(blanks: Blanks, **facts: Any) -> Timer:
    return Timer(blanks, FakeStopwatch(SECONDS, **facts))


@pytest.mark.parametrize(("cost", "noise"), [(0.0, 0.0), (5e-6, 0.0), (5e-6, 0.05)])
def test_times_come_out_whatever_the_profiler_costs(
    blanks: Blanks, cost: float, noise: float
) -> None:
    table = time_layers(timer(blanks, profiler_cost=cost, noise=noise), WAYS, Store(None))
    tolerance = 0.05 if noise else 0.001
    for name, times in TRUE.items():
        for way, microseconds in times.items():
            found = table.layers[name][way] / table.layers[name][None]
            assert found == pytest.approx(microseconds / times[None], rel=tolerance)
    whole = 20 + 100 + 100 + 200
    assert table.latency == pytest.approx(whole * 1e-6, rel=tolerance)
    ways = {"first": Way("spatial", 4), "wide": Way("spatial", 8)}
    assert table.speedup(ways) == pytest.approx(whole / (20 + 30 + 100 + 120), rel=tolerance)
    assert table.fastest == dict.fromkeys(("first", "second", "wide"), Way("spatial", 4))


def test_what_is_known_is_not_measured_again(blanks: Blanks, tmp_path: Path) -> None:
    timed = timer(blanks)
    with Store(tmp_path) as store:
        first = time_layers(timed, WAYS, store)
        assert first.measured > 0
        second = time_layers(timed, WAYS, store)
        assert second.measured == 0
        assert second.layers == first.layers
        more = {**WAYS, "wide": [*WAYS["wide"], Way("spatial", 12)]}
        assert time_layers(timed, more, store).measured == 1


def test_twins_share_the_work(blanks: Blanks) -> None:
    # Six ways of one kind, two layers of it, each way twice: six networks; one layer alone: six.
    ways = [Way("spatial", rank) for rank in range(1, 7)]
    both = time_layers(timer(blanks), {"first": ways, "second": ways}, Store(None))
    assert both.measured == 6
    ways = [Way("spatial", rank) for rank in range(1, 4)]
    assert time_layers(timer(blanks), {"first": ways, "second": ways}, Store(None)).measured == 3


def test_a_layer_that_gets_slower_stays_as_it_is(blanks: Blanks) -> None:
    slow = {**SECONDS, (4, 16, 3, 1): 1.0, (8, 16, 3, 1): 1.0}
    table = time_layers(Timer(blanks, FakeStopwatch(slow)), {"first": WAYS["first"]}, Store(None))
    assert table.fastest == {}
