"""Each layer's loss is that of the table that budgets go by, and what was not cut is said so."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.artifact.networks import SHAPE, tiny
from tests.made_data import BOTH, HOW
from trpexport.choose.by_budget import ByBudget
from trpexport.choose.sensitivity import Sensitivity, SensitivityJob, by_loss
from trpexport.choose.table import SensitivityTable
from trpexport.datasets.calibration import DatasetImages
from trpexport.errors import NothingToDoError, TrpexportError
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import decompose_network
from trpexport.stages import Stages


def images() -> DatasetImages:
    return DatasetImages(BOTH, HOW, SHAPE, count=16)


def found(cache: Path, **how: Any) -> Sensitivity:
    network = TorchNetwork.open(tiny(), SHAPE)
    return SensitivityJob(cache=cache, **how)(network, images(), Stages(), "tiny")


def table(cache: Path) -> SensitivityTable:
    (file,) = cache.glob("sensitivity-*.json")
    return SensitivityTable.from_json(json.loads(file.read_text()))


def test_losses_are_those_of_the_table(tmp_path: Path) -> None:
    told = found(tmp_path, scheme="channel", ratios=(0.25, 0.75))
    known = {layer.name: layer for layer in table(tmp_path).layers}
    assert {layer.name for layer in told.layers if layer.reason is None} == {*known}
    for layer in told.layers:
        if layer.reason is not None:
            continue
        for ratio in (0.25, 0.75):
            errors = [
                math.sqrt(known[layer.name].gain * option.error)
                for option in known[layer.name].options[1:]
                if option.costs["macs"] <= ratio * layer.macs
            ]
            cut = layer.cuts[ratio]
            assert (cut is None) == (not errors)
            if cut is not None:
                assert cut.error == pytest.approx(min(errors))
    losses = [layer.loss for layer in told.layers if layer.loss is not None]
    assert losses == sorted(losses, reverse=True)


def test_what_is_not_cut_is_not_called_robust(tmp_path: Path) -> None:
    told = found(tmp_path, selection={"exclude": ["conv3"]})
    reasons = {layer.name: layer.reason for layer in told.layers}
    assert reasons["conv3"] == "excluded"
    assert "the stem" in str(reasons["stem"])
    last = [layer for layer in told.layers if layer.reason is not None]
    assert told.layers[-len(last) :] == tuple(last)
    assert all(not layer.cuts and layer.loss is None for layer in last)


def test_a_budget_decides_as_decompose_does_and_the_table_is_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = TorchNetwork.open(tiny(), SHAPE)
    chooser = ByBudget(macs=0.6, scheme="channel", cache=tmp_path)
    plan = decompose_network(network, chooser, images(), label="tiny").plan
    monkeypatch.setattr("trpexport.choose.table._Measurer.table", lambda *_: pytest.fail("again"))
    told = found(tmp_path, scheme="channel", target=0.6)
    cut = {layer.name: layer for layer in told.layers if layer.chosen is not None}
    assert {*cut} >= {layer.name for layer in plan.rewritten}
    saved = sum(layer.macs - layer.chosen.macs for layer in cut.values() if layer.chosen)
    assert plan.macs_before - saved <= 0.6 * plan.macs_before
    # What all but one layer lose, and that one's own, add up to what all do.
    assert told.error is not None
    for layer in cut.values():
        assert layer.back is not None and layer.chosen is not None
        rest = told.error - layer.back.error
        assert rest**2 + layer.chosen.error**2 == pytest.approx(told.error**2)
        assert layer.back.macs == pytest.approx(layer.macs - layer.chosen.macs)


def test_what_can_not_be_met_and_misuse(tmp_path: Path) -> None:
    with pytest.raises(NothingToDoError, match="the best"):
        found(tmp_path, target=0.01)
    with pytest.raises(TrpexportError, match=r"a ratio of 1\.5 is out of range"):
        found(tmp_path, ratios=(1.5,))
    with pytest.raises(TrpexportError, match="did you mean spatial"):
        found(tmp_path, scheme="spacial")


def test_it_is_told_in_a_line_and_as_json(tmp_path: Path) -> None:
    told = found(tmp_path, scheme="channel")
    assert repr(told).startswith("Sensitivity(network=tiny, cut=")
    assert len(repr(told)) < 200
    assert json.loads(json.dumps(told.to_json()))["kind"] == "sensitivity"
    assert by_loss(told.layers[::-1]) == told.layers
