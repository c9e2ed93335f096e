"""A criterion cuts the layers, and says so; where nothing gets cheaper, what it found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.choose.networks import SHAPE, Small, planned, ranks
from trpexport.choose.base import NothingCheaperError
from trpexport.choose.by_criterion import ByCriterion
from trpexport.errors import PlanError, TrpexportError
from trpexport.lowrank.criteria import parse_criterion
from trpexport.networks.torch.network import TorchNetwork
from trpexport.stages import Stages


@pytest.fixture
def network() -> TorchNetwork:
    return TorchNetwork.open(Small().eval(), SHAPE)


def test_the_choice_is_the_plan_and_its_factors(network: TorchNetwork) -> None:
    lines = list[str]()
    choice = ByCriterion("channel")(network, None, Stages(lines.append), "small")
    expected = planned(network)
    options = {**expected.options, "rank_multiple_reason": "auto: 1, TRPEXPORT_CHANNEL_BLOCK"}
    assert choice.plan == replace(expected, architecture="small", options=options)
    assert list(choice.chains) == ["plain", "strided", "pointwise"]
    for layer in choice.plan.rewritten:
        chain = choice.chains[layer.name]
        assert (chain.ops, chain.scheme, chain.is_truncation) == (layer.factors, "channel", True)
    assert lines == ["compute spectra", "factorize"]
    assert not choice.notes


def test_where_low_rank_hardly_pays_that_is_said_before_it_is_written() -> None:
    torch.manual_seed(0)
    body = [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Conv2d(16, 16, 1)] * 2
    poor = TorchNetwork.open(nn.Sequential(nn.Conv2d(3, 16, 3), *body, nn.Conv2d(16, 2, 1)), SHAPE)
    lines = list[str]()
    ByCriterion("spatial", "rank:1")(poor, None, Stages(lines.append), None)
    spectra, remark, factors = lines
    assert (spectra, factors) == ("compute spectra", "factorize")
    assert remark.startswith("low rank hardly pays here: ")
    assert "1x1 convolutions" in remark


def test_the_options_are_those_of_the_selection_and_the_guard(network: TorchNetwork) -> None:
    def chosen(**options: object) -> dict[str, int | None]:
        chooser = ByCriterion("channel", **options)  # type: ignore[arg-type]
        return ranks(chooser(network, None, Stages(), None).plan)

    assert chosen(include=["p*"])["strided"] is None
    assert chosen(exclude=["p*"])["plain"] is None
    assert chosen(stride_1_only=True)["strided"] is None
    assert chosen(criterion="rank:14", keep_expensive=True)["plain"] == 14
    assert chosen(criterion=parse_criterion("rank:1"))["plain"] == 1


def test_where_nothing_gets_cheaper_the_spectra_are_at_hand(network: TorchNetwork) -> None:
    chooser = ByCriterion("channel", "fraction:1")
    with pytest.raises(NothingCheaperError, match="no layer of small gets cheaper") as caught:
        chooser(network, None, Stages(), "small")
    assert caught.value.exit_code == 3
    assert not caught.value.plan.rewritten
    assert caught.value.analysis is not None
    assert caught.value.analysis.plan(parse_criterion("rank:2")).rewritten


@pytest.mark.parametrize(
    ("chooser", "error", "message"),
    [
        (ByCriterion("spacial"), TrpexportError, "did you mean spatial"),
        (ByCriterion(criterion="enrgy:0.9"), TrpexportError, "energy"),
        (ByCriterion(criterion="energy:7"), TrpexportError, "at most 1"),
        (ByCriterion("auto"), PlanError, "auto chooses by output error: give images, and a budget"),
    ],
)
def test_what_can_not_be_is_said_before_any_work(
    chooser: ByCriterion, error: type[TrpexportError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        chooser.check()
    assert "\n" not in str(caught.value)
