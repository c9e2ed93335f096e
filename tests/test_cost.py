"""Costs by hand."""

from __future__ import annotations

from tests.strategies import conv_op
from trpexport.cost import chain_macs, macs, output_size, parameter_count, weight_count
from trpexport.ops import Call, LinearOp, Window


def test_a_grouped_strided_dilated_convolution_by_hand() -> None:
    conv = conv_op(8, 12, (3, 5), (2, 1), (1, 2), (1, 2), groups=4, bias=True)
    # 12 filters over 8 / 4 channels of 15 weights.
    assert weight_count(conv) == 12 * 2 * 15 == 360
    assert parameter_count(conv) == 372
    # Rows: (9 + 2 - 2 - 1) // 2 + 1 = 5; columns: 11 + 4 - 8 - 1 + 1 = 7.
    assert output_size(conv, (9, 11)) == (5, 7)
    assert chain_macs((conv,), Call(1, (9, 11))) == 360 * 35


def test_same_padding_puts_the_odd_pixel_after() -> None:
    conv = conv_op(1, 1, (4, 3), (1, 1), "same", (1, 2))
    assert conv.window.pads == ((1, 2), (2, 2))
    assert output_size(conv, (6, 7)) == (6, 7)


def test_a_chain_feeds_each_its_predecessors_output() -> None:
    first = conv_op(3, 4, (3, 3), (2, 2), (1, 1), (1, 1))
    second = conv_op(4, 5, (1, 1), (1, 1), (0, 0), (1, 1))
    assert chain_macs((first, second), Call(1, (8, 8))) == 3 * 4 * 9 * 16 + 4 * 5 * 16


def test_frames_in_the_batch_and_further_calls_add_up() -> None:
    conv = conv_op(3, 4, (3, 3), padding=(1, 1))
    one = 3 * 4 * 9 * 64
    assert macs((conv,), [Call(16, (8, 8)), Call(1, (4, 4))]) == 16 * one + one // 4


def test_a_matrix_product_multiplies_once_a_place() -> None:
    product = LinearOp(6, 10, bias=True)
    assert output_size(product, ()) == ()
    assert chain_macs((product,), Call(7, ())) == 7 * 60
    assert parameter_count(product) == 70


def test_a_transposed_convolution_multiplies_at_its_inputs() -> None:
    window = Window((3, 3), (2, 2), ((1, 1), (1, 1)), transposed=True, output_pads=(1, 1))
    up = LinearOp(4, 6, 2, window=window)
    # (5 - 1) * 2 - 2 + 3 + 1 pixels; 25 inputs of 4 channels meet 6 / 2 outputs of 9 weights.
    assert output_size(up, (5, 5)) == (10, 10)
    assert chain_macs((up,), Call(1, (5, 5))) == 25 * 4 * 3 * 9


def test_a_convolution_as_text() -> None:
    conv = conv_op(8, 12, (3, 5), (2, 1), (1, 2), (1, 2), groups=4)
    assert str(conv) == "8->12 3x5 /2x1 dil 1x2 g4"
    assert str(conv_op(1, 2, (3,), (1,), "same", (1,))) == "1->2 3"
