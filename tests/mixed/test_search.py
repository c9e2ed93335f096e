"""Limits are met by what files really lose and take, whatever the tables say."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from tests.mixed.made import INT8, Row, Truth
from trpexport.errors import NothingToDoError
from trpexport.measure.statistics import Interval
from trpexport.mixed.mix import Mix
from trpexport.mixed.search import MixSearch
from trpexport.mixed.times import fit

ROW = Row(
    int8=[4.0, 5.0, 6.0, 12.0, 4.0, 3.0, 9.0, 4.0],
    errors=[0.02, 0.05, 0.04, 0.01, 0.2, 0.03, 0.02, 0.06],
    low_rank=0.004,
    conversion=1.0,
)
ALONE = Mix({}, dict.fromkeys(ROW.names, INT8))


def search(times_worse: float = 1.0) -> tuple[MixSearch, Truth]:
    offer, truth = ROW.offer(), Truth(ROW)
    fit(offer.times, truth)
    build = partial(ROW.built, times_worse=times_worse)
    return MixSearch(offer, truth, build, lambda line: None), truth


@pytest.mark.parametrize("times_worse", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("limit", [0.1, 0.2, 0.3])
def test_an_error_is_kept_to_and_used_up(times_worse: float, limit: float) -> None:
    some, _ = search(times_worse)
    alone = ROW.built(ALONE, times_worse)
    found = some.to_limit(lambda built: built.error <= limit, limit, alone)
    assert found.error <= limit
    best = min((ROW.seconds(mix) for mix in _within(limit / times_worse)), default=100.0)
    assert 100 / found.speedup.mid <= best * 1.06


@pytest.mark.parametrize("profiled", [0.6, 1.4])
@pytest.mark.parametrize("limit", [0.1, 0.2])
def test_prices_that_are_wrong_are_put_right_by_what_is_measured(
    profiled: float, limit: float
) -> None:
    dear = replace(ROW, conversion=5.0, profiled=profiled)
    some = MixSearch(dear.offer(), Truth(dear), dear.built, lambda line: None)
    alone = dear.built(ALONE)
    found = some.to_limit(lambda built: built.error <= limit, limit, alone)
    assert some.agrees(found)
    assert not some.doubts(found)
    exact = replace(dear, profiled=1.0).offer()
    assert 100 / found.speedup.mid <= dear.seconds(exact.least("seconds", limit**2)) * 1.06


@pytest.mark.parametrize(("profiled", "conversion"), [(0.2, 5.0), (0.1, 20.0)])
def test_prices_that_are_far_too_low_end_no_search(profiled: float, conversion: float) -> None:
    # What is measured puts the least time that any takes above the share that was tried.
    dear = replace(ROW, conversion=conversion, profiled=profiled)
    some = MixSearch(dear.offer(), Truth(dear), dear.built, lambda line: None)
    found = some.to_limit(lambda built: built.error <= 0.2, 0.2)
    assert found.error <= 0.2
    assert found.speedup.low > 1


def test_a_network_that_is_slower_than_predicted_is_told() -> None:
    some, _ = search()
    some.to_limit(lambda built: built.error <= 0.2, 0.2)
    assert some.best is not None
    slower = replace(some.best, speedup=Interval(1.0, 1.0, 1.0))
    assert not some.agrees(slower)
    (doubt,) = some.doubts(slower)
    assert doubt.startswith(f"the network was predicted to be {some.foreseen(slower):.2f}x as fast")
    assert "and is 1.00x (1.00 to 1.00)" in doubt


def _within(limit: float) -> list[Mix]:
    """Return networks within an error, as the exact choice by the truth has them."""
    offer = ROW.offer()
    fit(offer.times, Truth(ROW))
    return [offer.least("seconds", limit**2)]


def test_a_limit_that_no_error_is_known_for_is_met_by_trying() -> None:
    some, _ = search()
    found = some.to_limit(lambda built: built.error <= 0.15, None)
    assert found.error <= 0.15
    assert found.speedup.mid > 1.1


@pytest.mark.parametrize("speedup", [1.2, 1.5, 2.0])
def test_a_speedup_is_met_at_the_least_error(speedup: float) -> None:
    some, _ = search()
    found = some.to_speedup(speedup, ROW.built(ALONE))
    assert found.speedup.mid >= speedup
    offer = ROW.offer()
    fit(offer.times, Truth(ROW))
    best = ROW.built(offer.least("error", 1 / (speedup * 1.03))).error
    assert found.error <= best * 1.001


@pytest.mark.parametrize("speedup", [3.0, 50.0])
def test_more_than_there_is(speedup: float) -> None:
    some, _ = search()
    with pytest.raises(NothingToDoError, match=r"can't be met: the best measured is 2\.\d\dx"):
        some.to_speedup(speedup)


def test_no_network_is_that_near() -> None:
    some, _ = search()
    with pytest.raises(NothingToDoError, match="the least output error of those that were tried"):
        some.to_limit(lambda built: False, 0.1, ROW.built(ALONE))


@pytest.mark.parametrize(
    ("beside", "is_admitted", "is_alone"),
    [
        (Interval(1.1, 1.2, 1.3), True, False),
        (Interval(0.98, 1.02, 1.06), True, True),
        (Interval(0.8, 0.9, 0.95), True, True),
        (Interval(0.8, 0.9, 0.95), False, False),
    ],
)
def test_int8_alone_is_taken_where_it_is_as_fast_and_near_enough(
    beside: Interval, is_admitted: bool, is_alone: bool
) -> None:
    some, truth = search()
    best, alone = ROW.built(Mix({}, {"layer0": INT8})), ROW.built(ALONE)
    truth.raced = {str(best.file): beside}
    taken = some.preferred(best, alone, is_admitted=is_admitted)
    assert (taken is alone) == is_alone
    assert some.preferred(alone, alone, is_admitted=is_admitted) is alone
