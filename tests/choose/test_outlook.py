"""What can be won at best is told from the spectra, by kind of layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.choose.networks import low_rank_
from trpexport.choose.by_criterion import ByCriterion
from trpexport.choose.outlook import outlook, priced
from trpexport.choose.selection import Selection
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import Source, decompose_checkpoint
from trpexport.stages import Stages

SHAPE = (1, 3, 12, 12)


def network(*layers: nn.Module) -> TorchNetwork:
    body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *layers, nn.Flatten(), nn.LazyLinear(4))
    body(torch.zeros(SHAPE))
    return TorchNetwork(body, SHAPE)


def depthwise() -> TorchNetwork:
    torch.manual_seed(0)
    layers = [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1)] * 2
    return network(*layers)


def redundant() -> TorchNetwork:
    layers = [nn.Conv2d(16, 16, 3, padding=1) for _ in range(3)]
    for layer in layers:
        low_rank_(layer, 2)
    return network(*layers)


def test_a_depthwise_network_is_not_worth_it_and_a_redundant_one_is() -> None:
    poor, rich = outlook(depthwise()), outlook(redundant())
    assert not poor.is_fair
    assert str(poor).startswith("low rank hardly pays here: 1.")
    assert "1x1 convolutions" in str(poor)
    assert "depthwise convolutions" in str(poor)
    # Of rank 2, a 3x3 convolution of 16 channels takes 2 * (16 * 9 + 16) of 16 * 16 * 9 MACs.
    kinds = {kind.kind: kind for kind in rich.kinds}
    dense, stem = 3 * 16 * 16 * 9, 3 * 16 * 9
    left = 3 * 2 * (16 * 9 + 16)
    assert kinds["3x3 convolutions"].ratio == pytest.approx((dense + stem) / (left + stem))
    assert rich.is_fair
    assert rich.touchable == {
        "3x3 convolutions": pytest.approx(dense * 144 / rich.plan.macs_before)
    }


def test_of_plain_convolutions_kernels_do_not_have_the_last_word() -> None:
    torch.manual_seed(0)
    found = outlook(network(*(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))))
    assert not found.is_fair
    assert str(found).startswith("by its weights alone, low rank hardly pays here: 1.")
    assert "calibrate" in str(found)


def test_what_may_not_be_touched_saves_nothing() -> None:
    found = outlook(redundant(), "channel", Selection(include=["1"]), label="mine")
    saved = [layer.name for layer in found.plan.layers if layer.is_rewritten]
    assert saved == ["1"]
    assert found.to_json()["architecture"] == "mine"
    assert found.seconds is None


class PadsItself(nn.Conv2d):
    """As convolutions of timm and of EfficientNet do."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (1, 1, 1, 1)))


def pads_itself() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3), PadsItself(16, 16, 3), nn.Conv2d(16, 4, 1))


def test_layers_that_are_tried_are_told_of_as_well(tmp_path: Path) -> None:
    """What is said before the work is said of the network that is then worked on."""
    torch.save(pads_itself().state_dict(), tmp_path / "net.pth")
    source = Source(tmp_path / "net.pth", model=f"{__name__}:pads_itself", inputs=SHAPE)
    _, opened = source.open(Stages())
    told = outlook(opened)
    assert told.touchable["3x3 convolutions"] > 0
    worked_on = decompose_checkpoint(source, ByCriterion("spatial", "rank:1")).plan
    assert [layer.name for layer in worked_on.rewritten] == ["1"]
    assert told.plan.macs_before == worked_on.macs_before


def test_a_target_takes_longer_than_a_plan() -> None:
    net = redundant()
    found = outlook(net)
    once, several = (priced(found, net, 64, has_target=is_target) for is_target in (False, True))
    assert once.seconds is not None and several.seconds is not None
    assert 0 < once.seconds < several.seconds
