"""A forward pass resumed from a cut sees what a whole one sees; a wrong cut is never made."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.networks.torch.branches import UNet
from tests.networks.torch.presets import preset
from trpexport.networks.samples import Samples
from trpexport.networks.torch.cuts import Cuts
from trpexport.networks.torch.modules import CONVOLUTIONS
from trpexport.networks.torch.observation import observe
from trpexport.networks.torch.replay import Replay

SHAPE = (1, 3, 32, 32)


@pytest.mark.parametrize("is_final", [False, True])
@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("resnet20", 0),
        ("resnet20", 300_000),
        ("resnet20", 1 << 30),
        ("preresnet20", 1 << 30),
        ("u-net", 300_000),
        ("u-net", 1 << 30),
    ],
)
def test_resumed_passes_see_what_whole_ones_see(name: str, memory: int, is_final: bool) -> None:
    model = UNet().eval() if name == "u-net" else preset(name)
    x = np.random.default_rng(0).standard_normal((66, *SHAPE[1:]), dtype=np.float32)
    images = Samples({"input": x})
    cuts = Cuts(model, SHAPE)
    replay = Replay(model, cuts, images, memory, is_final=is_final)
    convs = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    # Forwards in steps, and back to the first: a second job of the same network.
    for conv in [convs[3], convs[4], convs[-2], convs[-1], convs[1]]:
        replay.advance(conv)
        for index in (0, images.batches - 1):
            batch = replay.batch(index)
            seen = replay.observe(conv, index)
            module = model.get_submodule(conv)
            assert isinstance(module, CONVOLUTIONS)
            found, _ = observe(lambda batch=batch: batch.call(model), {conv: module}, {conv: 1})  # type: ignore[misc]
            whole = found[conv]
            torch.testing.assert_close(seen.inputs, whole.inputs)
            torch.testing.assert_close(seen.outputs, whole.outputs)
            torch.testing.assert_close(seen.shortcut, whole.shortcut)
            torch.testing.assert_close(seen.scale, whole.scale)


@pytest.mark.parametrize(("memory", "passes"), [(1 << 30, 1), (0, 3)])
def test_layers_of_a_final_network_are_observed_together(memory: int, passes: int) -> None:
    model = preset("resnet20")
    x = np.ones((4, *SHAPE[1:]), dtype=np.float32)
    images = Samples({"input": x})
    cuts = Cuts(model, SHAPE)
    block = ["layer2.0.conv1", "layer2.0.conv2", "layer2.0.downsample.0"]
    assert cuts.layers_after(cuts.before(block[0])) == block
    replay = Replay(model, cuts, images, memory, is_final=True)
    replay.advance(block[0])
    ran = list[int]()
    model.get_submodule("layer2.0.conv1").register_forward_hook(lambda *_: ran.append(1))
    for layer in block:
        replay.advance(layer)
        replay.observe(layer, 0)
    assert len(ran) == passes


@pytest.mark.parametrize(("memory", "passes"), [(1 << 30, 2), (0, 4)])
def test_a_final_network_runs_once_from_cut_to_cut(memory: int, passes: int) -> None:
    model = preset("resnet20")
    x = np.random.default_rng(0).standard_normal((66, *SHAPE[1:]), dtype=np.float32)
    cuts = Cuts(model, SHAPE)
    replay = Replay(model, cuts, Samples({"input": x}), memory, is_final=True)
    ran = list[int]()
    replay.advance("layer1.1.conv1")
    cuts.behind(None)  # all are found before runs are counted
    model.get_submodule("layer1.1.conv1").register_forward_hook(lambda *_: ran.append(1))
    for index in range(2):
        replay.observe("layer1.1.conv1", index)
    replay.advance("layer1.2.conv1")
    (found,) = replay.observe("layer1.2.conv1", 1).inputs
    assert len(ran) == passes
    afresh = Replay(model, cuts, Samples({"input": x}), 0)
    torch.testing.assert_close(found, afresh.inputs("layer1.2.conv1", 1)[0])


def test_every_call_of_a_shared_convolution_is_seen() -> None:
    conv = nn.Conv2d(4, 4, 1)
    model = nn.Sequential(conv, nn.ReLU(), conv).eval()
    cuts = Cuts(model, (1, 4, 6, 6))
    assert cuts.calls("0") == 2
    x = torch.randn(2, 4, 6, 6)
    seen = observe(lambda: model(x), {"0": conv}, {"0": 2})[0]["0"]
    assert len(seen.inputs) == len(seen.outputs) == 2
    assert cuts.before("0") is None


def test_the_network_is_left_as_it_was() -> None:
    model = preset("resnet20").train()
    before = copy.deepcopy(model.state_dict())
    x = np.ones((4, *SHAPE[1:]), dtype=np.float32)
    replay = Replay(model, Cuts(model, SHAPE), Samples({"input": x}), 1 << 20)
    replay.advance("layer3.0.conv1")
    replay.observe("layer3.0.conv1", 0)
    assert model.training
    assert all("forward" not in vars(module) for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_inputs_are_those_that_are_observed_and_the_layer_does_not_run() -> None:
    model = preset("resnet20")
    x = np.random.default_rng(0).standard_normal((4, *SHAPE[1:])).astype(np.float32)
    replay = Replay(model, Cuts(model, SHAPE), Samples({"input": x}), 1 << 20)
    ran = list[str]()
    for name in ("conv1", "layer2.0.conv1", "layer2.0.downsample.0", "fc"):
        replay.advance(name)
        (wanted,) = replay.observe(name, 0).inputs
        layer = model.get_submodule(name)
        handle = layer.register_forward_hook(lambda *_: ran.append("layer"))
        (found,) = replay.inputs(name, 0)
        handle.remove()
        assert torch.equal(found, wanted)
    assert not ran
    conv = nn.Conv2d(4, 4, 1)
    twice = nn.Sequential(conv, nn.ReLU(), conv).eval()
    images = Samples({"input": x[:, :1].repeat(4, axis=1)})
    replay = Replay(twice, Cuts(twice, (1, 4, *SHAPE[2:])), images, 1 << 20)
    for found, wanted in zip(replay.inputs("0", 0), replay.observe("0", 0).inputs, strict=True):
        assert torch.equal(found, wanted)
