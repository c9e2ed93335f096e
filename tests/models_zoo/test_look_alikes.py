"""Members whose weights have the same names and shapes, and what they compute."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import pytest
import torch
from torch import Tensor, nn

zoo = importlib.import_module("trpexport.models_zoo")
layers = importlib.import_module("trpexport.models_zoo.layers")
resnet_cifar = importlib.import_module("trpexport.models_zoo.resnet_cifar")
resnet_imagenet = importlib.import_module("trpexport.models_zoo.resnet_imagenet")

# Of these there are shallower ones, which are quicker to build.
DEEP = ("101", "110", "152", "164", "1001", "1202", "34", "44", "56", "vgg16", "vgg19")
# One small member of each group of look-alikes.
SMALL = [
    "resnet_cifar(depth=8,block=basic,shortcut=subsample,width=4)",
    "resnet_cifar(depth=8,block=bottleneck,shortcut=projection,width=4)",
    "preresnet_cifar(depth=8,block=basic)",
    "preresnet_cifar(depth=8,block=bottleneck)",
    "wideresnet(depth=10,widen_factor=1)",
    "resnet(block=basic,blocks=1-1-1-1,groups=1,width_per_group=64,stem=cifar)",
    "resnet(block=bottleneck,blocks=1-1-1-1,groups=1,width_per_group=64,stem=imagenet)",
    "vgg(depth=11,batch_norm=True,head=cifar)",
]


def parse(text: str) -> Any:
    return zoo.parse_architecture(text, num_classes=10)


@functools.cache
def shapes_of(text: str) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        network = parse(text).build()
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("text", SMALL)
def test_look_alikes_have_the_same_weights_and_compute_something_else(text: str) -> None:
    first = parse(text)
    networks = {str(one): one for one in (first, *first.look_alikes)}
    assert len(networks) > 1
    torch.manual_seed(0)
    # Signs alternate, and pixels differ: nothing averages out by symmetry.
    x = torch.randn(2, 3, 64, 64)
    outputs = []
    state = first.build().state_dict()
    for name, architecture in networks.items():
        assert shapes_of(name) == shapes_of(text)
        assert zoo.parse_architecture(name, num_classes=10) == architecture
        network = architecture.build().eval()
        network.load_state_dict(state)
        with torch.no_grad():
            outputs.append(network(x))
    for index, output in enumerate(outputs):
        for other in outputs[:index]:
            assert float((output - other).abs().max()) > 1e-4 * float(output.abs().max())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * any(deep in name for deep in DEEP))
        for name in zoo.PRESETS
    ],
)
def test_a_preset_has_the_names_and_shapes_of_its_look_alikes(name: str) -> None:
    for other in parse(name).look_alikes:
        assert shapes_of(str(other)) == shapes_of(name)
        assert parse(str(other)) == other


def test_the_nearest_come_first() -> None:
    texts = [str(one) for one in parse("resnet20-bottleneck-a").look_alikes]
    assert len(texts) == 3 * 4 - 1
    assert texts[:5] == [
        "resnet20-bottleneck-a(shortcut=subsample-behind)",
        "resnet20-bottleneck-a(shortcut=average)",
        "resnet20-bottleneck-a(shortcut=average-behind)",
        "resnet20-bottleneck-a(block=bottleneck-trp)",
        "resnet20-bottleneck-a(block=bottleneck-v1)",
    ]


def test_a_preset_takes_settings_of_its_own() -> None:
    text = "resnet_cifar(depth=56,block=basic,shortcut=average-behind,width=16)"
    assert str(parse(text)) == "resnet56-a(shortcut=average-behind)"
    assert parse("resnet56-a(shortcut=average-behind)") == parse(text)
    assert str(parse("resnet56-bottleneck(block=bottleneck-trp)")) == "resnet56-trp"
    # What a text does not say is what it was before there was such a setting.
    assert parse("wideresnet(depth=16,widen_factor=4)") == parse("wrn-16-4")


@pytest.mark.parametrize("name", ["densenet-40-12", "resnext29-8x64d", "alexnet", "resnet20"])
def test_others_have_none(name: str) -> None:
    assert parse(name).look_alikes == ()


X = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]).repeat(2, 1)[None, None]


@pytest.mark.parametrize(
    ("shortcut", "place", "first_row"),
    [
        ("subsample", 1, [1.0, 3.0]),
        ("subsample-behind", 0, [1.0, 3.0]),
        ("average", 1, [3.5, 5.5]),  # (1 + 2 + 5 + 6) / 4, (3 + 4 + 7 + 8) / 4
        ("average-behind", 0, [3.5, 5.5]),
    ],
)
def test_shortcuts_without_weights(shortcut: str, place: int, first_row: list[float]) -> None:
    y = resnet_cifar.SHORTCUTS[shortcut](1, 4, 2)(X)
    assert y.shape == (1, 4, 2, 2)
    assert y[0, place, 0].tolist() == first_row
    assert float(y.abs().sum()) == float(y[0, place].sum())


@pytest.mark.parametrize(
    ("stem", "size"),
    [
        ("imagenet", 15),  # 58 -> 29 by stride 2, -> 15 by a padded pooling
        ("imagenet-ceil", 14),  # 29 -> (29 - 3) / 2 + 1, without padding
        ("imagenet-unpooled", 29),
        ("cifar", 58),
        ("cifar-pooled", 29),
        ("cifar-strided", 29),
        ("cifar-strided-pooled", 15),
    ],
)
def test_stems(stem: str, size: int) -> None:
    modules = resnet_imagenet._stem(stem, 3)
    y: Tensor = nn.Sequential(*modules.values())(torch.zeros(1, 3, 58, 58))
    assert y.shape == (1, 64, size, size)


@pytest.mark.parametrize(("stride_first", "inner"), [(False, 8), (True, 4)])
def test_where_a_bottleneck_has_its_stride(stride_first: bool, inner: int) -> None:
    block = layers.Bottleneck(
        8, 2, layers.projection(8, 16, 2), width=4, out_channels=16, stride_first=stride_first
    )
    assert block.conv1(torch.zeros(1, 8, 8, 8)).shape[-1] == inner
    assert block(torch.zeros(1, 8, 8, 8)).shape == (1, 16, 4, 4)


def test_a_last_stage_that_keeps_the_size() -> None:
    network = parse("resnet18-cifar(last_stride=1)").build()
    assert (network.layer3[0].conv1.stride, network.layer4[0].conv1.stride) == ((2, 2), (1, 1))
    assert network.layer4[0].downsample[0].stride == (1, 1)
