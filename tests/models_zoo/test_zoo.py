"""Every member of the zoo: it builds, runs, and is recognised from its names and shapes alone."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

zoo = importlib.import_module("trpexport.models_zoo")

Shapes = dict[str, tuple[int, ...]]


@functools.cache
def shapes_of(text: str, num_classes: int = 10, in_channels: int = 3) -> Shapes:
    architecture = zoo.parse_architecture(text, num_classes=num_classes, in_channels=in_channels)
    with torch.device("meta"):
        network = architecture.build()
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def recognise(shapes: Shapes) -> list[str]:
    """Return the text form of each architecture whose names and shapes are exactly these."""
    matches = []
    for family in map(zoo.FAMILIES.__getitem__, zoo.FAMILIES):
        canonical = {family.canonical_name(key): shape for key, shape in shapes.items()}
        found = zoo.infer_architecture(family, canonical)
        if found and shapes_of(str(found), found.num_classes, found.in_channels) == canonical:
            matches.append(str(found))
    return matches


@pytest.mark.parametrize("name", list(zoo.PRESETS))
def test_exactly_one_family_recognises_a_preset(name: str) -> None:
    # The original TRP code's bottleneck has the names and shapes of the standard one.
    expected = name.replace("-trp", "-bottleneck") if name.startswith("resnet") else name
    assert recognise(shapes_of(name)) == [expected]


@pytest.mark.parametrize("name", list(zoo.PRESETS))
def test_parameters_alone_tell_the_configuration(name: str) -> None:
    family, _ = zoo.PRESETS[name]
    shapes = shapes_of(name)
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    parameters = {key: shape for key, shape in shapes.items() if not key.endswith(buffers)}
    assert zoo.infer_architecture(family, parameters) == zoo.infer_architecture(family, shapes)


def run(architecture: Any, size: int) -> torch.Tensor:
    network = architecture.build().eval()
    with torch.inference_mode():
        output: torch.Tensor = network(torch.randn(1, architecture.in_channels, size, size))
    return output


CIFAR = [
    name
    for name in zoo.PRESETS
    if zoo.parse_architecture(name, num_classes=10).input_shape[-1] == 32
]
# Those whose fresh weights are drawn in a moment; the others differ from them in settings only.
SMALL_IMAGENET = ["resnet18", "resnet50", "resnext50_32x4d", "alexnet-imagenet"]


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_network_runs(name: str) -> None:
    output = run(zoo.parse_architecture(name, num_classes=10), size=32)
    assert output.shape == (1, 10)
    assert output.isfinite().all()


@pytest.mark.parametrize("name", SMALL_IMAGENET)
def test_imagenet_network_runs_on_small_images(name: str) -> None:
    output = run(zoo.parse_architecture(name, num_classes=12, in_channels=1), size=64)
    assert output.shape == (1, 12)
    assert output.isfinite().all()


@pytest.mark.parametrize("name", ["resnet20", "preresnet20", "wrn-16-4", "resnext29-32x4d"])
def test_global_pooling_takes_other_image_sizes(name: str) -> None:
    assert run(zoo.parse_architecture(name, num_classes=10), size=48).shape == (1, 10)


def test_convolutions_are_drawn_with_variance_two_over_fan_out() -> None:
    network = zoo.parse_architecture("resnet56", num_classes=10).build()
    conv = network.get_submodule("layer3.8.conv2")
    assert isinstance(conv, nn.Conv2d)
    # 36,864 draws: the standard deviation is met within 2 % (more than 5 standard errors).
    assert float(conv.weight.detach().std()) == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


blocks = st.sampled_from(["basic", "bottleneck"])
few = st.integers(1, 3)
CONFIGS: dict[str, Any] = {
    "resnet_cifar": st.builds(
        dict,
        depth=few.map(lambda n: 6 * n + 2),
        block=blocks,
        shortcut=st.sampled_from(["projection", "subsample"]),
        width=st.integers(1, 40),
    ),
    "preresnet_cifar": st.builds(dict, depth=few.map(lambda n: 6 * n + 2), block=blocks),
    "resnext_cifar": st.builds(
        dict,
        depth=few.map(lambda n: 9 * n + 2),
        cardinality=st.integers(1, 33),
        base_width=st.integers(1, 65),
        widen_factor=st.integers(1, 5),
    ),
    "wideresnet": st.builds(
        dict, depth=few.map(lambda n: 6 * n + 4), widen_factor=st.integers(1, 12)
    ),
    "vgg": st.builds(
        dict,
        depth=st.sampled_from([11, 13, 16, 19]),
        batch_norm=st.booleans(),
        head=st.sampled_from(["cifar", "imagenet"]),
    ),
    "densenet_cifar": st.builds(
        dict,
        depth=few.map(lambda n: 6 * n + 4),
        block=blocks,
        growth_rate=st.integers(1, 48),
        compression=st.integers(1, 9),
    ),
    "alexnet": st.builds(dict, variant=st.sampled_from(["cifar", "trp", "imagenet"])),
    "resnet": st.one_of(
        st.builds(
            dict,
            block=st.just("bottleneck"),
            blocks=st.tuples(few, few, few, few).map(lambda counts: "-".join(map(str, counts))),
            groups=st.integers(1, 64),
            width_per_group=st.integers(1, 128),
            stem=st.sampled_from(["imagenet", "cifar"]),
        ),
        st.builds(
            dict,
            block=st.just("basic"),
            blocks=st.tuples(few, few, few, few).map(lambda counts: "-".join(map(str, counts))),
            groups=st.just(1),
            width_per_group=st.just(64),
            stem=st.sampled_from(["imagenet", "cifar"]),
        ),
    ),
}


def test_every_family_is_covered() -> None:
    assert set(CONFIGS) == set(zoo.FAMILIES)


@pytest.mark.parametrize("name", list(zoo.FAMILIES))
@settings(max_examples=6, deadline=None)
@given(data=st.data())
def test_infer_inverts_any_configuration(name: str, data: st.DataObject) -> None:
    """The network that infer describes has the same names and shapes, classes and channels."""
    family = zoo.FAMILIES[name]
    config = data.draw(CONFIGS[name])
    num_classes = data.draw(st.sampled_from([1, 10, 100, 1000]))
    in_channels = data.draw(st.sampled_from([1, 3, 4]))
    shapes = shapes_of(family.describe(config), num_classes, in_channels)
    found = zoo.infer_architecture(family, shapes)
    assert found is not None
    assert (found.num_classes, found.in_channels) == (num_classes, in_channels)
    assert shapes_of(str(found), num_classes, in_channels) == shapes


DAMAGED = [
    "resnet20",
    "preresnet20-bottleneck",
    "resnext29-32x4d",
    "wrn-16-4",
    "vgg11_bn",
    "densenet-40-12",
    "alexnet-trp",
    "resnet18",
]


@pytest.mark.parametrize("name", DAMAGED)
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_no_damage_makes_infer_raise(name: str, data: st.DataObject) -> None:
    """Whatever is missing or misshapen: None, or an architecture that can be built."""
    shapes = dict(shapes_of(name))
    sizes = st.one_of(st.integers(0, 3), st.sampled_from([16, 64, 1000, 10**6, 2**62]))
    for key in data.draw(st.lists(st.sampled_from(sorted(shapes)), min_size=1, max_size=60)):
        if data.draw(st.booleans()):
            shapes.pop(key, None)
        else:
            shapes[key] = tuple(data.draw(st.lists(sizes, max_size=5)))
    for family in map(zoo.FAMILIES.__getitem__, zoo.FAMILIES):
        found = zoo.infer_architecture(family, shapes)
        if found is not None:
            with torch.device("meta"):
                found.build()


@pytest.mark.parametrize("name", list(zoo.FAMILIES))
def test_strange_shapes_are_nobodys(name: str) -> None:
    family = zoo.FAMILIES[name]
    assert zoo.infer_architecture(family, {}) is None
    assert zoo.infer_architecture(family, {"conv1.weight": (), "features.0.weight": ()}) is None
