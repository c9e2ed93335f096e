"""Budgets of every kind are met by verified networks, or it is said what the best is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import trpexport as tx
from tests.artifact.networks import SHAPE, tiny
from tests.choose.networks import smooth
from tests.made_data import BOTH, HOW, made_dataset, pixels
from trpexport.choose.by_budget import ByBudget
from trpexport.cost import chain_macs, output_size
from trpexport.datasets.base import Dataset
from trpexport.datasets.calibration import DatasetImages
from trpexport.errors import DataError, NothingToDoError, OutputError, PlanError, TrpexportError
from trpexport.networks.base import Network
from trpexport.networks.torch.network import TorchNetwork
from trpexport.ops import Layer, LinearOp
from trpexport.pipeline import Decomposed, decompose_network

Decompose = Callable[..., Decomposed]


@pytest.fixture
def decompose(tmp_path: Path) -> Decompose:
    """Decomposes the tiny network within a budget, on 16 images."""

    def call(
        dataset: Dataset = BOTH, count: int = 16, cache: Path | None = None, **budget: Any
    ) -> Decomposed:
        network = TorchNetwork.open(tiny(), SHAPE)
        chooser = ByBudget(**budget, cache=cache or tmp_path / "cache")
        images = DatasetImages(dataset, HOW, SHAPE, count=count)
        return decompose_network(network, chooser, images, label="tiny")

    return call


def calibration(small: Decomposed) -> dict[str, Any]:
    facts: dict[str, Any] = small.plan.options["calibration"]
    return facts


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["macs", "parameters"])
def test_a_share_that_may_remain(decompose: Decompose, kind: str) -> None:
    small = decompose(**{kind: 0.6}, scheme="auto", exclude=["conv3"])
    if kind == "macs":
        assert small.plan.macs_after <= 0.6 * small.plan.macs_before
    else:
        assert parameters(small.module) <= 0.6 * parameters(tiny())
    assert small.plan.scheme == "auto"
    shares = [layer["error_share"] for layer in calibration(small)["layers"]]
    assert 0 < sum(shares) <= 1 + 1e-9
    reasons = {layer.name: layer.reason for layer in small.plan.layers}
    assert reasons["conv3"] == "excluded"
    assert "the stem" in str(reasons["stem"])
    assert small.plan.options["exclude"] == ["conv3"]
    assert calibration(small)["target"]["value"] == 0.6
    assert all(check.is_equivalent for check in small.verify(seconds=0.1).layers)


def test_an_error_and_a_drop_that_are_allowed(decompose: Decompose) -> None:
    error = decompose(error=0.2, include=["conv2"])
    assert calibration(error)["output_error"] <= 0.2
    assert error.plan.macs_before > error.plan.macs_after
    drop = decompose(drop=20, include=["conv2"])
    judged = calibration(drop)["judged"]
    assert judged["metric"] == "top1"
    assert judged["before"] == 1  # by how the labels were made
    assert judged["after"] >= 0.8
    assert (judged["images"], judged["split"]) == (16, "test")


@pytest.mark.parametrize("budget", [{"macs": 0.01}, {"parameters": 0.01}, {"error": 1e-6}])
def test_what_can_not_be_met(decompose: Decompose, budget: dict[str, float]) -> None:
    with pytest.raises(NothingToDoError, match="the best") as caught:
        decompose(**budget)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


def test_the_table_is_measured_once(
    decompose: Decompose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decompose(macs=0.9, include=["conv1"])
    (table,) = (tmp_path / "cache").glob("*.json")
    content = table.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("trpexport.choose.table._Measurer.table", lambda *_: pytest.fail("measured"))
        decompose(macs=0.8, include=["conv1"])
    table.write_bytes(content[:-9])
    decompose(macs=0.7, include=["conv1"])
    assert table.read_bytes() == content


def test_images_to_judge_by_are_not_those_of_the_calibration(decompose: Decompose) -> None:
    alone = made_dataset(test=pixels(24))
    judged = calibration(decompose(alone, drop=50))["judged"]
    assert (judged["images"], judged["split"]) == (8, "other test")
    with pytest.raises(DataError, match="calibrate on fewer of them"):
        decompose(made_dataset(test=pixels(16)), count=16, drop=50)


def test_a_rank_multiple_and_the_schemes_are_kept_to(decompose: Decompose) -> None:
    small = decompose(macs=0.5, scheme="channel", rank_multiple=4)
    assert {layer.scheme for layer in small.plan.rewritten} == {"channel"}
    assert all((layer.rank or 0) % 4 == 0 for layer in small.plan.rewritten)
    assert calibration(small)["rank_multiple"] == 4
    assert small.plan.options["rank_multiple"] == 4
    assert small.plan.options["rank_multiple_reason"] == "given"


def test_a_block_too_coarse_for_the_share_is_halved(
    decompose: Decompose, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRPEXPORT_CHANNEL_BLOCK", "8")
    with pytest.raises(NothingToDoError):
        decompose(macs=0.25, scheme="channel", rank_multiple=8)
    small = decompose(macs=0.25, scheme="channel")
    assert small.plan.macs_after <= 0.25 * small.plan.macs_before
    multiple = small.plan.options["rank_multiple"]
    assert multiple in (1, 2, 4)
    with pytest.raises(NothingToDoError):
        decompose(macs=0.25, scheme="channel", rank_multiple=2 * multiple)
    assert "halved to reach the target" in small.plan.options["rank_multiple_reason"]


@pytest.mark.parametrize("macs", [0.25, 0.35, 0.45])
def test_several_schemes_have_the_block_that_the_usual_one_needs(
    monkeypatch: pytest.MonkeyPatch, macs: float
) -> None:
    """Else they would end worse than it alone, at the end of the reach of another one."""
    monkeypatch.setenv("TRPEXPORT_CHANNEL_BLOCK", "8")
    network = TorchNetwork.open(tiny(), SHAPE)
    alone, auto = (
        ByBudget(macs=macs, scheme=scheme).reaching(network).multiple
        for scheme in ("spatial", "auto")
    )
    assert alone == auto


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({}, "give one"),
        ({"macs": 0.5, "drop": 1}, "give one"),
        ({"share": 0.5}, "share and price belong together"),
        ({"macs": 0.5, "rank_multiple": 0}, "a rank multiple of 0 is out of range"),
        ({"macs": 0.5, "scheme": "spacial"}, "did you mean spatial"),
        ({"drop": -1}, "a drop of -1 points is out of range"),
        ({"drop": 100}, "a drop of 100 points is out of range"),
        ({"drop": math.nan}, "a drop of nan points is out of range"),
        ({"drop": 100, "metric": "miou"}, "a drop of 100 points is out of range"),
        ({"drop": math.inf, "metric": "mae"}, "a drop of inf is out of range: from 0 on"),
        ({"drop": 1, "metric": "mious"}, "did you mean miou"),
        ({"drop": 1, "metric": "nowhere_at_all:f"}, "there is no module nowhere_at_all"),
        ({"drop": 1, "lower_is_better": True}, "no metric is given"),
        ({"macs": 0.5, "metric": "miou"}, "a metric says what a drop is of"),
    ],
)
def test_misuse_is_said_before_any_work(budget: dict[str, Any], message: str) -> None:
    with pytest.raises(TrpexportError, match=message) as caught:
        ByBudget(**budget).check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["macs", "parameters", "error"])
def test_budgets_out_of_range(kind: str, value: float) -> None:
    with pytest.raises(PlanError, match="out of range: it must be between 0 and 1"):
        ByBudget(**{kind: value}).check()  # type: ignore[arg-type]


def test_what_does_not_fit_the_images_is_one_line(decompose: Decompose) -> None:
    two = replace(BOTH, classes=("a", "b"))
    with pytest.raises(DataError, match=r"\[5\] an image, the data has 2 classes"):
        decompose(two, drop=1)
    with pytest.raises(OutputError, match="/proc/no"):
        decompose(macs=0.5, cache=Path("/proc/no"))


# --- prices of one's own ---------------------------------------------------------------------

X = smooth(16, SHAPE)


class Seconds:
    """A device that takes a while for each operator, and so long for each MAC."""

    resource = "seconds@mine"
    launch, per_mac = 20e-6, 1e-9

    def whole(self, network: Network) -> float:
        return sum(self.of(layer, (layer.op,)) for layer in network.layers) + 1e-5

    def of(self, layer: Layer, ops: Sequence[LinearOp]) -> float:
        macs = sum(chain_macs(ops, call) for call in layer.calls)
        return self.launch * len(ops) * len(layer.calls) + self.per_mac * macs


def test_a_share_of_anything_that_has_a_price() -> None:
    price = Seconds()
    found = {
        share: tx.decompose(tiny(), tx.ByBudget(share=share, price=price), images=X)
        for share in (0.9, 0.7)
    }
    before = price.whole(TorchNetwork.open(tiny(), SHAPE))
    for share, small in found.items():
        # By hand: a launch for each operator that is left, and the MACs of the plan.
        operators = sum(len(layer.factors) or 1 for layer in small.plan.layers)
        macs = small.plan.macs_after - 16 * 5
        assert 1e-5 + 20e-6 * operators + 1e-9 * macs <= share * before
        assert small.plan.criterion == f"target-seconds@mine:{share:g}"
    errors = [calibration(small)["output_error"] for small in found.values()]
    assert errors[0] < errors[1]


def test_where_only_some_layers_gain_others_stay_whole() -> None:
    # conv1 has 295 thousand MACs and conv2 147: in time, a rewrite of conv2 costs a launch.
    class Slow(Seconds):
        launch = 150e-6

    small = tx.decompose(tiny(), tx.ByBudget(share=0.99, price=Slow()), images=X)
    assert [layer.name for layer in small.plan.rewritten] == ["conv1"]
    by_macs = tx.decompose(tiny(), tx.ByBudget(macs=0.55), images=X)
    assert len(by_macs.plan.rewritten) > 1


class Activations:
    """Numbers that all operators put out."""

    resource = "activations"

    def whole(self, network: Network) -> float:
        return sum(self.of(layer, (layer.op,)) for layer in network.layers)

    def of(self, layer: Layer, ops: Sequence[LinearOp]) -> float:
        total = 0
        for call in layer.calls:
            size = call.size
            for op in ops:
                size = output_size(op, size)
                total += op.out_channels * math.prod(size)
        return total


def test_what_no_chain_saves_is_said() -> None:
    # Whatever the rank, a chain puts out what the layer did, and more in between.
    budget = tx.ByBudget(share=0.5, price=Activations())
    with pytest.raises(
        NothingToDoError, match=r"0\.5 of the activations can't be met: the best is 1\."
    ):
        tx.decompose(tiny(), budget, images=X)


def test_a_price_in_the_place_of_a_known_one() -> None:
    class Weights:
        """Parameters, but for biases."""

        resource = "parameters"

        def whole(self, network: Network) -> float:
            return sum(self.of(layer, (layer.op,)) for layer in network.layers)

        def of(self, layer: Layer, ops: Sequence[LinearOp]) -> float:
            return sum(
                op.out_channels * op.in_channels // op.groups * math.prod(op.kernel) for op in ops
            )

    small = tx.decompose(tiny(), tx.ByBudget(share=0.5, price=Weights()), images=X)
    weights = [
        sum(p.numel() for name, p in model.named_parameters() if p.ndim == 4)
        for model in (small.module, tiny())
    ]
    assert weights[0] <= 0.5 * weights[1]
