"""Times of nodes are added up by layer; single runs that were disturbed do not count."""

from __future__ import annotations

import numpy as np
import pytest

from trpexport.latency.folding import Folded, LayerTime, trimmed


def test_a_trimmed_mean_ignores_what_was_disturbed() -> None:
    # A fifth is left out on either side: of ten, the two least and the two largest.
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 1000])
    mean, error = trimmed(values)
    assert mean == 5.5
    # Winsorized: 3 3 3 4 5 6 7 8 8 8, whose standard deviation over 0.6 sqrt(10) it is.
    expected = np.std([3, 3, 3, 4, 5, 6, 7, 8, 8, 8]) / 0.6 / 10**0.5
    assert error == pytest.approx(expected)


def test_equal_runs_have_no_error() -> None:
    assert trimmed(np.full(8, 2.0)) == (2.0, 0.0)


def test_what_the_profiler_costs_is_taken_off_by_node() -> None:
    folded = Folded({"a": LayerTime(10.0, 0.1, 2), "b": LayerTime(3.0, 0.1, 4)}, 20.0, 8)
    left = folded.without(1.0)
    assert (left.layers["a"].seconds, left.layers["b"].seconds, left.seconds) == (8.0, 0.0, 12.0)
