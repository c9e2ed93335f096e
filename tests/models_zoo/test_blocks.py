"""Blocks against their formulas, written out with functions."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

zoo = importlib.import_module("trpexport.models_zoo")
resnet_cifar = importlib.import_module("trpexport.models_zoo.resnet_cifar")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def block_of(text: str, name: str) -> Any:
    """Return one block of a network in evaluation mode, with batch norms that do something."""
    network = zoo.parse_architecture(text, num_classes=10).build().eval()
    for key, tensor in network.state_dict().items():
        if key.endswith("running_var"):
            nn.init.uniform_(tensor, 0.5, 2)
        elif tensor.ndim == 1:
            nn.init.normal_(tensor)
    return network.get_submodule(name).requires_grad_(False)


def same(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected)


def test_subsample_pads_zeros_on_both_sides() -> None:
    x = torch.randn(2, 16, 8, 8)
    y = resnet_cifar.ZeroPadded(16, 32, 2)(x)
    assert y.shape == (2, 32, 4, 4)
    assert not y[:, :8].any()
    assert not y[:, 24:].any()
    same(y[:, 8:24], x[:, :, [0, 2, 4, 6]][..., [0, 2, 4, 6]])


def test_subsample_widens_without_stride_before_bottlenecks() -> None:
    x = torch.randn(2, 16, 8, 8)
    y = resnet_cifar.ZeroPadded(16, 64, 1)(x)
    assert y.shape == (2, 64, 8, 8)
    same(y[:, 24:40], x)
    assert int((y != 0).sum()) == int((x != 0).sum())


def test_subsample_puts_an_odd_channel_behind() -> None:
    y = resnet_cifar.ZeroPadded(1, 4, 1)(torch.ones(1, 1, 1, 1))
    assert y.flatten().tolist() == [0, 1, 0, 0]


@pytest.mark.parametrize(("kind", "has_relu"), [("bottleneck", True), ("bottleneck-trp", False)])
def test_only_the_trp_bottleneck_lacks_the_second_relu(kind: str, has_relu: bool) -> None:
    b = block_of(f"resnet_cifar(depth=8,block={kind},shortcut=projection,width=4)", "layer2.0")
    x = torch.randn(2, 16, 8, 8)
    y = b.bn2(b.conv2(relu(b.bn1(b.conv1(x)))))
    y = b.bn3(b.conv3(relu(y) if has_relu else y))
    same(b(x), relu(y + b.downsample(x)))
    assert b(x).shape == (2, 32, 4, 4)


def test_basic_block() -> None:
    b = block_of("resnet20", "layer3.0")
    x = torch.randn(2, 32, 8, 8)
    y = b.bn2(b.conv2(relu(b.bn1(b.conv1(x)))))
    same(b(x), relu(y + b.downsample(x)))


@pytest.mark.parametrize("name", ["layer1.0", "layer1.1", "layer2.0"])
def test_preactivation_shortcut_sees_the_raw_input(name: str) -> None:
    b = block_of("preresnet20-bottleneck", name)
    x = torch.randn(2, b.bn1.num_features, 8, 8)
    y = b.conv1(relu(b.bn1(x)))
    y = b.conv3(relu(b.bn3(b.conv2(relu(b.bn2(y))))))
    same(b(x), y + (x if name == "layer1.1" else b.downsample[0](x)))


@pytest.mark.parametrize("name", ["block2.layer.0", "block2.layer.1"])
def test_wide_shortcut_sees_the_activated_input_when_it_has_weights(name: str) -> None:
    b = block_of("wrn-16-4", name)
    x = torch.randn(2, b.bn1.num_features, 8, 8)
    activated = relu(b.bn1(x))
    y = b.conv2(relu(b.bn2(b.conv1(activated))))
    same(b(x), y + (b.convShortcut(activated) if name.endswith("0") else x))


def test_resnext_block() -> None:
    b = block_of("resnext29-32x4d", "stage_2.stage_2_bottleneck_0")
    x = torch.randn(2, 256, 8, 8)
    y = relu(b.bn(b.conv_conv(relu(b.bn_reduce(b.conv_reduce(x))))))
    y = b.bn_expand(b.conv_expand(y))
    same(b(x), relu(y + b.shortcut.shortcut_bn(b.shortcut.shortcut_conv(x))))
    assert (b.conv_conv.groups, b.conv_conv.stride) == (32, (2, 2))


def test_dense_layers_append_to_their_input() -> None:
    x = torch.randn(2, 24, 8, 8)
    b = block_of("densenet-40-12", "dense1.0")
    same(b(x), torch.cat([x, b.conv1(relu(b.bn1(x)))], 1))
    b = block_of("densenet-bc-100-12", "dense1.0")
    same(b(x), torch.cat([x, b.conv2(relu(b.bn2(b.conv1(relu(b.bn1(x))))))], 1))


def test_transition_halves_size_and_channels() -> None:
    b = block_of("densenet-bc-100-12", "trans1")
    x = torch.randn(2, b.bn1.num_features, 8, 8)
    same(b(x), avg_pool2d(b.conv1(relu(b.bn1(x))), 2))
    assert b(x).shape == (2, b.bn1.num_features // 2, 4, 4)
