"""Which layers are rewritten, at which rank, and why the others stay."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.choose.networks import SHAPE, Small, low_rank_, planned, ranks, reasons
from trpexport.choose.spectra import keep_all
from trpexport.errors import PlanError, TrpexportError
from trpexport.networks.torch.network import TorchNetwork
from trpexport.ops import Call


@pytest.fixture
def network() -> TorchNetwork:
    return TorchNetwork.open(Small().eval(), SHAPE)


def test_the_rank_of_each_layer_is_found(network: TorchNetwork) -> None:
    plan = planned(network)
    assert ranks(plan) == {
        "stem": None,
        "plain": 2,
        "strided": 2,
        "pointwise": 2,
        "fc": None,
        "unused": None,
    }
    assert "stem" in reasons(plan)["stem"]
    assert "never runs" in reasons(plan)["unused"]
    # plain: 2 filters of 8x3x3 and a 1x1 to 16, on 12x12 pixels.
    assert plan.layers[1].factor_macs == (2 * 8 * 9 + 16 * 2) * 144
    assert plan.layers[1].weight_error == pytest.approx(0, abs=1e-6)
    assert plan.other_macs == 0
    dense = {"stem": 8 * 27 * 144, "plain": 16 * 72 * 144, "strided": 16 * 144 * 36}
    assert plan.macs_before == sum(dense.values()) + 16 * 16 * 36 + 80


def test_a_layer_that_would_cost_more_stays(network: TorchNetwork) -> None:
    plan = planned(network, criterion="fraction:1")
    assert not plan.rewritten
    assert "rank 16 of 16 costs" in reasons(plan)["plain"]
    # 16 filters of 72 weights against rank x (72 + 16): 13 x 88 = 1144 < 1152 = 16 x 72.
    assert "cheaper up to rank 13" in reasons(plan)["plain"]
    assert plan.macs_after == plan.macs_before
    assert ranks(planned(network, criterion="fraction:1", keep_expensive=True))["plain"] == 16


def test_equal_cost_is_not_cheaper() -> None:
    # 4 -> 4 pointwise at rank 2: 2 x (4 + 4) = 16 = 4 x 4.
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.LazyLinear(2))
    model(torch.zeros(1, 3, 4, 4))
    plan = planned(TorchNetwork.open(model, (1, 3, 4, 4)), criterion="rank:2")
    assert "costs 1.00x" in reasons(plan)["1"]


def test_a_shared_convolution_counts_each_call_and_is_replaced_everywhere() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.first = nn.Conv2d(8, 8, 3, padding=1)
            self.second = self.first
            self.fc = nn.Linear(8, 2)
            low_rank_(self.first, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(self.stem(x))
            y: Tensor = self.fc(self.second(x[:, :, ::2, ::2]).mean((2, 3)))
            return y

    network = TorchNetwork.open(Shared().eval(), SHAPE)
    plan = planned(network)
    (layer,) = plan.rewritten
    assert layer.calls == (Call(1, (12, 12)), Call(1, (6, 6)))
    assert layer.macs == 8 * 72 * (144 + 36)
    assert layer.factor_macs == (72 + 8) * (144 + 36)


class Tied(nn.Module):
    """Two convolutions with one weight between them, the second one strided."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.one = nn.Conv2d(8, 8, 3, padding=1)
        self.two = nn.Conv2d(8, 8, 3, padding=1, stride=2)
        self.fc = nn.Linear(8, 2)
        self.two.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.two(self.one(self.stem(x))).mean((2, 3)))
        return y


def test_a_weight_that_one_layer_needs_dense_stays_for_the_other() -> None:
    # Of stride 1: rank x 48 x 144 < 576 x 144 up to 11; of stride 2, whose first factor skips rows
    # alone: rank x 24 x (72 + 36) < 576 x 36 up to 7.
    network = TorchNetwork.open(Tied().eval(), SHAPE)
    assert len(planned(network, "spatial", "rank:7").rewritten) == 2
    stays = planned(network, "spatial", "rank:8")
    assert not stays.rewritten
    assert reasons(stays)["one"] == "shares its weight with two, which stays"
    assert "costs 1.00x" in reasons(stays)["two"]


def test_rank_above_full_rank(network: TorchNetwork) -> None:
    plan = planned(network, "decoupling", "rank:9")
    assert "rank 9 is above its full rank 8" in reasons(plan)["plain"]
    assert "costs" in reasons(plan)["strided"]
    with pytest.raises(PlanError, match="rank:99 is above the full rank of every layer"):
        planned(network, "channel", "rank:99")


def test_wrong_names_and_shapes(network: TorchNetwork) -> None:
    with pytest.raises(TrpexportError, match="did you mean spatial"):
        planned(network, "spacial")
    with pytest.raises(PlanError, match="can't run an input of shape 1x1x12x12"):
        planned(TorchNetwork.open(Small(), (1, 1, 12, 12)))


def test_keep_all_rewrites_nothing(network: TorchNetwork) -> None:
    plan = keep_all(network, architecture="small")
    assert not plan.rewritten
    assert plan.macs_before == plan.macs_after > 0
    assert plan.architecture == "small"
