"""TRP of networks whose layers have a forward of their own, as libraries have them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import trpexport as tx
from tests.networks.torch.test_probing import SHAPE, UNDERSTOOD, Reflects, Scales, network
from trpexport.errors import TrainingError
from trpexport.training.trp import TrainedRankPruning

Make = Callable[[], nn.Module]


class Bare(nn.Conv2d):
    """Overrides nothing that computes."""

    def extra_repr(self) -> str:
        return "bare"


def rank(weight: Tensor) -> int:
    """Return the rank of a kernel as the spatial scheme unfolds it."""
    out, channels, height, width = weight.shape
    matrix = weight.permute(1, 2, 0, 3).reshape(channels * height, out * width)
    return int(torch.linalg.matrix_rank(matrix, rtol=1e-4))


@pytest.mark.parametrize("shape", [None, SHAPE])
@pytest.mark.parametrize("name", [*UNDERSTOOD, "bare"])
def test_a_convolution_that_pads_by_itself_is_projected(
    name: str, shape: tuple[int, ...] | None
) -> None:
    make: Make = UNDERSTOOD[name][0] if name in UNDERSTOOD else lambda: Bare(32, 32, 3)
    torch.manual_seed(0)
    model = network(make()).train()
    before = {name: set(vars(module)) for name, module in model.named_modules()}
    full = rank(model[2].weight.detach())  # type: ignore[index]
    trp = TrainedRankPruning(model, energy=0.5, rank_multiple=1, input_shape=shape)
    assert list(trp.status.ranks) == ["2"]
    trp.project()
    cut = rank(model[2].weight.detach())  # type: ignore[index]
    assert cut < full
    # What it is decomposed to at that energy, if nothing else is done to it.
    small = tx.decompose(
        model, tx.ByCriterion("spatial", "energy:0.99999", keep_expensive=True), example=SHAPE
    )
    assert {row.name: row.rank for row in small.plan.rewritten} == {"2": cut}
    assert all(module.training for module in model.modules())
    assert {name: set(vars(module)) for name, module in model.named_modules()} == before


@pytest.mark.parametrize("shape", [None, SHAPE])
@pytest.mark.parametrize("kind", [Scales, Reflects])
def test_a_class_that_computes_more_is_left_alone_and_named_once(
    kind: type[nn.Conv2d], shape: tuple[int, ...] | None
) -> None:
    layers = [kind(32, 32, 3, padding=1) for _ in range(3)]
    model = network(nn.Sequential(*layers, nn.Conv2d(32, 32, 3)))
    before = [layer.weight.clone() for layer in layers]
    with pytest.warns(UserWarning, match=f"3 layers of class {kind.__name__} stay") as warned:
        trp = TrainedRankPruning(model, energy=0.5, rank_multiple=1, input_shape=shape)
    assert len(warned) == 1
    assert list(trp.status.ranks) == ["2.3"]
    trp.project()
    assert all(torch.equal(*both) for both in zip(before, (x.weight for x in layers), strict=True))
    alone = network(nn.Sequential(*layers))
    with pytest.warns(UserWarning), pytest.raises(TrainingError, match="no convolution"):
        TrainedRankPruning(alone, energy=0.5, input_shape=shape)
