"""What each criterion would do, and which one to try first."""

from __future__ import annotations

import pytest

from tests.choose.networks import SHAPE, Small, planned
from trpexport.choose.spectra import analyse
from trpexport.choose.survey import CriterionOutcome, mildest, survey
from trpexport.networks.torch.network import TorchNetwork


def test_survey_shows_what_would_save() -> None:
    network = TorchNetwork.open(Small().eval(), SHAPE)
    choices = {choice.criterion: choice for choice in survey(analyse(network, "channel"))}
    assert choices["value:0.05"].layers == 3
    assert choices["value:0.05"].weight_error == pytest.approx(0, abs=1e-6)
    assert choices["rank:8"].macs_ratio > 1
    plan = planned(network)
    assert choices["value:0.05"].macs_ratio == plan.macs_before / plan.macs_after


def test_the_mildest_choice_that_saves_a_fair_share() -> None:
    none = CriterionOutcome("none", 0, 1.0, 0.0)
    little = CriterionOutcome("little", 1, 1.1, 0.1)
    fair = CriterionOutcome("fair", 2, 1.3, 0.2)
    harsh = CriterionOutcome("harsh", 3, 4.0, 0.7)
    assert mildest([harsh, none, fair, little]) is fair
    assert mildest([none, little]) is little
    assert mildest([none]) is None
