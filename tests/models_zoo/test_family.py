"""The text form of architectures, their errors, and what helps to read shapes."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from trpexport.errors import ArchitectureError

zoo = importlib.import_module("trpexport.models_zoo")
family = importlib.import_module("trpexport.models_zoo.family")

OTHERS = [
    "resnet_cifar(depth=26,block=basic,shortcut=projection,width=16)",
    "resnet_cifar(depth=20,block=basic,shortcut=subsample,width=24)",
    "resnet_cifar(depth=50,block=bottleneck-trp,shortcut=projection,width=16)",
    "preresnet_cifar(depth=26,block=bottleneck)",
    "resnext_cifar(depth=38,cardinality=4,base_width=32,widen_factor=2)",
    "wideresnet(depth=22,widen_factor=3)",
    "densenet_cifar(depth=22,block=bottleneck,growth_rate=24,compression=1)",
    "resnet(block=bottleneck,blocks=2-2-2-2,groups=1,width_per_group=64,stem=imagenet)",
    "resnet(block=bottleneck,blocks=1-1-1-1,groups=8,width_per_group=16,stem=cifar)",
]


@pytest.mark.parametrize("text", [*zoo.PRESETS, *OTHERS])
def test_text_form_is_read_back(text: str) -> None:
    architecture = zoo.parse_architecture(text, num_classes=7, in_channels=1)
    assert str(architecture) == text
    assert zoo.parse_architecture(str(architecture), num_classes=7, in_channels=1) == architecture
    assert (architecture.num_classes, architecture.in_channels) == (7, 1)


@pytest.mark.parametrize("name", list(zoo.PRESETS))
def test_preset_written_out_is_that_preset(name: str) -> None:
    """Also with the settings in another order and with spaces."""
    member, config = zoo.PRESETS[name]
    settings = " , ".join(f"{key} = {value}" for key, value in reversed(config.items()))
    written_out = zoo.parse_architecture(f" {member.name}({settings}) ", num_classes=10)
    assert str(written_out) == name


def test_settings_keep_the_order_of_the_presets() -> None:
    architecture = zoo.parse_architecture("wideresnet(widen_factor=3,depth=22)", num_classes=10)
    assert str(architecture) == "wideresnet(depth=22,widen_factor=3)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet2", "did you mean .*resnet20"),
        ("", "choose from"),
        ("resnet_cifra(depth=20)", "did you mean .*resnet_cifar"),
        ("wideresnet(depth=16,wide=4)", "no setting 'wide': choose from depth, widen_factor"),
        ("wideresnet(16,4)", "no setting '16'"),
        ("wideresnet(depth=16)", "needs widen_factor as well"),
        ("wideresnet()", "needs depth, widen_factor as well"),
        ("wideresnet(depth=deep,widen_factor=4)", "depth='deep' can't be used"),
        ("wideresnet(depth=,widen_factor=4)", "depth='' can't be used"),
        ("wideresnet(depth=0,widen_factor=4)", "depth='0' can't be used"),
        ("wideresnet(depth=-16,widen_factor=4)", "depth='-16' can't be used"),
        ("wideresnet(depth=16,widen_factor=1000000)", "widen_factor='1000000' can't be used"),
        ("vgg(depth=16,batch_norm=yes,head=cifar)", "batch_norm='yes' can't be used"),
        ("vgg(depth=16,batch_norm=True,head=)", "head='' can't be used"),
    ],
)
def test_wrong_text_says_what_to_do(text: str, message: str) -> None:
    with pytest.raises(ArchitectureError, match=message) as caught:
        zoo.parse_architecture(text, num_classes=10)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resnet_cifar(depth=21,block=basic,shortcut=projection,width=16)", "give 6n\\+2"),
        ("resnet_cifar(depth=2,block=basic,shortcut=projection,width=16)", "give 6n\\+2"),
        ("resnet_cifar(depth=20,block=wide,shortcut=projection,width=16)", "choose from basic"),
        ("resnet_cifar(depth=20,block=basic,shortcut=none,width=16)", "choose from projection"),
        ("preresnet_cifar(depth=20,block=bottleneck-trp)", "choose from basic, basic-"),
        ("resnext_cifar(depth=30,cardinality=8,base_width=64,widen_factor=4)", "give 9n\\+2"),
        ("wideresnet(depth=20,widen_factor=4)", "give 6n\\+4"),
        ("densenet_cifar(depth=43,block=bottleneck,growth_rate=12,compression=2)", "6n\\+4"),
        ("densenet_cifar(depth=41,block=basic,growth_rate=12,compression=2)", "3n\\+4"),
        ("vgg(depth=12,batch_norm=True,head=cifar)", "give 11, 13, 16, 19"),
        ("vgg(depth=11,batch_norm=True,head=mnist)", "choose from cifar, imagenet"),
        ("alexnet(variant=mnist)", "choose from cifar, trp, imagenet"),
        ("resnet(block=basic,blocks=2-2,groups=1,width_per_group=64,stem=cifar)", "3-4-6-3"),
        ("resnet(block=basic,blocks=2-0-2-2,groups=1,width_per_group=64,stem=cifar)", "3-4-6-3"),
        ("resnet(block=basic,blocks=2-2-2-2,groups=2,width_per_group=64,stem=cifar)", "groups=1"),
        ("resnet(block=basic,blocks=2-2-2-2,groups=1,width_per_group=64,stem=mnist)", "imagenet"),
    ],
)
def test_impossible_network_says_what_is_possible(text: str, message: str) -> None:
    architecture = zoo.parse_architecture(text, num_classes=10)
    with pytest.raises(ArchitectureError, match=message) as caught:
        architecture.build()
    assert "\n" not in str(caught.value)


def test_input_shape_follows_the_configuration() -> None:
    def input_shape(name: str) -> Any:
        return zoo.parse_architecture(name, num_classes=10, in_channels=4).input_shape

    assert input_shape("resnet20") == (1, 4, 32, 32)
    assert input_shape("resnet18") == (1, 4, 224, 224)
    assert input_shape("resnet18-cifar") == (1, 4, 32, 32)
    assert input_shape("vgg16_bn") == (1, 4, 32, 32)
    assert input_shape("vgg16_bn-imagenet") == (1, 4, 224, 224)
    assert input_shape("alexnet-trp") == (1, 4, 32, 32)
    assert input_shape("alexnet-imagenet") == (1, 4, 224, 224)


@pytest.mark.parametrize("name", ["resnet_cifar", "resnet"])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("linear.weight", "fc.weight"),
        ("layer2.0.shortcut.1.bias", "layer2.0.downsample.1.bias"),
        ("layer2.0.conv1.weight", "layer2.0.conv1.weight"),
        ("head.linear.weight", "head.linear.weight"),
    ],
)
def test_names_of_other_code_bases(name: str, theirs: str, ours: str) -> None:
    assert zoo.FAMILIES[name].canonical_name(theirs) == ours
    assert zoo.FAMILIES[name].canonical_name(ours) == ours


def test_count_children() -> None:
    shapes = {"a.0.w": (1,), "a.0.b": (1,), "a.1.c.w": (1,), "ab.2.w": (1,), "a": (1,)}
    assert family.count_children(shapes, "a") == 2
    assert family.count_children(shapes, "a.1") == 1
    with pytest.raises(LookupError):
        family.count_children(shapes, "b")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5, 6), {"n": 5, "deep": True}), ((5,), None), ((0, 6), None), ((10**12, 6), None)],
)
def test_none_on_misfit(shape: tuple[int, ...], expected: Any) -> None:
    @family.none_on_misfit  # type: ignore[untyped-decorator]
    def infer(shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
        n, other = shapes["weight"]
        return {"n": n, "deep": other > 1}

    assert infer({"weight": shape}) == expected
    assert infer({}) is None
