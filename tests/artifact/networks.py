"""Small networks for export tests."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.artifact.build import BundleReport, export_bundle
from trpexport.choose.by_criterion import ByCriterion
from trpexport.choose.spectra import keep_all
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import Decomposed, decompose_network
from trpexport.plan import Plan

SHAPE = (1, 3, 16, 16)


class Tiny(nn.Module):
    """Convolutions with batch norms, a strided one, reflection and 'same' padding, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.conv1 = nn.Conv2d(8, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, stride=2, padding=1, padding_mode="reflect")
        self.bn2 = nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 16, (3, 5), padding="same")
        self.fc = nn.Linear(16, 5)
        for norm in (self.bn, self.bn1, self.bn2):
            norm.running_mean = torch.randn(norm.num_features)
            norm.running_var = torch.rand(norm.num_features) + 0.5

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn(self.stem(x)))
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = torch.relu(self.conv3(x))
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


def export_modules(
    model: nn.Module,
    plan: Plan,
    out: Path,
    *,
    original: nn.Module | None = None,
    **how: Any,
) -> BundleReport:
    """Export a module by its plan."""
    networks = [
        None if module is None else TorchNetwork.open(module, plan.inputs.first.shape)
        for module in (model, original)
    ]
    assert networks[0] is not None
    return export_bundle(networks[0], plan, out, original=networks[1], **how)


def tiny() -> nn.Module:
    return Tiny().eval()


def rewritten(
    model: nn.Module,
    shape: Sequence[int] = SHAPE,
    *,
    scheme: str = "spatial",
    criterion: str = "rank:4",
    **options: Any,
) -> Decomposed:
    chooser = ByCriterion(scheme, criterion, **options)
    return decompose_network(TorchNetwork.open(model, shape), chooser)


def kept(model: nn.Module, shape: Sequence[int] = SHAPE) -> Plan:
    return keep_all(TorchNetwork(model, shape))


class BatchNormed(nn.Module):
    """Normalizes by the batch's own statistics: what becomes of an image depends on the others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))
        return y


def state_of(model: nn.Module) -> dict[str, object]:
    """What a network's owner would notice: modes, frozen parameters, gradients, hooks, values."""
    found: dict[str, object] = {}
    for name, module in model.named_modules():
        found[name] = (module.training, sorted(vars(module)), len(module._forward_hooks))
    for name, parameter in model.named_parameters():
        found[f"{name} of"] = (parameter.requires_grad, parameter.grad, parameter.dtype)
    for name, tensor in model.state_dict().items():
        found[f"{name} is"] = tensor.tolist()
    return found
