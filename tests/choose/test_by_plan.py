"""An edited plan is followed, made whole again, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from torch import nn

from tests.choose.networks import SHAPE, Small, gatherer_of, planned, ranks, reasons, smooth
from trpexport.choose.base import NothingCheaperError
from trpexport.choose.by_plan import ByPlan, revised
from trpexport.choose.calibrate import calibrate
from trpexport.datasets.calibration import ArrayImages
from trpexport.errors import PlanError, TrpexportError
from trpexport.inputs import Inputs
from trpexport.networks.torch.network import TorchNetwork
from trpexport.plan import Plan, read_plan
from trpexport.stages import Stages


@pytest.fixture
def network() -> TorchNetwork:
    return TorchNetwork.open(Small().eval(), SHAPE)


def edit(plan: Plan, layer_name: str, /, **changes: object) -> Plan:
    layers = tuple(
        replace(layer, **changes) if layer.name == layer_name else layer  # type: ignore[arg-type]
        for layer in plan.layers
    )
    return replace(plan, layers=layers)


def test_a_plan_that_was_written_and_read_is_the_same(
    network: TorchNetwork, tmp_path: Path
) -> None:
    plan = planned(network)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(plan.to_json()))
    again = revised(network, read_plan(path))
    assert again == plan


def test_edited_ranks_and_schemes_are_derived_again(network: TorchNetwork) -> None:
    plan = planned(network)
    edited = edit(edit(plan, "plain", rank=1, scheme="spatial"), "strided", scheme=None)
    found = revised(network, edited, source="mine.json")
    assert ranks(found)["plain"] == 1
    assert found.layers[1].factor_macs == (8 * 3 + 16 * 3) * 144
    assert ranks(found)["strided"] is None
    assert "mine.json" in found.criterion
    expensive = edit(plan, "plain", rank=16)
    assert "costs" in reasons(revised(network, expensive))["plain"]
    assert ranks(revised(network, expensive, keep_expensive=True))["plain"] == 16


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rank": 0}, "rank 0, it must be from 1 to 16"),
        ({"rank": 17}, "rank 17, it must be from 1 to 16"),
        ({"rank": None}, "rank None"),
        ({"scheme": "tucker"}, "unknown scheme 'tucker'"),
        ({"name": "other"}, "another network: it has a layer other"),
    ],
)
def test_plans_that_do_not_fit(
    network: TorchNetwork, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(TrpexportError, match=says):
        revised(network, edit(planned(network), "plain", **changes))


def test_a_plan_for_a_network_of_other_shapes(network: TorchNetwork) -> None:
    plan = planned(network)
    other = edit(plan, "plain", op=replace(plan.layers[1].op, out_channels=99))
    with pytest.raises(PlanError, match="plain is 8->99 3x3 in it and 8->16 3x3 in the network"):
        revised(network, other)
    with pytest.raises(PlanError, match="another network"):
        revised(TorchNetwork.open(nn.Sequential(nn.Conv2d(3, 1, 1)), SHAPE), plan)


@pytest.mark.parametrize("name", ["stem", "unused"])
def test_what_can_not_be_rewritten_is_refused_by_name(network: TorchNetwork, name: str) -> None:
    edited = edit(planned(network), name, scheme="channel", rank=1)
    if name == "stem":  # a plan may: it names the layer
        assert ranks(revised(network, edited))["stem"] == 1
    else:
        with pytest.raises(PlanError, match="unused can't be rewritten: the network never runs it"):
            revised(network, edited)


def test_a_revised_plan_is_of_plain_factors(network: TorchNetwork) -> None:
    plain = planned(network, criterion="rank:2")
    calibrated = calibrate(network, plain, gatherer_of(network, smooth(8, SHAPE)))
    assert calibrated.plan.rewritten[0].factors[-1].bias
    found = revised(network, calibrated.plan)
    assert found.layers == plain.layers
    assert found.criterion == "rank:2"
    assert "calibration" not in found.options


def test_a_plan_is_taken_from_memory_or_from_a_file(network: TorchNetwork, tmp_path: Path) -> None:
    plan = planned(network)
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(edit(plan, "plain", rank=1).to_json()))
    for given, rank in ((plan, 2), (path, 1), (str(path), 1)):
        chooser = ByPlan(given)
        chooser.check()
        assert chooser.inputs == Inputs.of(SHAPE)
        choice = chooser(network, None, Stages(), "small")
        assert ranks(choice.plan)["plain"] == rank
        assert choice.chains["plain"].ops == choice.plan.layers[1].factors
        assert choice.plan.criterion == (plan.criterion if rank == 2 else f"edited plan {path}")
        assert not choice.notes
    with pytest.raises(PlanError, match=r"can't read the plan nowhere\.json"):
        ByPlan("nowhere.json").check()


def test_factors_of_a_calibrated_plan_are_plain_until_there_are_images(
    network: TorchNetwork,
) -> None:
    x = smooth(8, SHAPE)
    plain = planned(network, criterion="rank:2")
    chooser = ByPlan(calibrate(network, plain, gatherer_of(network, x)).plan)
    (note,) = chooser(network, None, Stages(), None).notes
    assert note.startswith("the plan is of a calibrated network, these factors are plain SVD")
    again = chooser(network, ArrayImages(x), Stages(), None)
    assert not [note for note in again.notes if "plain SVD" in note]
    assert not again.chains["plain"].is_truncation


def test_a_plan_that_rewrites_nothing_is_told_apart(network: TorchNetwork) -> None:
    plan = planned(network, exclude=["*"])
    with pytest.raises(NothingCheaperError, match="nothing was written") as caught:
        ByPlan(plan)(network, None, Stages(), None)
    assert caught.value.plan == revised(network, plan)
    assert caught.value.analysis is None
