"""What is chosen of a row of layers whose times and losses are known."""

from __future__ import annotations

import math

import pytest

from tests.mixed.made import HALF, INT8, QUARTER, Row, Truth
from trpexport.bundle import FLOAT32
from trpexport.choose.table import LayerOptions, Option, SensitivityTable
from trpexport.mixed.mix import Mix
from trpexport.mixed.offer import Offer
from trpexport.mixed.times import fit


def fitted(row: Row) -> Offer:
    offer = row.offer()
    fit(offer.times, Truth(row))
    return offer


def inside(mix: Mix) -> list[bool]:
    return [one == INT8 for one in mix.precisions.values()]


def test_a_layer_that_loses_much_in_8_bits_stays_in_float32() -> None:
    row = Row(int8=[4.0] * 5, errors=[0.01, 0.01, 0.5, 0.01, 0.01], low_rank=1.0)
    mix = fitted(row).least("seconds", 0.1**2)
    assert inside(mix) == [True, True, False, True, True]
    assert not mix.ways


def test_8_bits_that_are_never_faster_are_not_taken() -> None:
    row = Row(int8=[11.0] * 5, errors=[0.0] * 5)
    offer = fitted(row)
    for limit in (0.0, 0.02, math.inf):
        assert not offer.least("seconds", limit).has_int8


def test_low_rank_and_8_bits_share_the_error() -> None:
    row = Row(int8=[6.0] * 5, errors=[0.05] * 5, low_rank=0.01)
    # A chain in int8 takes 3, and makes 0.01 + 2 x 0.0025; the layer in int8 6, and 0.0025.
    mix = fitted(row).least("seconds", 0.015 * 3 + 1e-9)
    assert row.seconds(mix) == pytest.approx(min(seconds for seconds, _ in every(row, 0.045)))


def every(row: Row, limit: float) -> list[tuple[float, Mix]]:
    """Return all networks whose squared error is within a limit, by what they take."""
    found = []
    for code in range(4 ** len(row.names)):
        kinds = [(code >> 2 * place) & 3 for place in range(len(row.names))]
        named = list(zip(row.names, kinds, strict=True))
        mix = Mix(
            {name: HALF for name, kind in named if kind & 1},
            {name: INT8 if kind & 2 else FLOAT32 for name, kind in named},
        )
        if row.built(mix).error ** 2 <= limit + 1e-9:
            found.append((row.seconds(mix), mix))
    return found


def test_departures_from_the_best_scheme_count_more() -> None:
    row = Row(int8=[11.0] * 5, errors=[1.0] * 5)
    options = (
        Option(None, None, {}, 0.0),
        Option("channel", 8, {}, 0.01),
        Option("spatial", 8, {}, 0.05),
    )
    gains = {"channel": 1.0, "spatial": 1.0}
    table = SensitivityTable("", tuple(LayerOptions(n, gains, options) for n in row.names), {})
    offer = Offer(row.times(), table, {})
    # What is fastest at any loss says nothing of which scheme is best within one.
    assert {*offer.least("seconds", math.inf).ways.values()} == {QUARTER}
    assert offer.least("seconds", 0.05 + 1e-9).ways == dict.fromkeys(row.names, HALF)


def test_what_a_chain_was_seen_to_lose_in_8_bits_counts_from_then_on() -> None:
    row = Row(int8=[5.0] * 3, errors=[0.1] * 3)
    offer = fitted(row)
    assert offer.int8_error("layer1", HALF) == pytest.approx(2 * 0.01)
    mix = Mix({"layer1": HALF}, dict.fromkeys(row.names, INT8))
    offer.learn(mix, {"layer0": 0.3, "layer1.0": 0.3, "layer1.1": 0.4})
    assert offer.int8_error("layer1", HALF) == pytest.approx(0.3**2 + 0.4**2)
    offer.learn(mix, {"layer1.0": 0.1, "layer1.1": 0.1})
    assert offer.int8_error("layer1", HALF) == pytest.approx(0.02)
    assert offer.int8_error("layer1", None) == pytest.approx(0.01)
