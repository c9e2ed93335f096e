"""Costs by hand."""

from __future__ import annotations

from trpexport.cost import macs, output_size, padding_amounts, parameter_count, weight_count
from trpexport.plan import ConvSpec


def test_a_grouped_strided_dilated_convolution_by_hand() -> None:
    conv = ConvSpec(8, 12, (3, 5), (2, 1), (1, 2), (1, 2), groups=4, bias=True)
    # 12 filters over 8 / 4 channels of 15 weights.
    assert weight_count(conv) == 12 * 2 * 15 == 360
    assert parameter_count(conv) == 372
    # Rows: (9 + 2 - 2 - 1) // 2 + 1 = 5; columns: 11 + 4 - 8 - 1 + 1 = 7.
    assert output_size(conv, (9, 11)) == (5, 7)
    assert macs((conv,), (9, 11)) == 360 * 35


def test_same_padding_puts_the_odd_pixel_after() -> None:
    conv = ConvSpec(1, 1, (4, 3), (1, 1), "same", (1, 2))
    assert padding_amounts(conv) == ((1, 2), (2, 2))
    assert output_size(conv, (6, 7)) == (6, 7)


def test_a_chain_feeds_each_its_predecessors_output() -> None:
    first = ConvSpec(3, 4, (3, 3), (2, 2), (1, 1), (1, 1))
    second = ConvSpec(4, 5, (1, 1), (1, 1), (0, 0), (1, 1))
    assert macs((first, second), (8, 8)) == 3 * 4 * 9 * 16 + 4 * 5 * 16


def test_a_convolution_as_text() -> None:
    conv = ConvSpec(8, 12, (3, 5), (2, 1), (1, 2), (1, 2), groups=4)
    assert str(conv) == "8->12 3x5 /2x1 dil 1x2 g4"
    assert str(ConvSpec(1, 2, (3,), (1,), "same", (1,))) == "1->2 3"
