"""What a choice was held to holds for its refined factors; an interrupt leaves it as it was."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

import trpexport as tx
from tests.choose.networks import smooth
from tests.latency.networks import SHAPE, twins
from trpexport.choose.base import Choice
from trpexport.choose.judging import DropLimit, NetworkJudge
from trpexport.datasets.calibration import ArrayImages
from trpexport.networks.base import Network
from trpexport.pipeline import decompose_network
from trpexport.plan import CALIBRATION
from trpexport.refining import descent
from trpexport.refining.refinement import REFINED
from trpexport.stages import Stages

NETWORK = twins()
IMAGES = ArrayImages(smooth(40, SHAPE))
CHOOSER = tx.ByCriterion("spatial", "fraction:0.25", keep_expensive=True)
STEPS = tx.Refinement(steps=24, bf16=False)


@pytest.fixture(scope="module")
def choice() -> Choice:
    return CHOOSER(NETWORK, IMAGES, Stages(), None)


class Judge:
    """Says of any network that it loses so many points."""

    unit = "points of top-1"

    def __init__(self, lost: float) -> None:
        self._lost = lost

    def facts(self, network: Network) -> dict[str, Any]:
        return {"after": self._lost}

    def lost(self, value: float) -> float:
        return value


@pytest.mark.parametrize(("lost", "is_kept"), [(1.0, True), (1.1, False)])
def test_a_drop_that_was_the_limit_holds_for_refined_factors_too(
    choice: Choice, lost: float, is_kept: bool
) -> None:
    choice = replace(choice, drop=DropLimit(cast(NetworkJudge, Judge(lost)), 1.0))
    found = STEPS(NETWORK, choice, IMAGES, Stages())
    told = found.plan.options[CALIBRATION]
    assert (found.chains is choice.chains) is not is_kept
    assert told.get("judged") == ({"after": lost} if is_kept else None)
    refined = told[REFINED]
    assert (refined["after"] == refined["before"]) is not is_kept
    assert any("more than 1: the calibrated factors stay" in n for n in found.notes) is not is_kept


def test_an_interrupt_leaves_the_calibrated_factors_where_it_is_heeded(
    choice: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(descent.Descent, "run", interrupted)
    stages = Stages(heed=lambda: None)
    assert STEPS(NETWORK, choice, IMAGES, stages) is choice
    assert stages.is_cut_short
    with pytest.raises(KeyboardInterrupt):
        STEPS(NETWORK, choice, IMAGES, Stages())


def test_a_search_that_was_cut_short_is_not_refined() -> None:
    stages = Stages(heed=lambda: None)
    stages.is_cut_short = True
    found = decompose_network(NETWORK, CHOOSER, IMAGES, refinement=STEPS, stages=stages)
    assert REFINED not in found.plan.options[CALIBRATION]
