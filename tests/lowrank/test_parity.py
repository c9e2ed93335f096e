"""The original TRP implementation on a real checkpoint: same ranks, same outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.data import cifar10_test_images
from trpexport.checkpoints import load_checkpoint
from trpexport.choose.by_criterion import ByCriterion
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import decompose_network

SCHEMES = {"NC": "channel", "VH": "spatial", "ND": "decoupling"}
CRITERIA = ("value:0.05", "value:0.5", "energy:0.9", "energy:0.85", "rate:0.5")


@pytest.fixture(scope="module")
def network(shared: Path) -> nn.Module:
    return load_checkpoint(shared / "checkpoints/resnet20-12fca82f.th").module


@pytest.fixture(scope="module")
def reference(shared: Path) -> dict[tuple[str, str], dict[str, Any]]:
    data = json.loads((shared / "reference/original_resnet20.json").read_text())
    return {(case["scheme"], case["criterion"]): case for case in data["cases"]}


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_original_is_reproduced(
    scheme: str,
    criterion: str,
    network: nn.Module,
    reference: dict[tuple[str, str], dict[str, Any]],
    shared: Path,
) -> None:
    chooser = ByCriterion(
        SCHEMES[scheme],
        criterion.replace("rate", "fraction"),
        keep_expensive=True,
        stride_1_only=scheme != "ND",
    )
    small = decompose_network(TorchNetwork(network, (1, 3, 32, 32)), chooser)
    ranks = {layer.name: layer.rank for layer in small.plan.rewritten}
    assert ranks == reference[scheme, criterion]["ranks"]

    images, _ = cifar10_test_images(shared, 64)
    with np.load(shared / "reference/original_resnet20_logits.npz") as logits:
        original, expected = logits["original"], logits[f"{scheme}/{criterion}"]
    with torch.no_grad():
        for model, reference_logits in ((network, original), (small.module, expected)):
            error = np.abs(model(images).numpy() - reference_logits).max()
            assert error <= 1e-4 * np.abs(reference_logits).max()


def test_every_case_is_tested(reference: dict[tuple[str, str], dict[str, Any]]) -> None:
    assert set(reference) == {(scheme, criterion) for scheme in SCHEMES for criterion in CRITERIA}
