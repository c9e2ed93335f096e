"""How runs are timed, so that the figures can be believed on a machine that does other things.

Each model is warmed up until its run time is steady. Then the models take turns in rounds, in an
order that is shuffled for every round: what slows the machine down for a while slows all of them
down, and the ratio of two of them within one round does not notice.

In a round each model runs a block of times, not once, because in use a model follows itself and
not another one. The first run of a block finds caches full of the other model, and on several
threads the other session's workers still spinning; it is not counted. (ResNet-20 on one thread:
5 to 10 % slower than the next runs; on two threads up to four times.) A block lasts some 10 ms
whatever the model, so that all models get the same share of interruptions, and rounds are short
against most disturbances; 5 ms and 20 ms came out just as repeatable. Runs of more than 100 ms
take far longer than caches take to fill, and are not repeated in a round.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from trpexport.garbage import search_off
from trpexport.measure.statistics import ratio_interval
from trpexport.tensors import Array

Clock = Callable[[], int]  # nanoseconds since some fixed point
Run = Callable[[], object]

MIN_ROUNDS = 12  # with fewer, an interval of 95 % holds the truth in 92 % of simulations
_BLOCK_SECONDS = 0.01
_LONG_RUN_SECONDS = 0.1
_NANO = 1e-9


@dataclass(frozen=True)
class WarmUp:
    """When a model is warm: the medians of its last two windows of runs agree.

    Attributes:
        window: runs in a window.
        tolerance: largest relative difference of the two medians.
        min_seconds: least time, for the clock of an idle processor to rise.
        max_seconds: time after which the model is taken as it is.
        max_runs: number of runs after which it is.
    """

    window: int = 5
    tolerance: float = 0.05
    min_seconds: float = 0.1
    max_seconds: float = 10.0
    max_runs: int = 100_000


@dataclass(frozen=True)
class Method:
    """How long to measure.

    Attributes:
        min_seconds: least time that the counted runs of each model add up to.
        min_runs: least number of counted runs of each model.
        max_seconds: time to spend on each model at most, beyond these, until the speed-ups are
            known to ``precision``. On a quiet machine that takes no longer at all.
        precision: width of the interval of a speed-up, relative to its lower end, that will do.
        warm_up: when a model is warm.
        seed: of the order of the models in each round.
    """

    min_seconds: float = 1.0
    min_runs: int = 30
    max_seconds: float = 30.0
    precision: float = 0.05
    warm_up: WarmUp = field(default_factory=WarmUp)
    seed: int = 0


@dataclass(frozen=True)
class WarmUpResult:
    """How a model got warm.

    Attributes:
        runs: number of runs it took.
        is_steady: whether the run time settled before a limit was reached.
        seconds: median of the last window, the time of one run.
    """

    runs: int
    is_steady: bool
    seconds: float


@dataclass(frozen=True)
class Measurement:
    """The timed runs of one model.

    Attributes:
        warm_up: how it got warm.
        rounds: seconds of its counted runs, one array a round.
    """

    warm_up: WarmUpResult
    rounds: tuple[Array, ...]

    @property
    def seconds(self) -> Array:
        """All counted runs, in the order in which they ran."""
        return np.concatenate(self.rounds)


@dataclass(frozen=True)
class Block:
    """What one model runs in one round.

    Attributes:
        uncounted: runs at the beginning that are not counted.
        counted: the others.
    """

    uncounted: int
    counted: int


def block_for(seconds: float) -> Block:
    """Return the block of a model whose run takes so many seconds."""
    if seconds > _LONG_RUN_SECONDS:
        return Block(0, 1)
    return Block(1, max(2, round(_BLOCK_SECONDS / seconds))) if seconds > 0 else Block(1, 2)


def measure(
    runs: Sequence[Run], method: Method, *, clock: Clock = time.perf_counter_ns
) -> list[Measurement]:
    """Time any number of models against each other, in one process and in turns.

    The garbage collector is off meanwhile.

    Args:
        runs: one function a model, which runs it once.
        method: how long to measure.
        clock: returns nanoseconds.

    Returns:
        One measurement a model, with the same number of rounds each.
    """
    generator = np.random.default_rng(method.seed)
    with garbage_collector_off():
        models = [_Model(run, warm_up(run, method.warm_up, clock=clock)) for run in runs]
        next_look = 0
        while True:
            for index in generator.permutation(len(models)):
                models[index].run_block(clock)
            rounds = len(models[0].rounds)
            if rounds >= next_look and all(model.has_enough(method) for model in models):
                if _settled(models, method):
                    break
                next_look = rounds + MIN_ROUNDS  # each look takes milliseconds
    return [Measurement(model.warm_up, tuple(model.rounds)) for model in models]


def warm_up(run: Run, limits: WarmUp, *, clock: Clock = time.perf_counter_ns) -> WarmUpResult:
    """Run a model until its run time is steady, or a limit is reached.

    Args:
        run: runs it once.
        limits: when it is steady, and the limits.
        clock: returns nanoseconds.
    """
    window = limits.window
    times: list[float] = []
    started = clock()
    while True:
        times.append(_seconds_of(run, clock))
        elapsed = (clock() - started) * _NANO
        last = float(np.median(times[-window:]))
        if len(times) >= 2 * window and elapsed >= limits.min_seconds:
            before = float(np.median(times[-2 * window : -window]))
            if abs(last - before) <= limits.tolerance * before:
                return WarmUpResult(len(times), True, last)
        if elapsed >= limits.max_seconds or len(times) >= limits.max_runs:
            return WarmUpResult(len(times), False, last)


@contextmanager
def garbage_collector_off() -> Iterator[None]:
    """Collect garbage once, then keep the collector off until the block ends."""
    gc.collect()
    with search_off():
        yield


class _Model:
    """What was timed of one model so far."""

    def __init__(self, run: Run, warm_up: WarmUpResult) -> None:
        self.warm_up = warm_up
        self.rounds: list[Array] = []
        self._run = run
        self._block = block_for(warm_up.seconds)
        self.seconds = 0.0

    def run_block(self, clock: Clock) -> None:
        for _ in range(self._block.uncounted):
            self._run()
        times = np.array([_seconds_of(self._run, clock) for _ in range(self._block.counted)])
        self.rounds.append(times)
        self.seconds += float(times.sum())

    def has_enough(self, method: Method) -> bool:
        """Whether the least numbers of rounds, runs and seconds are reached."""
        return (
            len(self.rounds) >= MIN_ROUNDS
            and len(self.rounds) * self._block.counted >= method.min_runs
            and self.seconds >= method.min_seconds
        )


def _settled(models: Sequence[_Model], method: Method) -> bool:
    """Whether the speed-ups over the first model are known well enough, or time is up.

    It stops at a width, whatever the speed-up itself is: a rule that looked at the verdict would
    find differences where there are none.
    """
    if max(model.seconds for model in models) >= method.max_seconds:
        return True
    base, *others = models
    intervals = [ratio_interval(base.rounds, other.rounds, seed=method.seed) for other in others]
    return all(found.high <= found.low * (1 + method.precision) for found in intervals)


def _seconds_of(run: Run, clock: Clock) -> float:
    started = clock()
    run()
    return (clock() - started) * _NANO
