"""A PyTorch network behind the seam: its owner's stays as it was, a rewritten one runs."""

from __future__ import annotations

import copy
import json
import types
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.networks.torch.plain import FULL, SHAPE, Plain, ReadsAttributes, decomposed, images
from trpexport.choose.base import Choice
from trpexport.choose.by_budget import ByBudget
from trpexport.choose.by_criterion import ByCriterion
from trpexport.datasets.calibration import ArrayImages
from trpexport.errors import NothingToDoError, PlanError
from trpexport.lowrank.chain import truncated
from trpexport.networks.torch.modules import FactorChain
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import decompose_network
from trpexport.stages import Stages


class CallsByName(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.c2(input=self.c1(input=x).relu()))


@pytest.mark.parametrize("kind", [Plain, ReadsAttributes, CallsByName])
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_rewritten_network_runs(kind: Callable[[], Plain], calibrated: bool) -> None:
    model = kind()
    small = decomposed(model, FULL, images() if calibrated else None)
    assert [layer.name for layer in small.plan.rewritten] == ["c2"]
    x = torch.randn(4, *SHAPE[1:])
    module = small.module
    assert isinstance(module.get_submodule("c2"), FactorChain)
    torch.testing.assert_close(module(x), model(x), rtol=1e-3, atol=1e-3)


def test_what_can_not_run_once_rewritten_names_the_layer() -> None:
    class Looks(Plain):
        def forward(self, x: Tensor) -> Tensor:
            assert isinstance(self.c2, nn.Conv2d), "c2 is no convolution"
            return super().forward(x)

    with pytest.raises(
        PlanError,
        match=r"c2 rewritten \(AssertionError: c2 is no.*, .*test_network.py:\d+\): exclude it",
    ) as error:
        decomposed(Looks(), ByCriterion("spatial", "rank:4"))
    assert "\n" not in str(error.value)


def test_a_forward_of_an_instances_own_is_neither_rewritten_nor_lost() -> None:
    model, extra = Plain(), nn.Conv2d(16, 16, 3, padding=1)
    own = model.c2.forward
    model.c2.forward = lambda x: own(x) + extra(x)  # type: ignore[assignment,method-assign]
    with pytest.raises(NothingToDoError, match="no layer"):
        decomposed(model, ByCriterion("spatial", "rank:4"))
    network = TorchNetwork.open(model, SHAPE)
    (layer,) = (layer for layer in network.layers if layer.name == "c2")
    assert layer.fixed is not None
    assert "forward of its own" in layer.fixed
    x = torch.randn(2, *SHAPE[1:])
    torch.testing.assert_close(network.as_module()(x), model(x))


class Fused(nn.Module):
    """Blocks whose forward was set on the instance, as fusing batch norms does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c1 = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.fc = nn.Linear(16, 10)
        first = self.blocks[0]
        first.forward = types.MethodType(Block.forward_fused, first)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c1(x).relu()
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.fc(x.mean((2, 3)))
        return y


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.n = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.n(self.a(x)).relu()
        return y

    def forward_fused(self, x: Tensor) -> Tensor:
        return Block.forward(self, x) * 2


@pytest.mark.parametrize("fails", [False, True])
def test_the_owners_network_stays_as_it_was(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Fused().train()
    model.get_submodule("blocks.1.n").eval()  # a frozen norm
    model.requires_grad_(False)
    modes = {name: module.training for name, module in model.named_modules()}
    state = copy.deepcopy(model.state_dict())
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    random = torch.random.get_rng_state()
    if fails:
        monkeypatch.setattr(
            "trpexport.networks.torch.observation._Observer._note",
            lambda *_: (_ for _ in ()).throw(KeyboardInterrupt),
        )
        with pytest.raises(KeyboardInterrupt):
            decomposed(model, ByBudget(macs=0.5), images())
    else:
        small = decomposed(model, ByBudget(macs=0.6), images())
        assert not any(p.requires_grad for p in small.module.parameters())
        assert "forward" in vars(small.module.get_submodule("blocks.0"))
    assert torch.equal(torch.random.get_rng_state(), random)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("calibrated", [False, True])
def test_half_precision_comes_back(dtype: torch.dtype, calibrated: bool) -> None:
    model = Plain().to(dtype)
    chooser = ByBudget(macs=0.5) if calibrated else ByCriterion("spatial", "rank:4")
    small = decomposed(model, chooser, images() if calibrated else None)
    assert {tensor.dtype for tensor in small.module.state_dict().values()} == {dtype}
    assert {tensor.dtype for tensor in small.network.model.state_dict().values()} == {torch.float32}
    assert {tensor.dtype for tensor in model.state_dict().values()} == {dtype}
    x = torch.randn(2, *SHAPE[1:])
    expected = small.network.model(x)
    torch.testing.assert_close(small.module(x.to(dtype)).float(), expected, rtol=0.05, atol=0.05)


class Tied(nn.Module):
    """Two layers of one weight, of other strides."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c0 = nn.Conv2d(3, 16, 3, padding=1)
        self.c1 = nn.Conv2d(16, 16, 3, padding=1)
        self.c2 = nn.Conv2d(16, 16, 3, padding=1, stride=2)
        self.c3 = nn.Conv2d(16, 16, 3, padding=1)
        self.c2.weight = self.c1.weight
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c2(self.c1(self.c0(x).relu()).relu()).relu()
        y: Tensor = self.fc(self.c3(x).mean((2, 3)))
        return y


def test_tied_weights_stay_tied_and_count_once() -> None:
    model = Tied()
    network = TorchNetwork.open(model, SHAPE)
    assert [(layer.name, layer.shares) for layer in network.layers] == [
        *(("c0", None), ("c1", None), ("c2", "c1"), ("c3", None), ("fc", None))
    ]
    assert network.cost.parameters == sum(p.numel() for p in model.parameters())
    small = decompose_network(network, ByCriterion("spatial", "rank:8"))
    one, two = (small.module.get_submodule(name) for name in ("c1", "c2"))
    shared = {name: p is two.get_parameter(name) for name, p in one.named_parameters()}
    # Each has the bias that its layer had.
    assert shared == {"0.weight": True, "1.weight": True, "1.bias": False}
    ranks = 2 * 8 * 16 * 3  # of a pair: 16 x 3 and 16 x 3 weights a rank
    rest = 3 * 16 * 9 + 16 + 2 * 16 + 16 + 16 * 4 + 4
    assert sum(p.numel() for p in small.module.parameters()) == 2 * ranks + rest
    assert small.verify(seconds=0.1).equivalence["output"].is_equivalent()


@pytest.mark.parametrize("excluded", ["c1", "c2"])
def test_tied_layers_stay_where_one_does(excluded: str) -> None:
    small = decomposed(Tied(), ByCriterion("spatial", "rank:8", exclude=[excluded]))
    assert [layer.name for layer in small.plan.rewritten] == ["c3"]
    reasons = {layer.name: layer.reason for layer in small.plan.layers}
    other = {"c1": "c2", "c2": "c1"}[excluded]
    assert reasons[other] == f"shares its weight with {excluded}, which stays"


def test_tied_layers_are_not_calibrated_apart() -> None:
    small = decomposed(Tied(), ByBudget(macs=0.9), images())
    assert [layer.name for layer in small.plan.rewritten] == ["c3"]
    module = small.module
    assert module.get_submodule("c1").weight is module.get_submodule("c2").weight


def test_an_identity_is_that_of_what_a_network_computes() -> None:
    class Other(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return self.end(self.c2(self.c1(x)))  # no ReLU between

    other = Other()
    other.__class__.__name__ = "Plain"
    assert str(other) == str(Plain())
    identities = [TorchNetwork.open(model, SHAPE).identity() for model in (Plain(), Plain(), other)]
    assert identities[0] == identities[1] != identities[2]
    changed = Plain()
    changed.fc.weight.data[0, 0] += 1e-6
    assert TorchNetwork.open(changed, SHAPE).identity() != identities[0]


def test_layers_of_folded_batches_and_of_loops_over_images() -> None:
    class Video(Plain):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = super().forward(x.flatten(0, 1)).reshape(*x.shape[:2], -1).mean(1)
            return y

    class Loop(Plain):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([super(Loop, self).forward(image[None]) for image in x])

    video = TorchNetwork.open(Video(), (2, 5, 3, 8, 8))
    assert [[(call.places, call.size) for call in layer.calls] for layer in video.layers] == [
        [(5, (8, 8))],
        [(5, (8, 8))],
        [(5, ())],
    ]
    loop = TorchNetwork.open(Loop(), (3, 3, 8, 8))
    assert [[(call.places, call.size) for call in layer.calls] for layer in loop.layers] == [
        [(1, (8, 8))],
        [(1, (8, 8))],
        [(1, ())],
    ]
    one = (3 * 16 + 16 * 16) * 9 * 64 + 160
    for network, times in ((video, 5), (loop, 1)):
        plan = decompose_network(network, ByCriterion("spatial", "rank:4")).plan
        assert plan.macs_before == times * one
        assert plan.macs_after == times * (one - 16 * 16 * 9 * 64 + 2 * 16 * 4 * 3 * 64)


@pytest.mark.parametrize("time_first", [False, True])
def test_folded_batches_are_calibrated(time_first: bool) -> None:
    class Video(Plain):
        def forward(self, x: Tensor) -> Tensor:
            if time_first:
                x = x.transpose(0, 1)
            y = super().forward(x.flatten(0, 1)).reshape(*x.shape[:2], -1)
            z: Tensor = y.mean(0 if time_first else 1)
            return z

    shape = (1, 4, 3, 8, 8)
    values = np.random.default_rng(0).standard_normal((24, *shape[1:]), dtype=np.float32)
    network = TorchNetwork.open(Video(), shape)
    found = decompose_network(network, ByBudget(macs=0.5), ArrayImages(values))
    assert found.plan.macs_after <= 0.5 * found.plan.macs_before
    plain = decompose_network(network, ByCriterion("spatial", f"rank:{found.plan.layers[1].rank}"))
    feeds = {"input": values}
    expected = network.run(feeds)["output"]
    errors = [
        np.square(small.network.run(feeds)["output"] - expected).mean() for small in (found, plain)
    ]
    assert errors[0] < 0.5 * errors[1]


def test_a_dead_layer_is_reported_without_a_number() -> None:
    class Dead(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.lossy = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.c1(x).relu()
            return self.end(x + self.c2(self.lossy(x)))

    model = Dead()
    nn.init.zeros_(model.c2.weight)
    assert model.c2.bias is not None
    nn.init.zeros_(model.c2.bias)
    small = decomposed(model, ByCriterion("spatial", "rank:4"), images())
    checks = {check.name: check for check in small.verify(seconds=0.1).layers}
    assert all(check.is_equivalent for check in checks.values())
    assert (checks["lossy"].output_error or 0.0) > 0.01
    dead = checks["c2"].output_error
    assert dead is None or dead == 0.0
    json.dumps([vars(check) for check in checks.values()], allow_nan=False)


def test_a_chain_for_another_network_is_refused() -> None:
    network = TorchNetwork.open(Plain(), SHAPE)
    weight, bias = network.weights("c2")
    chain = truncated(weight, bias, network.layers[1].op, scheme="channel", rank=4)
    for name, words in (("c1", r"c1 is 16->16 3x3 in it and 3->16"), ("c9", "no layer c9")):
        with pytest.raises(PlanError, match=words):
            network.rewritten({name: chain})


def test_a_chooser_may_be_anyones() -> None:
    class Everything:
        label = "mine"
        input_shape = None

        def check(self) -> None:
            """Nothing can be wrong."""

        def __call__(
            self, network: TorchNetwork, images: object, stages: Stages, label: str | None
        ) -> Choice:
            return ByCriterion("channel", "rank:2")(network, None, stages, label)

    network = TorchNetwork.open(Plain(), SHAPE)
    small = decompose_network(network, Everything())  # type: ignore[arg-type]
    assert [layer.scheme for layer in small.plan.rewritten] == ["channel"]
