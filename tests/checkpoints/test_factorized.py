"""Checkpoints whose convolutions are factors already: a bundle's weights, a fine-tuned network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trpexport as tx
from trpexport.errors import ArchitectureError, CheckpointError, ModelError, PlanError


@pytest.fixture
def decomposed(small: Any) -> tuple[nn.Module, tx.Plan]:
    torch.manual_seed(0)
    chooser = tx.ByCriterion("spatial", "fraction:0.3")
    found = tx.decompose(small.build().eval(), chooser, example=small.input_shape)
    return found.module, found.plan


def test_there_and_back(tmp_path: Path, small: Any, decomposed: tuple[nn.Module, tx.Plan]) -> None:
    network, plan = decomposed
    tx.save_checkpoint(tmp_path / "f.safetensors", network, architecture=small, plan=plan)
    checkpoint = tx.load(tmp_path / "f.safetensors")
    assert checkpoint.plan == plan
    assert checkpoint.label == str(small)
    x = torch.randn(2, *small.input_shape[1:])
    assert torch.equal(checkpoint.module(x), network(x))


def test_a_bundle_gives_its_network_back(
    tmp_path: Path, small: Any, decomposed: tuple[nn.Module, tx.Plan]
) -> None:
    network, plan = decomposed
    tx.save_checkpoint(tmp_path / "f.safetensors", network, architecture=small, plan=plan)
    bundle = tmp_path / "bundle"
    quick: dict[str, Any] = {"opset": 17, "legacy_exporter": True, "simplify": False}
    tx.export(tmp_path / "f.safetensors", bundle, verify_seconds=0, **quick)
    checkpoint = tx.load(bundle)
    assert checkpoint.plan == plan
    x = torch.randn(2, *small.input_shape[1:])
    assert torch.equal(checkpoint.module(x), network(x))
    (bundle / "model.safetensors").write_bytes(b"changed")
    with pytest.raises(ModelError, match="was changed"):
        tx.load(bundle)


def test_a_decomposed_network_is_not_decomposed_again(
    tmp_path: Path, small: Any, decomposed: tuple[nn.Module, tx.Plan]
) -> None:
    network, plan = decomposed
    path = tmp_path / "f.safetensors"
    tx.save_checkpoint(path, network, architecture=small, plan=plan)
    with pytest.raises(CheckpointError, match="trpexport export"):
        tx.decompose(path, tx.ByCriterion())


def test_factors_of_a_network_that_is_not_of_the_zoo(
    tmp_path: Path, decomposed: tuple[nn.Module, tx.Plan]
) -> None:
    network, plan = decomposed
    path = tmp_path / "f.safetensors"
    tx.save_checkpoint(path, network, architecture=None, plan=plan)
    with pytest.raises(ArchitectureError, match=r"as package.module:factory") as caught:
        tx.load(path)
    assert "model" in caught.value.parameters


def _change(header: dict[str, Any]) -> None:
    header["plan"]["layers"][0]["name"] = "elsewhere"
    header["plan"]["layers"][1]["name"] = "nowhere"


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header.update(plan="yes"),
        lambda header: header["plan"].update(schema_version=99),
        _change,
    ],
)
def test_a_damaged_plan(
    tmp_path: Path, small: Any, decomposed: tuple[nn.Module, tx.Plan], change: Any
) -> None:
    from safetensors.torch import load_file, save_file

    network, plan = decomposed
    path = tmp_path / "f.safetensors"
    tx.save_checkpoint(path, network, architecture=small, plan=plan)
    facts = _facts(path)
    change(facts)
    save_file(load_file(path), path, {"trpexport": json.dumps(facts)})
    with pytest.raises(PlanError):
        tx.load(path)


def _facts(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header: Mapping[str, str] = file.metadata()
    data: dict[str, Any] = json.loads(header["trpexport"])
    return data
