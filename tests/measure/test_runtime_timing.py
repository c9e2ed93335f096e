from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from itertools import count, groupby

import numpy as np
import pytest

from trpexport.measure.statistics import ratio_interval
from trpexport.measure.timing import (
    MIN_ROUNDS,
    Block,
    Method,
    WarmUp,
    block_for,
    garbage_collector_off,
    measure,
    warm_up,
)

MILLISECOND = 1_000_000  # in the clock's nanoseconds


class FakeMachine:
    """A clock that only runs on when a model runs, and a log of which model ran when."""

    def __init__(self, slowdown: Callable[[float], float] = lambda second: 1.0) -> None:
        self.now = 0
        self.log: list[int] = []
        self._slowdown = slowdown
        self._indices = count()

    def clock(self) -> int:
        return self.now

    def model(self, *milliseconds: float) -> Callable[[], None]:
        """Return a model whose runs take so long one after the other; the last time goes on."""
        index = next(self._indices)
        times = self._times(milliseconds)

        def run() -> None:
            self.log.append(index)
            self.now += round(next(times) * MILLISECOND * self._slowdown(self.now * 1e-9))

        return run

    @staticmethod
    def _times(milliseconds: Sequence[float]) -> Iterator[float]:
        yield from milliseconds
        while True:
            yield milliseconds[-1]


# --- warming up -----------------------------------------------------------------------------


def test_warm_up_ends_when_the_run_time_stops_falling() -> None:
    machine = FakeMachine()
    # 100, 99, ... 51 ms, then 50. The medians of two windows of five, five runs apart, are first
    # within 5 % of each other after run 56: 50 ms (run 54) against 52 (run 49); 55: 50 and 53.
    run = machine.model(*range(100, 49, -1))
    result = warm_up(run, WarmUp(), clock=machine.clock)
    assert (result.runs, result.is_steady) == (56, True)
    assert len(machine.log) == 56
    assert result.seconds == pytest.approx(0.050)


def test_warm_up_takes_its_least_time_even_if_steady() -> None:
    machine = FakeMachine()
    result = warm_up(machine.model(1), WarmUp(min_seconds=0.0195), clock=machine.clock)
    assert (result.runs, result.is_steady) == (20, True)


@pytest.mark.parametrize(
    ("limits", "runs"),
    [(WarmUp(max_runs=12), 12), (WarmUp(max_seconds=0.5), 9), (WarmUp(max_seconds=0.0), 1)],
)
def test_warm_up_gives_up_at_its_limits(limits: WarmUp, runs: int) -> None:
    machine = FakeMachine()
    doubling = [float(2**n) for n in range(30)]  # 1 + 2 + ... + 256 = 511 ms after 9 runs
    result = warm_up(machine.model(*doubling), limits, clock=machine.clock)
    assert (result.runs, result.is_steady) == (runs, False)


# --- how much is run ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "block"),
    [
        (0.0, Block(1, 2)),
        (10e-6, Block(1, 1000)),
        (1e-3, Block(1, 10)),
        (4.9e-3, Block(1, 2)),
        (0.09, Block(1, 2)),
        (0.11, Block(0, 1)),
    ],
)
def test_a_block_lasts_10_ms_and_no_less_than_two_runs(seconds: float, block: Block) -> None:
    assert block_for(seconds) == block


@pytest.mark.parametrize(
    ("milliseconds", "method", "rounds", "runs"),
    [
        (1.0, Method(min_seconds=0.995, min_runs=30), 100, 1000),  # the time decides
        (1.0, Method(min_seconds=0.0, min_runs=195), 20, 200),  # the runs decide
        (1.0, Method(min_seconds=0.0, min_runs=1), MIN_ROUNDS, 10 * MIN_ROUNDS),
        (200.0, Method(min_seconds=1.0, min_runs=30), 30, 30),
        (200.0, Method(min_seconds=8.1, min_runs=30), 41, 41),
    ],
)
def test_as_much_is_run_as_was_asked_for(
    milliseconds: float, method: Method, rounds: int, runs: int
) -> None:
    machine = FakeMachine()
    (measurement,) = measure([machine.model(milliseconds)], method, clock=machine.clock)
    assert len(measurement.rounds) == rounds
    assert measurement.seconds == pytest.approx(np.full(runs, milliseconds / 1000))
    uncounted = rounds if milliseconds < 100 else 0
    assert len(machine.log) == measurement.warm_up.runs + uncounted + runs


def test_the_first_run_of_a_block_is_not_counted() -> None:
    machine = FakeMachine()
    last = None

    def cold(index: int) -> Callable[[], None]:
        def run() -> None:
            nonlocal last
            machine.now += (1 if last == index else 5) * MILLISECOND
            last = index

        return run

    for measurement in measure([cold(0), cold(1)], Method(min_seconds=0.1), clock=machine.clock):
        assert measurement.seconds.max() == pytest.approx(1e-3)


def test_all_models_are_measured_until_the_last_one_is_done() -> None:
    machine = FakeMachine()
    quick, slow = measure(
        [machine.model(0.1), machine.model(5)], Method(min_seconds=0.5), clock=machine.clock
    )
    assert len(quick.rounds) == len(slow.rounds)
    assert {len(times) for times in quick.rounds} == {100}
    assert {len(times) for times in slow.rounds} == {2}
    assert min(quick.seconds.sum(), slow.seconds.sum()) >= 0.499


# --- taking turns ---------------------------------------------------------------------------


def blocks_of(machine: FakeMachine, warm_ups: int) -> list[tuple[int, int]]:
    """Return (model, runs) of each block after so many runs of warming up."""
    return [(index, len(list(runs))) for index, runs in groupby(machine.log[warm_ups:])]


def test_models_take_turns_in_shuffled_order() -> None:
    def orders(seed: int) -> list[tuple[int, ...]]:
        machine = FakeMachine()
        models = [machine.model(200.0) for _ in range(3)]
        method = Method(min_seconds=0, min_runs=40, seed=seed)
        measurements = measure(models, method, clock=machine.clock)
        log = machine.log[sum(m.warm_up.runs for m in measurements) :]
        assert len(log) == 120
        return [tuple(log[start : start + 3]) for start in range(0, 120, 3)]

    first = orders(0)
    assert all(sorted(order) == [0, 1, 2] for order in first)
    assert len(set(first)) == 6
    assert orders(0) == first
    assert orders(1) != first


def test_a_block_is_one_stretch() -> None:
    machine = FakeMachine()
    models = [machine.model(1), machine.model(2)]
    measurements = measure(models, Method(min_seconds=0.1), clock=machine.clock)
    blocks = blocks_of(machine, sum(m.warm_up.runs for m in measurements))
    # Two blocks of one model meet where it ends one round and begins the next.
    assert {(index, runs % (11, 6)[index]) for index, runs in blocks} == {(0, 0), (1, 0)}
    assert {runs for index, runs in blocks if index == 0} == {11, 22}


def test_drift_does_not_reach_the_ratio() -> None:
    def slowdown(second: float) -> float:
        return (1 + second / 2) * (3 if 1.0 < second < 2.0 else 1)

    machine = FakeMachine(slowdown)
    models = [machine.model(2), machine.model(1)]
    base, other = measure(models, Method(min_seconds=1.0), clock=machine.clock)
    assert base.seconds.max() / base.seconds.min() > 3  # it did drift
    interval = ratio_interval(base.rounds, other.rounds)
    assert interval.mid == pytest.approx(2, rel=0.01)
    assert interval.high - interval.low < 0.05

    alone = FakeMachine(slowdown)
    (first,) = measure([alone.model(2)], Method(min_seconds=1.0), clock=alone.clock)
    (second,) = measure([alone.model(1)], Method(min_seconds=1.0), clock=alone.clock)
    assert abs(np.median(first.seconds) / np.median(second.seconds) - 2) > 0.2


# --- the garbage collector ------------------------------------------------------------------


def test_the_garbage_collector_is_off_while_models_run() -> None:
    machine = FakeMachine()
    model = machine.model(1)
    states = set()

    def run() -> None:
        states.add(gc.isenabled())
        model()

    assert gc.isenabled()
    measure([run], Method(min_seconds=0), clock=machine.clock)
    assert states == {False}
    assert gc.isenabled()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_is_as_it_was_after_an_error(enabled: bool) -> None:
    def fail() -> None:
        raise RuntimeError("broken model")

    try:
        if not enabled:
            gc.disable()
        with pytest.raises(RuntimeError, match="broken model"):
            measure([fail], Method())
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_garbage_is_collected_before() -> None:
    class Node:
        pass

    node = Node()
    node.self = node  # type: ignore[attr-defined]
    gc.collect()
    del node
    with garbage_collector_off():
        assert not any(type(item) is Node for item in gc.get_objects())


def test_the_real_clock_is_used_by_default() -> None:
    (measurement,) = measure([lambda: None], Method(min_seconds=0, warm_up=WarmUp(max_runs=20)))
    assert (measurement.seconds >= 0).all()
    assert measurement.seconds.max() < 1


class NoisyClock:
    """A clock under which every run of either model takes from one to two milliseconds."""

    def __init__(self) -> None:
        self.now = 0
        self.random = np.random.default_rng(0)

    def __call__(self) -> int:
        return self.now

    def run(self) -> None:
        self.now += int(self.random.uniform(1e6, 2e6))


def test_a_busy_machine_is_measured_for_longer() -> None:
    def rounds(precision: float, max_seconds: float = 30.0) -> int:
        clock = NoisyClock()
        method = Method(
            min_seconds=0.1,
            min_runs=1,
            max_seconds=max_seconds,
            precision=precision,
            warm_up=WarmUp(max_seconds=0),
        )
        return len(measure([clock.run, clock.run], method, clock=clock)[0].rounds)

    quick = rounds(precision=1.0)
    patient = rounds(precision=0.05)
    assert patient > 3 * quick
    # And not for ever: 1.5 ms a run, 7 runs a block.
    bounded = rounds(precision=0.0, max_seconds=1.0)
    assert bounded == pytest.approx(1.0 / (1.5e-3 * 7), rel=0.25)
