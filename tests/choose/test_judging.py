"""What a network loses by a metric, on samples of its own, as ``eval`` and ``gate`` have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import trpexport as tx
from tests.artifact.networks import SHAPE, tiny
from trpexport.choose.judging import NetworkJudge
from trpexport.datasets.calibration import LabelledTensors
from trpexport.datasets.tensors import TensorSet
from trpexport.errors import DataError, NothingToDoError, TrpexportError
from trpexport.inputs import Inputs
from trpexport.judge.metrics import METRICS, OwnMetric
from trpexport.networks.torch.network import TorchNetwork

X = np.random.default_rng(0).standard_normal((70, 1, 4, 4)).astype(np.float32)


class Shifted(nn.Module):
    """Its input, and a number more."""

    def __init__(self, by: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.load_state_dict(
            {"conv.weight": torch.ones(1, 1, 1, 1), "conv.bias": torch.full((1,), by)}
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)  # type: ignore[no-any-return]


class OneBatch(Shifted):
    """Takes three images at a time and nothing else."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).reshape(3, 1, 4, 4)


class Two(Shifted):
    def forward(self, x: Tensor) -> Any:
        y = self.conv(x)
        return {"whole": y, "sum": y.sum((1, 2, 3))}


def opened(module: nn.Module, outputs: tuple[str, ...] = (), batch: int = 1) -> TorchNetwork:
    return TorchNetwork.open(module.eval(), Inputs.of((batch, 1, 4, 4)), outputs)


def samples(targets: Any) -> LabelledTensors:
    return LabelledTensors("tensors:x.npz", "held-out", X, targets)


def mean_error(predictions: Any, targets: Any) -> Any:
    return np.abs(predictions - targets).mean((1, 2, 3))


@pytest.mark.parametrize(
    "metric", [METRICS["mae"], METRICS["rmse"], OwnMetric("own", mean_error, True)]
)
@pytest.mark.parametrize(("kind", "batch"), [(Shifted, None), (OneBatch, 3)])
def test_a_rise_of_an_error_is_a_loss_in_its_own_unit(
    metric: Any, kind: type[Shifted], batch: int | None
) -> None:
    original, other = (opened(kind(by), batch=batch or 1) for by in (0.25, 1.0))
    judge = NetworkJudge(original, samples(X), metric, max_batch=batch)
    assert judge.loss(other) == pytest.approx(0.75, rel=1e-5)
    assert judge.loss(original) == 0
    facts = judge.facts(other)
    assert (facts["before"], facts["after"]) == (pytest.approx(0.25), pytest.approx(1.0))
    assert (facts["images"], facts["is_share"]) == (70, False)


def test_a_share_is_lost_in_points() -> None:
    masks = (X[:, 0] > 0).astype(np.int64)  # one channel is foreground where it is above 0
    original, other = opened(Shifted()), opened(Shifted(9.0))
    judge = NetworkJudge(original, samples(masks), METRICS["miou"])
    # Everything is foreground: an IoU of its share for that, of 0 for the rest.
    assert judge.loss(other) == pytest.approx(100 * (1 - masks.mean() / 2), rel=1e-6)
    assert "points of miou" in judge.unit


@pytest.mark.parametrize("picked", ["whole", "sum"])
def test_the_outputs_that_count_are_judged(picked: str) -> None:
    targets = {"whole": X, "sum": X.sum((1, 2, 3))}
    judge = NetworkJudge(opened(Two(), (picked,)), samples(targets), METRICS["mae"])
    assert judge.loss(opened(Two(0.5), (picked,))) == pytest.approx(
        0.5 if picked == "whole" else 8.0, rel=1e-4
    )
    both = NetworkJudge(opened(Two()), samples(targets), METRICS["mae"])
    with pytest.raises(DataError, match="mae judges one output, the network has whole, sum"):
        both.loss(opened(Two(0.5)))
    with pytest.raises(TrpexportError, match="has whole, sum"):
        NetworkJudge(opened(Two()), samples(X), METRICS["mae"]).loss(opened(Two()))


def test_what_can_not_be_told_is_said() -> None:
    never = OwnMetric("never", lambda *_: float("nan"))
    judge = NetworkJudge(opened(Shifted()), samples(X), never)
    with pytest.raises(DataError, match="never of the network as it is is nan"):
        judge.loss(opened(Shifted()))


# --- through a budget ------------------------------------------------------------------------


def tensors(count: int = 60) -> TensorSet:
    x = np.random.default_rng(1).standard_normal((count, *SHAPE[1:])).astype(np.float32)
    with torch.no_grad():
        y = tiny().eval()(torch.from_numpy(x)).numpy()
    return TensorSet("tensors:made.npz", {"x": x}, {"target": y})


def test_a_drop_of_any_metric_is_a_budget() -> None:
    budget = tx.ByBudget(drop=0.05, metric="mae", include=["conv2"])
    small = tx.decompose(tiny(), budget, images=tensors())
    judged = small.plan.options["calibration"]["judged"]
    assert judged["before"] == pytest.approx(0, abs=1e-6)
    assert 0 < judged["after"] <= 0.05
    assert judged["images"] == 12  # a fifth, which was not calibrated on
    with pytest.raises(NothingToDoError, match=r"at most 0 of mae can't be met: .* loses"):
        tx.decompose(tiny(), tx.ByBudget(drop=0, metric="mae", include=["conv2"]), images=tensors())


def test_raw_tensors_need_a_metric_and_targets() -> None:
    with pytest.raises(TrpexportError, match="no metric is given for tensors:made"):
        tx.decompose(tiny(), tx.ByBudget(drop=1), images=tensors())
    few = tensors(12)
    with pytest.raises(DataError, match="no samples besides those to calibrate on"):
        tx.decompose(tiny(), tx.ByBudget(drop=1, metric="mae"), images=few)
    bare = TensorSet(few.name, few.inputs, {})
    with pytest.raises(DataError, match="tensors with targets"):
        tx.decompose(tiny(), tx.ByBudget(drop=1, metric="mae"), images=bare)
