"""ResNet-20 as the two exporters write it and as ONNX Runtime runs it, layer by layer."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import nn

import trpexport as tx
from trpexport.measure.profile.attribution import attribute
from trpexport.measure.profile.comparison import compare_profiles
from trpexport.measure.profile.matching import match_nodes
from trpexport.measure.profile.placement import placement
from trpexport.measure.profile.profile import ProfileSettings, profile_model, profile_models
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.to_onnx import to_onnx
from trpexport.plan import Plan

SHAPE = (1, 3, 32, 32)


class Exported(NamedTuple):
    plan: Plan
    base: Path
    pairs: Path


@pytest.fixture(scope="module", params=["dynamo", "legacy"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    torch.manual_seed(0)
    zoo = importlib.import_module("trpexport.models_zoo")
    model: nn.Module = zoo.parse_architecture("resnet20", num_classes=10).build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # no two biases are the same
            nn.init.normal_(module.bias)
    small = tx.decompose(model, tx.ByCriterion("spatial", "fraction:0.4"), example=SHAPE)
    directory = tmp_path_factory.mktemp(request.param)
    result = Exported(small.plan, directory / "base.onnx", directory / "pairs.onnx")
    for network, path in ((model, result.base), (small.module, result.pairs)):
        to_onnx(network, SHAPE, path, OnnxSettings(legacy_exporter=request.param == "legacy"))
    return result


@pytest.mark.parametrize("level", ["disable", "basic", "extended", "all"])
def test_each_node_computes_what_it_is_taken_for(exported: Exported, level: str) -> None:
    """Judged by bias, kernel and output size, which the matching does not go by."""
    settings = ProfileSettings(graph_optimization=level, runs=1)
    for path in (exported.base, exported.pairs):
        matching = match_nodes(profile_model(path, settings), path)
        biases = 0
        for executed in matching.executed:
            if executed.product is None or "Conv" not in executed.time.operator:
                continue
            product = matching.products[executed.product]
            assert executed.node is not None
            assert product.cost is not None
            assert product.weight_shape is not None
            assert executed.time.input_shapes[1][2:] == product.weight_shape[2:]
            assert executed.time.output_shapes[0][2:] == product.cost.output_shape[2:]
            bias = executed.node.inputs[2:3]
            if not any(name.startswith("reorder") for name in bias):
                assert bias == product.node.inputs[2:3]
                biases += bool(bias)
        convolutions = [layer for layer in exported.plan.layers if layer.op.ndim]
        assert biases == len(convolutions)  # each pair has one


def test_the_profile_folds_onto_the_plan(exported: Exported) -> None:
    plan = exported.plan
    profiles = profile_models([exported.base, exported.pairs], ProfileSettings(runs=3))
    base, pairs = (
        attribute(profile, path, plan)
        for profile, path in zip(profiles, (exported.base, exported.pairs), strict=True)
    )
    assert len(plan.rewritten) >= 15
    assert [len(row.computes) for row in base.layers] == [1] * len(plan.layers)
    assert [len(row.computes) for row in pairs.layers] == [
        2 if layer.is_rewritten else 1 for layer in plan.layers
    ]
    assert [row.macs for row in base.layers] == [layer.macs for layer in plan.layers]
    assert [row.macs for row in pairs.layers] == [layer.factor_macs for layer in plan.layers]
    for profile, result in zip(profiles, (base, pairs), strict=True):
        assert result.seconds == pytest.approx(profile.node_seconds, rel=1e-12)
    rows = compare_profiles(base, pairs, plan)
    assert [row.is_rewritten for row in rows] == [layer.is_rewritten for layer in plan.layers]
    assert all(row.verdict != "not measured" for row in rows)
    (share,) = placement(profiles[1], exported.pairs).providers
    assert share.macs == plan.macs_after
