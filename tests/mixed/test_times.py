"""What networks take is told by profiles, and what was measured of whole ones comes out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.mixed.made import HALF, INT8, Row, Truth
from trpexport.bundle import FLOAT32
from trpexport.mixed.mix import Mix, whole
from trpexport.mixed.times import fit, probes

ROW = Row(int8=[4.0, 12.0, 4.0, 4.0, 5.0], errors=[0.0] * 5, conversion=1.5, back=0.5)
INSIDE = [(), (0,), (1, 3), (0, 1, 2, 3, 4), (0, 2, 4)]


def mixture(inside: tuple[int, ...], cut: tuple[int, ...] = ()) -> Mix:
    return Mix(
        {ROW.names[place]: HALF for place in cut},
        {name: INT8 if i in inside else FLOAT32 for i, name in enumerate(ROW.names)},
    )


@pytest.mark.parametrize("inside", INSIDE)
@pytest.mark.parametrize("cut", [(), (0, 3)])
def test_any_network_takes_what_is_predicted(inside: tuple[int, ...], cut: tuple[int, ...]) -> None:
    mix = mixture(inside, cut)
    assert ROW.times().predicted(mix) == pytest.approx(ROW.seconds(mix) / 100, rel=1e-6)
    converted = sum(ROW.converted(mix).values()) / 100
    # The last conversion counts to the last layer: whenever that is in int8, there is one.
    last = ROW.back / 100 if ROW.back and 4 in inside else 0.0
    assert ROW.times().conversions(mix) == pytest.approx(converted - last, rel=1e-6)


@pytest.mark.parametrize("profiled", [0.6, 1.4])
@pytest.mark.parametrize("inside", INSIDE)
def test_what_was_measured_is_predicted(profiled: float, inside: tuple[int, ...]) -> None:
    row = replace(ROW, profiled=profiled)
    times, seen = row.times(), [mixture(some) for some in INSIDE]
    for mix in seen[: INSIDE.index(inside) + 1]:
        times.observe(mix, row.speedup(mix))
    for mix in seen[: INSIDE.index(inside) + 1]:
        assert times.predicted(mix) == pytest.approx(row.seconds(mix) / 100, rel=5e-3)


def test_few_networks_correct_a_price_for_others() -> None:
    row = replace(ROW, profiled=0.6)
    times, other = row.times(), mixture((1, 2, 4), (0,))
    before = abs(times.predicted(other) * 100 / row.seconds(other) - 1)
    fit(times, Truth(row))
    assert abs(times.predicted(other) * 100 / row.seconds(other) - 1) < before / 2


def test_a_conversion_is_never_a_gain() -> None:
    row = Row(int8=[5.0] * 4, errors=[0.0] * 4, conversion=-1.0)
    times = row.times()
    fit(times, Truth(row))
    program = times.program([])
    assert all(seam.into >= 0 and seam.out >= 0 for seam in program.seams)


def test_probes_are_of_one_precision_or_have_many_conversions_or_few() -> None:
    found = probes(ROW.places)
    assert found[:2] == [whole(ROW.names), whole(ROW.names, INT8)]
    changes = []
    for mix in found[2:]:
        kinds = [FLOAT32, *mix.precisions.values(), FLOAT32]
        changes.append(sum(a != b for a, b in pairwise(kinds)))
    assert min(changes) == 2
    assert max(changes) >= 4
