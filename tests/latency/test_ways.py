"""A way says what stands in for a layer without its weights."""

from __future__ import annotations

from trpexport.latency.ways import Way
from trpexport.ops import LinearOp, Window

CONV = LinearOp(8, 12, window=Window((3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1)))


def test_factors_of_a_way() -> None:
    # Jaderberg et al., 2014: 3x1 to the rank, then 1x3 to the output channels.
    first, last = Way("spatial", 5).ops(CONV)
    assert (first.in_channels, first.out_channels, first.kernel, first.bias) == (
        *(8, 5, (3, 1), False),
    )
    assert (last.in_channels, last.out_channels, last.kernel, last.bias) == (5, 12, (1, 3), True)
    assert str(Way("spatial", 5)) == "spatial 5"
