"""What conversions cost is found by whole networks, and predicts others."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.mixed.made import HALF, INT8, Row, Truth
from trpexport.bundle import FLOAT32
from trpexport.mixed.mix import Mix
from trpexport.mixed.times import fit

ROW = Row(int8=[4.0, 12.0, 4.0, 4.0, 5.0], errors=[0.0] * 5, conversion=1.5)


@pytest.mark.parametrize("inside", [(), (0,), (1, 3), (0, 1, 2, 3, 4), (0, 2, 4)])
@pytest.mark.parametrize("cut", [(), (0, 3)])
def test_any_network_takes_what_is_predicted(inside: tuple[int, ...], cut: tuple[int, ...]) -> None:
    times = ROW.times()
    fit(times, Truth(ROW))
    mix = Mix(
        {ROW.names[place]: HALF for place in cut},
        {name: INT8 if i in inside else FLOAT32 for i, name in enumerate(ROW.names)},
    )
    assert times.predicted(mix) == pytest.approx(ROW.seconds(mix) / 100, rel=1e-6)


def test_a_conversion_is_never_a_gain() -> None:
    row = Row(int8=[5.0] * 4, errors=[0.0] * 4, conversion=-1.0)
    times = row.times()
    fit(times, Truth(row))
    assert times.seam == 0.0


def test_probes_have_many_conversions_and_few() -> None:
    changes = []
    for mix in ROW.times().probes():
        kinds = [FLOAT32, *mix.precisions.values(), FLOAT32]
        changes.append(sum(a != b for a, b in pairwise(kinds)))
    assert min(changes) == 2
    assert max(changes) >= 4
