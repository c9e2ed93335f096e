"""Networks for benchmarks: exported dense, and decomposed at ranks that share a divisor."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

import trpexport as tx
from trpexport.artifact.build import export_bundle
from trpexport.choose.spectra import Analysis, keep_all
from trpexport.lowrank.criteria import parse_criterion
from trpexport.networks.torch.network import TorchNetwork

FAST = tx.ExportSettings(verify_seconds=0)


def random_network(preset: str, num_classes: int) -> nn.Module:
    """Return a network of the zoo with random weights: its speed does not depend on them."""
    torch.manual_seed(0)
    zoo = importlib.import_module("trpexport.models_zoo")
    network: nn.Module = zoo.parse_architecture(preset, num_classes=num_classes).build().eval()
    return network


def plan_at(analysis: Analysis, ratio: float, criterion: str) -> tx.Plan:
    """Return the plan of the highest value of a criterion that saves at least a MAC ratio."""
    low, high = 0.0, 1.0
    plan = analysis.plan(parse_criterion("rank:1"))
    for _ in range(20):
        middle = (low + high) / 2
        tried = analysis.plan(parse_criterion(f"{criterion}:{middle}"))
        if tried.macs_before / tried.macs_after >= ratio:
            plan, low = tried, middle
        else:
            high = middle
    return plan


def export_dense(model: nn.Module, shape: Sequence[int], out: Path) -> Path:
    """Export a network as it is and return its ONNX file."""
    network = TorchNetwork.open(model, shape)
    return export_bundle(network, keep_all(network), out, settings=FAST).path / "model.onnx"


def aligned(plan: tx.Plan, multiple: int) -> tx.Plan:
    """Return a plan with every rank rounded to the nearest multiple, at least one of them."""
    layers = []
    for layer in plan.layers:
        if layer.rank is None or layer.full_rank is None:
            layers.append(layer)
            continue
        rank = max(multiple, round(layer.rank / multiple) * multiple)
        layers.append(replace(layer, rank=min(rank, layer.full_rank)))
    return replace(plan, layers=tuple(layers))


def export_decomposed(model: nn.Module, plan: tx.Plan, out: Path) -> tuple[Path, tx.Plan]:
    """Decompose a network by a plan whose ranks may be edited; return the file and the plan."""
    small = tx.decompose(model, tx.ByPlan(plan))
    return small.export(out, settings=FAST).path / "model.onnx", small.plan
