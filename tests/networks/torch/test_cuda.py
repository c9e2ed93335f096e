"""What calibration is told on a CUDA device, where there is one, against the processor."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import trpexport as tx
from trpexport.networks.samples import checked_samples
from trpexport.networks.torch.network import TorchNetwork
from trpexport.plan import CALIBRATION

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
SHAPE = (1, 8, 9, 9)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


def test_shortcuts_and_metrics_are_those_of_the_processor() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block()).train()
    model(torch.randn(32, *SHAPE[1:]))
    images = np.random.default_rng(0).standard_normal((16, *SHAPE[1:])).astype(np.float32)
    torch.backends.cudnn.allow_tf32 = False
    found = []
    for device in ("cpu", "cuda"):
        network = TorchNetwork.open(copy.deepcopy(model.eval()).to(device), SHAPE)
        watch = network.watch(checked_samples(images, SHAPE))
        watch.advance("1.conv")
        seen = watch.observe("1.conv", 0)
        metric = watch.metric("1.conv")
        assert seen.shortcut is not None and seen.scale is not None and metric is not None
        found.append([some.cpu() for some in (*seen.outputs, seen.shortcut, seen.scale, metric)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_network_is_decomposed_there_as_on_the_processor() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Block(), Block()).train()
    model(torch.randn(32, *SHAPE[1:]))
    images = np.random.default_rng(0).standard_normal((64, *SHAPE[1:])).astype(np.float32)
    chooser = tx.ByBudget(macs=0.7, scheme="auto", rank_multiple=1)
    cpu, cuda = (
        tx.decompose(model.eval(), chooser, images=images, device=device)
        for device in ("cpu", "cuda")
    )
    assert cuda.network.device.type == "cpu"
    assert any(note.startswith("calibrated on ") for note in cuda.notes)
    ranks = [[(x.name, x.scheme, x.rank) for x in each.plan.rewritten] for each in (cpu, cuda)]
    assert ranks[0] == ranks[1]
    error, other = (each.plan.options[CALIBRATION]["output_error"] for each in (cpu, cuda))
    assert other == pytest.approx(error, rel=1e-2)
