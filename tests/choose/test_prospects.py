"""What low rank can win at most is told early, with where the time goes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.latency.networks import SHAPE, FakeStopwatch, twins
from trpexport.choose.by_latency import ByLatency
from trpexport.choose.prospects import check_pays, least_ways
from trpexport.datasets.calibration import ArrayImages
from trpexport.errors import NothingToDoError
from trpexport.latency.blanks import Blanks
from trpexport.latency.store import Store
from trpexport.latency.timer import Timer
from trpexport.latency.timetable import TimeTable, time_layers
from trpexport.latency.ways import Way
from trpexport.ops import LinearOp, Window
from trpexport.stages import Stages


@pytest.fixture(scope="module")
def blanks(tmp_path_factory: pytest.TempPathFactory) -> Blanks:
    return Blanks(twins(), tmp_path_factory.mktemp("blanks"))


WAYS = {name: [Way("spatial", rank) for rank in (2, 4, 8)] for name in ("first", "second")}


def table(blanks: Blanks, stopwatch: FakeStopwatch) -> tuple[Timer, TimeTable]:
    timer = Timer(blanks, stopwatch)
    with Store(None) as store:
        return timer, time_layers(timer, WAYS, store)


def test_the_bound_and_where_the_time_goes(blanks: Blanks) -> None:
    lines: list[str] = []
    timer, times = table(blanks, FakeStopwatch())
    best = check_pays(timer, times, 1.5, lines.append)
    # A nanosecond a weight: 432 + 2 x 2304 + 4608 in all, of which 2 x 2304 become 2 x 192.
    assert best.mid == pytest.approx(9648 / (9648 - 2 * (2304 - 192)))
    (line,) = lines
    assert line.startswith("at most 1.78x (1.78 to 1.78) can be won: 48% of the time is in layers")
    assert (
        "may be rewritten: 48% in 3x3 convolutions; 52% is in layers that are kept: 52% in" in line
    )


@pytest.mark.parametrize(
    ("seconds", "wanted", "says"),
    [
        ({}, 2.0, r"a speed-up of 2 can't be met: .* it is 1\.78x .*48% of the time"),
        ({(2, 16, 3, 1): 1, (4, 16, 3, 1): 1, (8, 16, 3, 1): 1}, 1.0, "no layer gets faster; 48%"),
    ],
)
def test_what_can_not_be_is_told(
    blanks: Blanks, seconds: dict[tuple[int, ...], float], wanted: float, says: str
) -> None:
    timer, times = table(blanks, FakeStopwatch(seconds))
    with pytest.raises(NothingToDoError, match=says):
        check_pays(timer, times, wanted, lambda line: None)


def test_few_networks_are_timed_before_it_is_told() -> None:
    """Of a network that can't get so fast, the ways that are no bound are not timed."""
    stopwatch = FakeStopwatch()
    images = ArrayImages(np.zeros((8, *SHAPE[1:]), np.float32))
    chooser = ByLatency(
        speedup=50.0, stopwatch=stopwatch, rank_multiple=1, scheme="spatial", cache=None
    )
    lines: list[str] = []
    with pytest.raises(NothingToDoError, match="a speed-up of 50 can't be met"):
        chooser(twins(), images, Stages(lines.append), "twins")
    profiled = [line for line in lines if line.startswith("profile networks")]
    assert profiled == ["profile networks 1 to 2 of 2"]


def test_the_least_rank_and_the_least_whole_block() -> None:
    ways = {
        "a": [Way("spatial", rank) for rank in (24, 1, 3, 16, 40)],
        "b": [Way("channel", 32), Way("spatial", 2)],
        "c": [],
    }
    assert least_ways(ways) == {
        "a": [Way("spatial", 1), Way("spatial", 16)],
        "b": [Way("channel", 32), Way("spatial", 2)],
        "c": [],
    }


@pytest.mark.parametrize(
    ("op", "kind"),
    [
        (LinearOp(8, 8, 8, window=Window((3, 3))), "depthwise convolutions"),
        (LinearOp(8, 16, 2, window=Window((3, 3))), "grouped convolutions"),
        (LinearOp(8, 16, window=Window((1, 1))), "1x1 convolutions"),
        (LinearOp(8, 16, window=Window((7,))), "7-tap convolutions"),
        (LinearOp(8, 16), "matrix products"),
    ],
)
def test_kinds_of_layers(op: LinearOp, kind: str) -> None:
    assert op.kind == kind
