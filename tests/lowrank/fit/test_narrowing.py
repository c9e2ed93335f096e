"""Fewer input channels: nothing is lost that the outputs need, and the least of what they do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.lowrank.summing import every_pixel
from tests.strategies import conv_op, random_layer
from trpexport.lowrank.fit import narrowing
from trpexport.lowrank.fit.narrowing import Narrowing, is_wide, max_channels
from trpexport.lowrank.fit.patches import grouped
from trpexport.ops import LinearOp

PLAIN = conv_op(12, 5, (3, 3), (1, 1), (1, 1), (1, 1))
GROUPED = conv_op(12, 6, (3, 1), (2, 1), (1, 0), (1, 1), groups=2)


def products(op: LinearOp, x: Tensor) -> Tensor:
    rows = every_pixel(x).outputs(x, op.groups)
    return rows.mT @ rows


@pytest.mark.parametrize("op", [PLAIN, GROUPED], ids=["plain", "grouped"])
def test_inputs_of_few_channels_lose_nothing(op: LinearOp, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = 4
    monkeypatch.setattr(narrowing, "max_channels", lambda _: fewer)
    torch.manual_seed(0)
    conv = random_layer(op)
    # Each group's channels are mixtures of as many as are kept.
    mixing = torch.randn(op.groups, op.in_channels // op.groups, fewer, dtype=torch.float64)
    x = torch.einsum("gcf,ngfhw->ngchw", mixing, torch.randn(9, op.groups, fewer, 7, 7).double())
    x = x.flatten(1, 2)
    kernels = grouped(conv.weight, op)
    cut = Narrowing.of(kernels, products(op, x), None, op)
    narrow = random_layer(cut.op(op))
    narrow.weight.data = cut.kernels(kernels).reshape_as(narrow.weight)
    narrow.bias = conv.bias
    torch.testing.assert_close(narrow(cut.inputs(x)), conv(x), rtol=1e-4, atol=1e-4)
    # Whether channels are cut before a kernel or within it is the same.
    wide = random_layer(op)
    wide.weight.data, wide.bias = cut.widened(narrow.weight), conv.bias
    torch.testing.assert_close(narrow(cut.inputs(x)), wide(x))


@pytest.mark.parametrize("op", [PLAIN, GROUPED], ids=["plain", "grouped"])
def test_a_cut_and_its_rest_are_the_whole(op: LinearOp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(narrowing, "max_channels", lambda _: 4)
    torch.manual_seed(0)
    x = torch.randn(9, op.in_channels, 7, 7, dtype=torch.float64)
    kernels = torch.randn(op.out_channels, op.in_channels // op.groups, *op.kernel).double()
    cut = Narrowing.of(grouped(kernels, op), products(op, x), None, op)

    def part(some: Narrowing) -> Tensor:
        few = some.kernels(grouped(kernels, op)).reshape(op.out_channels, -1, *op.kernel)
        return some.widened(few)

    rest = cut.rest
    torch.testing.assert_close(part(cut) + part(rest), kernels, rtol=1e-6, atol=1e-6)
    eye = torch.eye(rest.encode.shape[1], dtype=torch.float64).expand(op.groups, -1, -1)
    torch.testing.assert_close(rest.encode @ rest.encode.mT, eye)
    nothing = torch.zeros(op.groups, cut.encode.shape[1], rest.encode.shape[1]).double()
    torch.testing.assert_close(cut.encode @ rest.decode, nothing, rtol=0, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.booleans())
def test_no_other_channels_keep_more_of_pointwise_outputs(seed: int, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    op, fewer = conv_op(8, 5, (1, 1), (1, 1), (0, 0), (1, 1)), 3
    kernels, x = random(1, 5, 8), random(200, 8) @ random(8, 8)
    half = random(5, 5)
    metric = (half @ half.mT)[None] if weighted else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(narrowing, "max_channels", lambda _: fewer)
        cut = Narrowing.of(kernels, (x.mT @ x)[None], metric, op)
    g = torch.eye(5, dtype=torch.float64) if metric is None else metric[0]

    def lost(decode: Tensor, encode: Tensor) -> float:
        error = (x - x @ encode.mT @ decode.mT) @ kernels[0].mT
        return float((error @ g * error).sum())

    # By Eckart and Young: the singular values behind the third, of the outputs as they count.
    counting = torch.linalg.cholesky(g).mT @ kernels[0] @ x.mT
    least = float(torch.linalg.svdvals(counting)[fewer:].square().sum())
    assert lost(cut.decode[0], cut.encode[0]) == pytest.approx(least, rel=1e-2, abs=1e-4)
    again = cut.decode @ cut.encode
    torch.testing.assert_close(again @ again, again, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "size", "groups", "kept"),
    [(512, 3, 1, None), (513, 3, 1, 512), (2048, 1, 1, None), (2048, 3, 32, None),
     (12288, 3, 32, 90), (4608, 1, 1, None)],
)  # fmt: skip
def test_what_is_kept_of_common_layers(
    channels: int, size: int, groups: int, kept: int | None
) -> None:
    op = conv_op(channels, 64, (size, size), (1, 1), (0, 0), (1, 1), groups=groups)
    assert is_wide(op) == (kept is not None)
    if kept is not None:
        assert max_channels(op) == kept
    seen = min(channels // groups, max_channels(op)) * size * size
    assert groups * seen**2 * 8 <= 170_000_000
