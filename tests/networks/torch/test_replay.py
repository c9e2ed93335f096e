"""A forward pass resumed from a cut sees what a whole one sees; a wrong cut is never made."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trpexport.networks.torch.images import checked_images
from trpexport.networks.torch.observation import Observation, observe
from trpexport.networks.torch.replay import Cuts, Replay

SHAPE = (1, 3, 32, 32)


def preset(name: str) -> nn.Module:
    torch.manual_seed(0)
    zoo = importlib.import_module("trpexport.models_zoo")
    model: nn.Module = zoo.parse_architecture(name, num_classes=10).build().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def observed(conv: nn.Module, run: Callable[[], Tensor], calls: int = 1) -> Observation:
    return observe(run, {"it": conv}, {"it": calls})["it"]


@pytest.mark.parametrize("is_final", [False, True])
@pytest.mark.parametrize(
    ("name", "memory"),
    [("resnet20", 0), ("resnet20", 300_000), ("resnet20", 1 << 30), ("preresnet20", 1 << 30)],
)
def test_resumed_passes_see_what_whole_ones_see(name: str, memory: int, is_final: bool) -> None:
    model = preset(name)
    x = np.random.default_rng(0).standard_normal((66, *SHAPE[1:]), dtype=np.float32)
    images = checked_images(model, x, SHAPE)
    cuts = Cuts(model, SHAPE)
    replay = Replay(model, cuts, memory, is_final=is_final)
    convs = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    # Forwards in steps, and back to the first: a second job of the same network.
    for conv in [convs[3], convs[4], convs[9], convs[-1], convs[1]]:
        replay.advance(conv, images)
        for index in (0, images.batches - 1):
            batch = images.batch(index)
            seen = replay.observe(conv, index, batch)
            module = model.get_submodule(conv)
            whole = observed(module, lambda batch=batch: model(batch))  # type: ignore[misc]
            torch.testing.assert_close(seen.inputs, whole.inputs)
            torch.testing.assert_close(seen.outputs, whole.outputs)
            torch.testing.assert_close(seen.shortcut, whole.shortcut)
            torch.testing.assert_close(seen.scale, whole.scale)


@pytest.mark.parametrize(("memory", "passes"), [(1 << 30, 1), (0, 3)])
def test_layers_of_a_final_network_are_observed_together(memory: int, passes: int) -> None:
    model = preset("resnet20")
    x = np.ones((4, *SHAPE[1:]), dtype=np.float32)
    images = checked_images(model, x, SHAPE)
    cuts = Cuts(model, SHAPE)
    block = ["layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"]
    assert cuts.convolutions_after(cuts.before(block[0])) == block
    replay = Replay(model, cuts, memory, is_final=True)
    replay.advance(block[0], images)
    ran = list[int]()
    model.get_submodule("layer2.0.conv1").register_forward_hook(lambda *_: ran.append(1))
    for layer in block:
        replay.advance(layer, images)
        replay.observe(layer, 0, images.batch(0))
    assert len(ran) == passes


def test_observations_of_two_convolutions_that_are_added() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
            self.bn = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            left = self.bn(self.a(x))
            left += self.b(x)
            return torch.relu_(left)

    torch.manual_seed(0)
    model, x = Fork().eval(), torch.randn(2, 3, 6, 6)
    both = observe(lambda: model(x), {"a": model.a, "b": model.b}, {"a": 1, "b": 1})
    with torch.no_grad():
        torch.testing.assert_close(both["a"].shortcut, model.b(x))
        torch.testing.assert_close(both["b"].shortcut, model.bn(model.a(x)))
    assert both["b"].scale is None


def test_residual_blocks_are_cuts_and_what_lies_inside_is_not() -> None:
    cuts = Cuts(preset("resnet20"), SHAPE)
    inside = cuts.before("layer2.1.conv2")
    after = cuts.before("layer3.0.conv1")
    assert inside is not None
    assert after is not None
    assert inside.name == "layer2.0"
    assert after.name in ("layer2", "layer2.2")
    assert cuts.before("conv1") is None


class Skips(nn.Module):
    """The input is used again at the very end: nothing in between is a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 3, 3, padding=1)
        self.b = nn.Conv2d(3, 3, 3, padding=1)
        self.c = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        y: Tensor = self.c(torch.relu_(self.b(first)))
        both: Tensor = y + first
        return both


def test_no_cut_where_something_goes_around_it() -> None:
    cuts = Cuts(Skips().eval(), (1, 3, 8, 8))
    between = cuts.before("b")
    assert between is not None
    assert between.name == "a"
    across = cuts.before("c")
    assert across is not None
    assert across.name == "a"


class Block(nn.Module):
    def __init__(self, *, inplace: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.inplace = inplace
        nn.init.uniform_(self.bn.weight, 0.5, 2)
        nn.init.uniform_(self.bn.running_var, 0.5, 2)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        if self.inplace:
            y += x
            return torch.relu_(y)
        return torch.relu(x + y)


@pytest.mark.parametrize("inplace", [True, False])
def test_the_shortcut_and_the_scale_are_seen(inplace: bool) -> None:
    torch.manual_seed(0)
    model, x = Block(inplace=inplace).eval(), torch.randn(2, 4, 6, 6)
    seen = observed(model.conv, lambda: model(x))
    with torch.no_grad():
        expected = model.conv(x)
    torch.testing.assert_close(seen.inputs, [x])
    torch.testing.assert_close(seen.outputs, [expected])
    torch.testing.assert_close(seen.shortcut, x)
    assert seen.scale is not None
    shifted = model.bn(expected + 1) - model.bn(expected)
    torch.testing.assert_close(seen.scale, shifted[0, :, 0, 0].detach())


def test_no_shortcut_where_none_is_added() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1)).eval()
    x = torch.randn(2, 4, 6, 6)
    for conv in (model[0], model[2]):
        seen = observed(conv, lambda: model(x))
        assert seen.shortcut is None
        assert seen.scale is None
    # The in-place ReLU behind it has not touched what was seen.
    assert float(observed(model[0], lambda: model(x)).outputs[0].min()) < 0


def test_nothing_runs_once_an_output_is_joined_to_others() -> None:
    class Dense(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(7, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.last(torch.cat([x, self.conv(x)], dim=1))
            return y

    model, ran = Dense().eval(), list[int]()
    model.last.register_forward_hook(lambda *_: ran.append(1))
    assert observed(model.conv, lambda: model(torch.randn(1, 3, 6, 6))).shortcut is None
    assert not ran


def test_every_call_of_a_shared_convolution_is_seen() -> None:
    conv = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(conv, nn.ReLU(), conv).eval()
    cuts = Cuts(model, (1, 4, 6, 6))
    assert cuts.calls("0") == 2
    seen = observed(conv, lambda: model(torch.randn(2, 4, 6, 6)), calls=2)
    assert len(seen.inputs) == len(seen.outputs) == 2
    assert cuts.before("0") is None


def test_the_network_is_left_as_it_was() -> None:
    model = preset("resnet20").train()
    before = copy.deepcopy(model.state_dict())
    x = np.ones((4, *SHAPE[1:]), dtype=np.float32)
    replay = Replay(model, Cuts(model, SHAPE), 1 << 20)
    images = checked_images(model, x, SHAPE)
    replay.advance("layer3.0.conv1", images)
    replay.observe("layer3.0.conv1", 0, images.batch(0))
    assert model.training
    assert all("forward" not in vars(module) for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
