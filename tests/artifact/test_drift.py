"""What is said where outputs differ: a fault of a step, or the network's own rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trpexport.artifact.drift import remedy
from trpexport.compare import OutputComparer
from trpexport.networks.torch.network import TorchNetwork

SHAPE = (4, 3, 12, 12)
FEEDS = {"input": np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)}


class Rounds(nn.Module):
    """Adds a large number and takes it off again: what is left are multiples of 1/16."""

    def __init__(self, large: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.large = large

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = (self.conv(x) + self.large) - self.large
        return y


@pytest.mark.parametrize(("large", "apart", "is_rounding"), [
    (1e6, 0.05, True), (1e6, 0.9, False), (0.0, 0.05, False),
])  # fmt: skip
def test_a_network_that_rounds_so_itself_is_named(
    large: float, apart: float, is_rounding: bool
) -> None:
    network = TorchNetwork.open(Rounds(large), SHAPE)
    output = network.run(FEEDS)["output"]
    comparer = OutputComparer()
    comparer.update({"output": output}, {"output": output * (1 + apart)})
    said = remedy(network, FEEDS, comparer.result()["output"], "please report this")
    assert ("its weights amplify rounding" in said) == is_rounding
    assert (said == "please report this") != is_rounding


def test_rounding_is_that_of_the_numbers_between_which_there_are_none() -> None:
    network = TorchNetwork.open(Rounds(1e6), SHAPE)
    exact = Rounds(0.0).double()(torch.from_numpy(FEEDS["input"]).double()).detach()
    # Float32 has steps of 1/16 at a million; an even spread over a step has this deviation.
    expected = 1 / 16 / 12**0.5 / float(exact.square().mean().sqrt())
    assert network.rounding(FEEDS)["output"] == pytest.approx(expected, rel=0.05)
    assert TorchNetwork.open(Rounds(0.0), SHAPE).rounding(FEEDS)["output"] < 1e-6
