"""Copies of networks that hold what can't be copied, and of what refers to a network."""

from __future__ import annotations

import functools
import io
import json
import threading
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.networks.torch.plain import FULL, SHAPE, Plain, decomposed
from trpexport.networks.torch.copying import copied, uncover_methods
from trpexport.networks.torch.modules import FactorChain
from trpexport.networks.torch.network import TorchNetwork


class Slotted:
    __slots__ = ("lock", "net")

    def __init__(self, net: nn.Module) -> None:
        self.net, self.lock = net, threading.Lock()


class Holds(Plain):
    """Holds a value beside its layers, and runs c2 by way of it."""

    def __init__(self, make: Callable[[nn.Module], Any], run: Callable[[Any], Any]) -> None:
        super().__init__()
        self.held, self.run = make(self.c2), run

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.end(self.run(self.held)(self.c1(x).relu()))
        return y


HOLDINGS: dict[str, tuple[Callable[[nn.Module], Any], Callable[[Any], Any]]] = {
    "module of Python": (lambda c2: [c2, json], lambda held: held[0]),
    "lock in a list": (lambda c2: [c2, threading.Lock()], lambda held: held[0]),
    "generator": (lambda c2: {"a": (i for i in "b"), "c": c2}, lambda held: held["c"]),
    "open file": (lambda c2: (c2, io.TextIOWrapper(io.BytesIO())), lambda held: held[0]),
    "slots": (Slotted, lambda held: held.net),
    "namespace": (
        lambda c2: types.SimpleNamespace(nets=[c2], lock=threading.RLock()),
        lambda held: held.nets[0],
    ),
    "closure": (lambda c2: lambda x: c2(x) + 0, lambda held: held),
    "default": (lambda c2: lambda x, c=c2: c(x), lambda held: held),
    "closure in a list": (lambda c2: {"a": [lambda x: c2(x) + 0]}, lambda held: held["a"][0]),
    "closure in a tuple": (lambda c2: (1, lambda x: c2(x) + 0), lambda held: held[1]),
    "weak reference": (weakref.ref, lambda held: held()),
    "partial": (functools.partial, lambda held: held),
}


@pytest.mark.parametrize("kind", HOLDINGS)
def test_what_a_network_holds_refers_to_its_copy(kind: str) -> None:
    model = Holds(*HOLDINGS[kind]).eval()
    before = model.c2.weight.detach().clone()
    small = decomposed(model, FULL)
    assert [layer.name for layer in small.plan.rewritten] == ["c2"]
    module = small.module
    x = torch.randn(2, *SHAPE[1:])
    expected = model(x)
    torch.testing.assert_close(module(x), expected, rtol=1e-3, atol=1e-3)
    # The copy's own layer is what runs: without it there is nothing left.
    chain = module.get_submodule("c2")
    assert isinstance(chain, FactorChain)
    with torch.no_grad():
        for parameter in chain.parameters():
            parameter.zero_()
    assert not torch.allclose(module(x), expected, atol=1e-2)
    assert torch.equal(model.c2.weight, before)


def test_hooks_that_users_set_refer_to_the_copy() -> None:
    class Hooked(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.seen: dict[str, Tensor] = {}
            self.c2.register_forward_hook(lambda module, x, y: self.seen.update(c2=y))

        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            return self.seen.pop("c2")

    model = Hooked().eval()
    x = torch.randn(1, *SHAPE[1:])
    torch.testing.assert_close(copied(model)(x), model(x))


def test_parameters_that_are_shared_stay_so_and_are_the_copys_own() -> None:
    model = Plain()
    model.lock = threading.Lock()  # type: ignore[assignment]
    model.twin = model.c2
    model.tied = model.c2.weight
    copy = copied(model)
    assert copy.twin is copy.c2
    ours = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    theirs = {tensor.untyped_storage().data_ptr() for tensor in copy.state_dict().values()}
    assert not ours & theirs
    assert copy.get_parameter("tied") is copy.get_parameter("c2.weight")


class Hides(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.modules = [self.c1, self.c2]  # type: ignore[assignment]
        self.parameters = {"depth": 3}  # type: ignore[assignment]
        self.type = "plain"  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.modules:  # type: ignore[attr-defined]
            x = layer(x).relu()
        y: Tensor = self.end(x)
        return y


def test_a_value_that_hides_a_method_stays_and_can_be_called() -> None:
    small = decomposed(Hides(), FULL)
    assert [layer.name for layer in small.plan.rewritten] == ["c2"]
    model: Any = small.module
    assert model.type == "plain"
    assert model.parameters == {"depth": 3}
    assert list(model.modules()) == list(nn.Module.modules(model))
    assert isinstance(model.modules[1], FactorChain)


def test_uncovered_methods_are_those_of_the_copy() -> None:
    model = Hides()
    uncover_methods(model)
    copy = copied(model)
    assert next(iter(copy.modules())) is copy
    assert sum(1 for _ in copy.parameters()) == sum(1 for _ in Plain().parameters())


def test_its_owners_network_keeps_what_it_held() -> None:
    model: Any = Hides()
    TorchNetwork.open(model, SHAPE)
    assert type(model.modules) is list
