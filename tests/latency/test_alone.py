"""What is timed waits for what is at work on this machine, and is what is timed without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.latency.networks import SHAPE, FakeStopwatch, twins
from trpexport.inputs import Inputs
from trpexport.latency.alone import AloneStopwatch
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.turns import working


@pytest.fixture
def file(tmp_path: Path) -> Path:
    twins().write_onnx(tmp_path / "net.onnx", OnnxSettings())
    return tmp_path / "net.onnx"


@pytest.mark.parametrize(
    "times",
    [lambda clock, file: clock.race([file], 0), lambda clock, file: clock.profiles([file], 2)],
)
def test_it_waits_for_what_is_at_work(file: Path, times: Callable[[Any, Path], Any]) -> None:
    waits, found = Event(), list[Any]()
    clock = AloneStopwatch(FakeStopwatch(), lambda line: waits.set())
    thread = Thread(target=lambda: found.append(times(clock, file)))
    with working(lambda line: None):
        thread.start()
        assert waits.wait(20)
        assert not found
    thread.join(20)
    assert found == [times(FakeStopwatch(), file)]


def test_all_else_is_that_of_the_other_one() -> None:
    inner = FakeStopwatch(instruction_sets=("avx2",))
    clock = AloneStopwatch(inner, lambda line: None).at(Inputs.of(SHAPE))
    clock.check()
    assert inner.sizes == Inputs.of(SHAPE)
    assert clock.facts() == inner.facts()
    assert clock.conditions is inner.conditions
    assert clock.instruction_sets == ("avx2",)
