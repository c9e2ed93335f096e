"""The channels of images lie last in memory where a network gives the same so, and only there."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.cuts import Cuts
from trpexport.networks.torch.layout import runs_channels_last

SHAPE = (1, 3, 8, 6)


class Then(nn.Module):
    """A convolution, and something that is made of its output."""

    def __init__(self, then: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.then = then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.conv(x))


def is_laid_out(model: nn.Module, shape: tuple[int, ...] = SHAPE) -> bool:
    """Say whether passes get a batch of images with the channels last."""
    batch = Arguments.of(torch.randn(4, *shape[1:]))
    found = Cuts(model, shape).laid_out(batch)
    (given,), (x,) = found.by_place, batch.by_place
    torch.testing.assert_close(given, x, rtol=0, atol=0)
    return given.ndim == 4 and given.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "then",
    [torch.relu, lambda x: x.flatten(1), lambda x: x.reshape(len(x), -1), lambda x: x.argmax(1)],
)
def test_a_network_that_reads_by_index_gets_channels_last(
    then: Callable[[Tensor], Tensor],
) -> None:
    assert is_laid_out(Then(then))


@pytest.mark.parametrize(
    "then",
    [
        lambda x: x.view(len(x), -1),  # refuses
        lambda x: x.view(5 * len(x), -1),  # refuses several images
        lambda x: x.as_strided((len(x), 5 * 48), (5 * 48, 1)),  # reads by place in memory
        lambda x: x * x.stride(1),
        lambda x: x * math.nan,  # nobody can tell
    ],
)
def test_a_network_that_looks_at_strides_keeps_its_layout(
    then: Callable[[Tensor], Tensor],
) -> None:
    assert not is_laid_out(Then(then))


def test_what_is_no_image_stays_as_it_is() -> None:
    assert not is_laid_out(nn.Linear(7, 2), (1, 7))
    model = nn.Linear(7, 2)
    x = Arguments.of(torch.randn(2, 7))
    assert not runs_channels_last(model, x, [model(x.by_place[0])])
