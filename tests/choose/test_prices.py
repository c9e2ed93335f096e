"""What is scarce, by hand; a target for what nobody knows is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trpexport as tx
from trpexport.choose.prices import PRICES
from trpexport.errors import PlanError
from trpexport.networks.torch.network import TorchNetwork
from trpexport.ops import Call, Layer, LinearOp, Window

OP = LinearOp(4, 8, bias=True, window=Window((3, 3), pads=((1, 1), (1, 1))))
LAYER = Layer("a", OP, (Call(2, (8, 8)), Call(1, (4, 4))))


class Net(nn.Module):
    """Two convolutions, and a Fourier transform of so many rows."""

    def __init__(self, rows: int = 0) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 4)
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        y = self.c2(self.c1(x).relu())
        if self.rows:
            y = y + torch.fft.fft2(y.repeat(1, 3, 1, 1)[:, : self.rows]).abs().mean()
        z: Tensor = self.fc(y.mean((2, 3)))
        return z


def test_by_hand() -> None:
    assert PRICES["macs"].of(LAYER, (OP,)) == 8 * 4 * 9 * (2 * 64 + 16)
    assert PRICES["parameters"].of(LAYER, (OP,)) == 8 * 4 * 9 + 8
    network = TorchNetwork.open(Net(), (1, 3, 8, 8))
    assert PRICES["macs"].whole(network) == (3 * 16 + 16 * 16) * 9 * 64 + 64
    assert PRICES["parameters"].whole(network) == (3 * 16 + 16 * 16) * 9 + 32 + 68


@pytest.mark.parametrize(("rows", "known"), [(1, True), (40, False)])
def test_a_share_of_what_nobody_knows_is_refused(rows: int, known: bool) -> None:
    images = np.random.default_rng(0).standard_normal((8, 3, 8, 8), dtype=np.float32)
    # A channel has 64 sums over at most 8 numbers: 512 MACs beside 175,168, and 40 times those.
    model = Net(rows)
    network = TorchNetwork.open(model, (1, 3, 8, 8))
    assert network.cost.uncounted
    budget = tx.ByBudget(macs=0.5)
    if known:
        small = tx.decompose(model, budget, images=images)
        assert small.plan.uncounted == network.cost.uncounted
    else:
        with pytest.raises(PlanError, match=r"can't be kept: those of _fft.* are not known"):
            tx.decompose(model, budget, images=images)
    assert tx.decompose(model, tx.ByBudget(parameters=0.5), images=images).plan.rewritten
