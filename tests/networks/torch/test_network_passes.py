"""Networks whose passes are odd, and MACs of all that a pass runs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.networks.torch.plain import SHAPE, Plain, ReadsAttributes, decomposed, images
from trpexport.choose.by_criterion import ByCriterion
from trpexport.datasets.calibration import ArrayImages
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import decompose_network


class FixesItsBatch(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(self.batch, *SHAPE[1:]))

    batch = 4


class BatchStatistics(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(16, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.norm(self.c2(self.c1(x).relu())))


class Checkpointed(Plain):
    def forward(self, x: Tensor) -> Tensor:
        def later(y: Tensor) -> Tensor:
            z: Tensor = self.c2(y).relu()
            return z

        return self.end(checkpoint(later, self.c1(x).relu(), use_reentrant=False))


@pytest.mark.parametrize("kind", [FixesItsBatch, BatchStatistics, Checkpointed])
def test_networks_of_odd_passes_are_calibrated(kind: Callable[[], Plain]) -> None:
    network = TorchNetwork.open(kind(), (4, *SHAPE[1:]))
    values = images(26).inputs
    errors = []
    for data in (ArrayImages(values), None):
        small = decompose_network(network, ByCriterion("spatial", "rank:4"), data)
        feeds = {"input": values[:4]}
        expected, actual = network.run(feeds)["output"], small.network.run(feeds)["output"]
        errors.append(np.square(actual - expected).mean())
    assert errors[0] < errors[1]


def test_a_kernel_that_is_only_looked_at_is_not_counted() -> None:
    small = decomposed(ReadsAttributes(), ByCriterion("spatial", "rank:4"))
    assert small.network.cost.macs == small.plan.macs_after


class Attends(Plain):
    """Attention over the pixels: most of the MACs are no convolution's."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.c2(self.c1(x).relu()).relu().flatten(2).mT
        z: Tensor = self.fc(self.attention(y, y, y, need_weights=False)[0].mean(1))
        return z


def test_a_plans_macs_are_those_of_all_of_the_network() -> None:
    n = 16 * 16
    network = TorchNetwork.open(Attends(), (1, 3, 16, 16))
    plan = decompose_network(network, ByCriterion("spatial", "rank:4")).plan
    convolutions = (3 + 16) * 16 * 9 * n
    others = 4 * 16 * 16 * n + 2 * n * n * 16 + 16 * 10
    assert plan.macs_before == convolutions + others
    assert plan.macs_after == plan.macs_before - 16 * 16 * 9 * n + 2 * 16 * 3 * 4 * n
    assert plan.macs_before / plan.macs_after == pytest.approx(1.19, abs=0.01)


def test_linear_layers_count_for_each_frame_of_a_folded_batch() -> None:
    class Video(Plain):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = super().forward(x.flatten(0, 1)).reshape(*x.shape[:2], -1).mean(1)
            return y

    plan = decompose_network(
        TorchNetwork.open(Video(), (1, 16, 3, 8, 8)), ByCriterion("spatial", "rank:2")
    ).plan
    assert plan.layers[-1].name == "fc"
    assert plan.layers[-1].macs == 16 * 16 * 10
    assert plan.other_macs == 0
