"""Training on a CUDA device, where there is one, against the same on the processor."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import trpexport as tx
from tests.training.small import SHAPE, Small
from tests.training.small import train as train_small
from trpexport.errors import TrainingError
from trpexport.training.cuda_graphs import Recorded
from trpexport.training.distributed import Workers
from trpexport.training.settings import Compute
from trpexport.training.train import train
from trpexport.training.trp import TrainedRankPruning
from trpexport.training.watching import Watchers

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
SHAPE_OF_BATCH = (16, *SHAPE[1:])


@pytest.mark.parametrize(("device", "count"), [("cpu", 1), ("cuda", 2)])
def test_graphs_are_refused_where_they_can_not_be_recorded(
    model: Small, device: str, count: int
) -> None:
    workers = Workers(0, count, torch.device(device))
    with pytest.raises(TrainingError, match="one process on a CUDA device") as caught:
        Recorded(model, SHAPE_OF_BATCH, bf16=False, workers=workers)
    assert caught.value.parameters == ("cuda_graphs",)


# PyTorch warns of the stream that recording has of its own, and of the context of its threads.
@pytest.mark.filterwarnings("ignore::UserWarning")
@needs_cuda
def test_a_recorded_network_has_the_gradients_and_statistics_of_an_unrecorded_one() -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(800, 4)
    ).cuda()
    inner = copy.deepcopy(plain)
    # The thread that derives has no context before its first product, and PyTorch says so.
    plain(torch.zeros(SHAPE_OF_BATCH, device="cuda")).sum().backward()
    plain.load_state_dict(inner.state_dict())
    plain.zero_grad()
    recorded = Recorded(
        inner, SHAPE_OF_BATCH, bf16=False, workers=Workers(0, 1, torch.device("cuda", 0))
    )
    for _ in range(3):
        images = torch.randn(SHAPE_OF_BATCH, device="cuda")
        for net in (plain, recorded):
            net.zero_grad()
            net(images).square().mean().backward()
    pairs = [
        *zip(plain.buffers(), inner.buffers(), strict=True),
        *(
            (one.grad, other.grad)
            for one, other in zip(plain.parameters(), inner.parameters(), strict=True)
        ),
    ]
    for one, other in pairs:
        assert one is not None and other is not None
        assert (one - other).float().norm() <= 1e-2 * one.float().norm()


@needs_cuda
@pytest.mark.parametrize("options", [{"energy": 0.9}, {"target_macs": 0.5, "total_steps": 20}])
def test_a_projection_is_that_of_the_processor(options: dict[str, float]) -> None:
    found = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = Small()
        trp = TrainedRankPruning(model, input_shape=SHAPE, **options)  # type: ignore[arg-type]
        train_small(model, trp, 18)
        model.to(device)
        trp.project()
        assert next(model.parameters()).device.type == device
        found.append((trp.status.ranks, [p.detach().cpu() for p in model.parameters()]))
    (ranks, weights), (other_ranks, other_weights) = found
    assert ranks == other_ranks
    for one, other in zip(weights, other_weights, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@needs_cuda
def test_a_run_with_graphs_goes_on_and_learns(digits: str, tmp_path: Path) -> None:
    recipe = tx.RECIPES["one-cycle"].changed(epochs=4, batch_size=32, lr=0.05)
    settings = tx.RunSettings(digits, recipe, compute=Compute("cuda", cuda_graphs=True))
    low_rank = tx.LowRank("spatial", target_macs=0.6, period=4)
    once = train("resnet20", settings, low_rank, tmp_path / "once", watcher=Watchers([]))
    again = train("resnet20", settings, low_rank, tmp_path / "once", watcher=Watchers([]))
    assert again == once
    assert once["macs_ratio"] <= 0.6
