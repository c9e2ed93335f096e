"""Kernels that norms, masks and other parametrizations compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from tests.networks.torch.plain import FULL, SHAPE, Plain, decomposed
from trpexport.networks.torch.folding import fold
from trpexport.networks.torch.network import TorchNetwork


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return (weight + weight.flip(-1)) / 2


class Drawn(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * torch.rand_like(weight)


def symmetric(conv: nn.Module) -> None:
    parametrize.register_parametrization(conv, "weight", Symmetric())


def pruned(conv: nn.Module) -> None:
    prune.l1_unstructured(conv, "weight", 0.3)  # type: ignore[no-untyped-call]


def pruned_twice(conv: nn.Module) -> None:
    pruned(conv)
    prune.random_structured(conv, "weight", 0.2, dim=0)  # type: ignore[no-untyped-call]


KINDS: dict[str, Callable[[nn.Module], object]] = {
    "weight norm": weight_norm,
    "spectral norm": spectral_norm,
    "pruning": pruned,
    "pruning twice": pruned_twice,
    "weight norm, new": parametrizations.weight_norm,
    "spectral norm, new": parametrizations.spectral_norm,
    "one's own": symmetric,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_that_is_computed_is_rewritten_as_it_is(kind: str) -> None:
    model = Plain().eval()
    KINDS[kind](model.c2)
    names = set(model.state_dict())
    x = torch.randn(2, *SHAPE[1:])
    with torch.no_grad():
        expected = model(x)
    small = decomposed(model, FULL)
    assert [layer.name for layer in small.plan.rewritten] == ["c2"]
    assert small.network.folded == ("c2",)
    with torch.no_grad():
        torch.testing.assert_close(small.module(x), expected, rtol=1e-3, atol=1e-3)
    assert set(model.state_dict()) == names
    dense = TorchNetwork.open(model, SHAPE).model
    assert set(dense.state_dict()) == set(Plain().state_dict())
    with torch.no_grad():
        torch.testing.assert_close(dense(x), expected)


def test_what_draws_anew_at_each_pass_stays_and_the_reason_says_what_removes_it() -> None:
    model = Plain().eval()
    parametrize.register_parametrization(model.c2, "weight", Drawn())
    network = TorchNetwork.open(model, SHAPE)
    assert network.folded == ()
    (layer,) = [layer for layer in network.layers if layer.name == "c2"]
    assert layer.fixed is not None
    assert "parametrize.remove_parametrizations" in layer.fixed


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
def test_only_layers_asked_for_are_folded() -> None:
    model = Plain()
    for conv in (model.c1, model.c2):
        weight_norm(conv)
    assert fold(model, {"c1"}) == ("c1",)
    assert "c2.weight_g" in model.state_dict()
