"""Networks for benchmarks: exported dense, and decomposed at ranks that share a divisor."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import trpexport as tx
from trpexport.artifact.build import export_bundle
from trpexport.choose.selection import Selection
from trpexport.choose.spectra import Analysis, LayerSpectrum, keep_all
from trpexport.lowrank.criteria import parse_criterion
from trpexport.lowrank.criteria.base import Criterion
from trpexport.lowrank.criteria.fraction import Fraction
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.torch.network import TorchNetwork
from trpexport.onnx_files import OnnxFileSource
from trpexport.onnxfile.recognition import is_onnx
from trpexport.pipeline import Decomposable, Source

# What the published checkpoints were trained with.
NORMALISE = tx.Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FAST = tx.ExportSettings(verify_seconds=0)


def source_of(path: Path, factory: str | None = None, size: int | None = None) -> Decomposable:
    """Return a checkpoint or an ONNX file to decompose.

    Args:
        path: of it.
        factory: builds a checkpoint's network where its architecture is not known.
        size: edge of the input of what it builds.
    """
    if is_onnx(path):
        return OnnxFileSource(path)
    inputs = None if factory is None or size is None else (1, 3, size, size)
    return Source(path, model=factory, inputs=inputs)


def resized(size: int | None, resize: int | None) -> tx.Preprocessing:
    """Return how images become input of networks that were trained as most are.

    Args:
        size: edge of the input, in pixels; None where images have it.
        resize: shorter edge before the middle is cut out.
    """
    if size is None:
        return NORMALISE
    return replace(NORMALISE, size=(size, size), resize=resize)


def random_network(preset: str, num_classes: int) -> nn.Module:
    """Return a network of the zoo with random weights: its speed does not depend on them."""
    torch.manual_seed(0)
    zoo = importlib.import_module("trpexport.models_zoo")
    network: nn.Module = zoo.parse_architecture(preset, num_classes=num_classes).build().eval()
    return network


class AlignedFraction(Fraction):
    """Keep a share of the full rank, rounded to the nearest multiple of 8, at least 8."""

    name = "aligned-fraction"
    multiple = 8

    def rank(self, singular_values: NDArray[np.float64], shape: Sequence[int] | None) -> int:
        """Return the rounded rank, at most the full one."""
        full = len(singular_values)
        return min(full, max(1, round(self.value * full / self.multiple)) * self.multiple)


def unweighted(network: TorchNetwork, scheme: str) -> Analysis:
    """Return the analysis of a network for criteria that look at sizes alone: takes no SVD."""
    chosen = SCHEMES[scheme]
    reasons = Selection().reasons_to_stay(network, chosen)
    layers = tuple(
        LayerSpectrum(
            layer,
            np.ones((1, chosen.full_rank(layer.op))) if reasons[layer.name] is None else None,
            reasons[layer.name],
        )
        for layer in network.layers
    )
    return Analysis(chosen, layers, keep_all(network))


def plan_at(
    analysis: Analysis, ratio: float, criterion: str | Callable[[float], Criterion]
) -> tx.Plan:
    """Return the plan of the highest value of a criterion that saves at least a MAC ratio.

    Args:
        analysis: of the network.
        ratio: MACs before / after.
        criterion: the name of one, or what makes one of a value from 0 to 1.
    """
    low, high = 0.0, 1.0
    plan = analysis.plan(parse_criterion("rank:1"))
    for _ in range(20):
        middle = (low + high) / 2
        made = (
            parse_criterion(f"{criterion}:{middle}")
            if isinstance(criterion, str)
            else (criterion(middle))
        )
        tried = analysis.plan(made)
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
