"""Layers share their times where they compute the same between the same."""

from __future__ import annotations

from trpexport.latency.blanks import Blanks
from trpexport.latency.surroundings import signature


def test_layers_of_one_kind(blanks: Blanks) -> None:
    first, second, wide = (signature(blanks.nodes(name)) for name in ("first", "second", "wide"))
    assert first == second
    assert wide != first
    assert "16->16 3x3" in first
    assert "(16, 16)" in first
    assert "after Relu" in first
