"""A signal to ``trpexport tune`` leaves the best so far, and the same command goes on."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Chained
from tests.conftest import Run
from tests.latency.networks import FakeStopwatch
from trpexport import bundle
from trpexport.choose.budget import Budgeter


@pytest.fixture
def typed(
    chained: Chained, smooth_tensors: Callable[[int], str], tmp_path: Path
) -> tuple[object, ...]:
    quick = ("--scheme", "channel", "--rank-multiple", 4, "--verify-seconds", 0)
    place = ("--cache", tmp_path / "cache", "-o", tmp_path / "out")
    return ("tune", chained(24, 16), "--calib", smooth_tensors(16), *quick, *place)


def files_of(*arguments: Any) -> bool:
    """Whether what is timed are the finished files."""
    return bool(arguments[0][0].name == bundle.BASELINE)


def tuned(directory: Path) -> Any:
    return bundle.read_manifest(directory)["tuned"]


@pytest.mark.parametrize(
    ("limit", "number", "at"),
    [
        (("--max-error", 0.5), signal.SIGINT, "accepted"),
        (("--min-speedup", 1.3), signal.SIGTERM, "time the files"),
    ],
)
def test_the_best_so_far_stands_and_the_same_command_replaces_it(
    run: Run,
    clock: FakeStopwatch,
    signals: Callable[..., None],
    typed: tuple[object, ...],
    tmp_path: Path,
    limit: tuple[object, ...],
    number: int,
    at: str,
) -> None:
    out = tmp_path / "out"
    if at == "accepted":
        signals(Budgeter, "to_fraction", number, lambda budgeter, *_: budgeter.best is not None)
    else:
        signals(clock, "race", number, files_of)
    stopped = run(*typed, *limit)
    assert stopped.code == 128 + number
    speedup = clock.latency(out / bundle.BASELINE) / clock.latency(out / bundle.MODEL)
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[signal.Signals(number)]
    assert re.fullmatch(
        f'error: {word} at ".*{at}.*"; the best so far, {speedup:.2f}x, stands in {out}; the same '
        "command goes on and replaces it",
        stopped.error,
    )
    assert run("verify", out).code == 0
    assert tuned(out)["cut_short"] is True
    profiled = clock.profiled
    result = run(*typed, *limit, "--json")
    assert result.code == 0, result.err
    assert tuned(out) == {**tuned(out), "cut_short": False}
    assert clock.profiled - profiled <= 6  # the table was whole: the original and one more
    # A finished one is not replaced, and neither is one of other wishes.
    assert "exists" in run(*typed, *limit).error


def test_where_nothing_is_finished(
    run: Run,
    clock: FakeStopwatch,
    signals: Callable[..., None],
    typed: tuple[object, ...],
    tmp_path: Path,
) -> None:
    signals(Budgeter, "to_fraction", signal.SIGINT)
    stopped = run(*typed, "--max-error", 0.5)
    assert stopped.code == 130
    assert stopped.error.endswith(
        f"; nothing was written to {tmp_path / 'out'}; the same command goes on from what is kept "
        f"in {tmp_path / 'cache'}"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


def test_one_of_other_wishes_is_not_replaced(
    run: Run, clock: FakeStopwatch, signals: Callable[..., None], typed: tuple[object, ...]
) -> None:
    signals(clock, "race", signal.SIGINT, files_of)
    assert run(*typed, "--min-speedup", 1.3).code == 130
    assert "exists" in run(*typed, "--min-speedup", 1.4).error


def test_a_front_goes_on_behind_what_stands(
    run: Run,
    clock: FakeStopwatch,
    signals: Callable[..., None],
    typed: tuple[object, ...],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    signals(clock, "race", signal.SIGINT, lambda *a: files_of(*a) and (out / "1.25x").is_dir())
    stopped = run(*typed, "--pareto")
    assert (stopped.code, stopped.error) == (
        130,
        f'error: interrupted at "time the files"; the front is incomplete: {out / "1.25x"} '
        "stands, the same command goes on there",
    )
    first = (out / "1.25x" / bundle.MANIFEST).stat().st_mtime_ns
    result = run(*typed, "--pareto", "--json")
    assert result.code == 0, result.err
    assert (out / "1.25x" / bundle.MANIFEST).stat().st_mtime_ns == first
    found = [Path(one["bundle"]).name for one in json.loads(result.out)["bundles"]]
    assert found[:2] == ["1.25x", "1.5x"]


def test_a_front_of_which_nothing_stands_says_so(
    run: Run, clock: FakeStopwatch, signals: Callable[..., None], typed: tuple[object, ...],
    tmp_path: Path,
) -> None:  # fmt: skip
    signals(clock, "profiles", signal.SIGTERM)
    stopped = run(*typed, "--pareto")
    assert stopped.code == 128 + signal.SIGTERM
    assert "nothing was written" in stopped.error
