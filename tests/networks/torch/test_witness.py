"""How far batch norms are from what they recorded."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from trpexport.networks.torch.witness import has_recorded, misfits


def norm(mean: float, variance: float) -> nn.BatchNorm2d:
    found = nn.BatchNorm2d(1, eps=0)
    assert found.running_mean is not None
    assert found.running_var is not None
    found.running_mean.fill_(mean)
    found.running_var.fill_(variance)
    return found


# 16 values of mean 3 and variance 4: half are 1, half are 5.
X = torch.tensor([1.0, 5.0]).repeat(8).reshape(2, 1, 2, 4)


@pytest.mark.parametrize(
    ("mean", "variance", "expected"),
    [
        (3, 4, 0.0),
        (3, 1, math.log(4)),
        (1, 4, 1.0),  # 2 apart, in standard deviations of 2
        (2, 16, 1 / 4 + math.log(4)),
        (3, 4e6, 3.0),  # no channel counts for more
    ],
)
def test_misfit_of_one_channel(mean: float, variance: float, expected: float) -> None:
    found = misfits(nn.Sequential(norm(mean, variance)), X)
    assert {name: values.tolist() for name, values in found.items()} == {
        "0": [pytest.approx(expected, abs=1e-6)]
    }


def test_a_batch_norm_gets_what_the_one_before_gives_in_training() -> None:
    """The second gets mean 0 and variance 1, twice that behind the scale, whatever comes in."""
    first, second = norm(100, 7), norm(0, 4)
    first.weight.data.fill_(2)
    for x in (X, 50 * X - 3):
        found = misfits(nn.Sequential(first, second), x)
        assert found["1"].tolist() == [pytest.approx(0, abs=1e-5)]


def test_fresh_ones_say_nothing() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.BatchNorm2d(1, track_running_stats=False))
    assert not any(map(has_recorded, network))
    assert misfits(network, X) == {}
    assert has_recorded(norm(0, 2))
    assert has_recorded(norm(1, 1))


def test_a_few_values_say_nothing() -> None:
    assert misfits(nn.Sequential(norm(1, 1)), X[:1]) == {}


def test_the_network_is_left_as_it_is() -> None:
    network = nn.Sequential(norm(1, 2)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    misfits(network, X)
    assert network.training
    assert network[0].training
    assert not network[0]._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Broken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = norm(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        raise KeyError(x)


def test_a_network_that_can_not_run_is_no_witness() -> None:
    assert misfits(Broken(), X) == {}
