"""Recognising architectures."""

from __future__ import annotations

import dataclasses
import importlib
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trpexport.checkpoints import identify, read_state_dict
from trpexport.checkpoints.identify import (
    WithoutRandomNumbers,
    match_architecture,
    match_network,
    shapes_of,
)
from trpexport.errors import ArchitectureError

Shapes = dict[str, tuple[int, ...]]


@pytest.fixture
def shapes(weights: dict[str, Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


@pytest.mark.parametrize(
    ("file", "name"),
    [("resnet20-12fca82f.th", "resnet20-a"), ("resnet32-d509ac18.th", "resnet32-a")],
)
def test_real_checkpoints(shared: Path, file: str, name: str) -> None:
    tensors = read_state_dict(shared / "checkpoints" / file).tensors
    match = identify({key: tuple(tensor.shape) for key, tensor in tensors.items()})
    assert str(match.architecture) == name
    assert (match.architecture.num_classes, match.architecture.in_channels) == (10, 3)
    assert match.reading.names["fc.weight"] == "module.linear.weight"


def test_class_count_and_channels_come_from_the_weights(shapes: Shapes, small: Any) -> None:
    match = identify(shapes)
    assert match.architecture == small
    assert (match.architecture.num_classes, match.architecture.in_channels) == (7, 1)
    assert match.reading.note is None


@pytest.mark.parametrize("prefix", ["module.", "model.", "module.model.", "net._orig_mod."])
def test_prefixes(shapes: Shapes, small: Any, prefix: str) -> None:
    match = identify({prefix + name: shape for name, shape in shapes.items()})
    assert match.architecture == small
    assert match.reading.names["fc.weight"] == f"{prefix}fc.weight"


def test_names_of_other_code_bases(shapes: Shapes, small: Any) -> None:
    def foreign(name: str) -> str:
        return name.replace("fc.", "linear.").replace(".downsample.", ".shortcut.")

    match = identify({foreign(name): shape for name, shape in shapes.items()})
    assert match.architecture == small
    assert dict(match.reading.names) == {name: foreign(name) for name in shapes}


def test_files_without_batch_counters(shapes: Shapes, small: Any) -> None:
    old = {name: shape for name, shape in shapes.items() if "num_batches" not in name}
    assert len(old) < len(shapes)
    assert identify(old).architecture == small


def test_look_alikes_are_ambiguous(
    shapes: Shapes, zoo: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = zoo.FAMILIES["resnet_cifar"]
    twin = dataclasses.replace(family, name="twin_resnet", presets={})
    monkeypatch.setitem(zoo.FAMILIES._entries, "twin_resnet", twin)
    with pytest.raises(ArchitectureError) as caught:
        identify(shapes)
    message = str(caught.value)
    assert "fit several architectures (resnet_cifar(depth=8," in message
    assert ", twin_resnet(depth=8," in message
    assert message.endswith("choose one of them")


def test_a_nearly_known_network_gives_the_difference(shapes: Shapes) -> None:
    del shapes["layer3.0.bn2.bias"]
    shapes["extra.weight"] = (3,)
    with pytest.raises(ArchitectureError) as caught:
        identify(shapes)
    message = str(caught.value)
    assert (
        "nearest are resnet_cifar(depth=8,block=basic,shortcut=projection,width=2) (98%" in message
    )
    assert "the file lacks layer3.0.bn2.bias; the network has no extra.weight" in message
    assert message.endswith("; name it, or bring your own network as package.module:factory")
    assert caught.value.parameters == ("arch", "model")


def test_an_unknown_network_gives_the_nearest_presets(zoo: ModuleType) -> None:
    # Nothing can be inferred without the first convolution, so presets are compared.
    shapes = dict(shapes_of(zoo.parse_architecture("resnet20", num_classes=4).build()))
    del shapes["conv1.weight"]
    started = time.monotonic()
    with pytest.raises(ArchitectureError) as caught:
        identify(shapes)
    # Every module but the first: 107 of the 108 names that count (19 convolutions of the body and
    # the shortcuts' 2, 4 for each of 21 batch norms, 2 of the classifier, and the stem's).
    assert "nearest are resnet20 (99% of names and shapes), " in str(caught.value)
    assert "to resnet20: the file lacks conv1.weight; name it, or" in str(caught.value)
    assert time.monotonic() - started < 20  # seconds; two on an idle machine


@pytest.mark.parametrize("shapes", [{}, {"a": ()}, {"w": (10, 3)}, {"": (1,)}, {"a..b": (2, 2)}])
def test_nothing_alike(shapes: Shapes, zoo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo.PRESETS, "_entries", {"resnet20": zoo.PRESETS["resnet20"]})
    with pytest.raises(ArchitectureError, match="no architecture of the zoo has such parameters"):
        identify(shapes)


def test_recognition_needs_no_compiler_stack() -> None:
    # Random initialisation on the meta device would import it, which takes seconds.
    script = """
import importlib, sys
from trpexport.checkpoints.identify import identify, shapes_of
zoo = importlib.import_module("trpexport.models_zoo")
shapes = shapes_of(zoo.parse_architecture("vgg16", num_classes=4).build())
assert "torch._dynamo" not in sys.modules, "before"
identify(shapes)
assert "torch._dynamo" not in sys.modules, "after"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def match(text: str, shapes: Shapes) -> Any:
    return match_architecture(text, shapes, remedy="mend it").architecture


def test_a_named_architecture(shapes: Shapes, small: Any) -> None:
    assert match(str(small), shapes) == small
    assert match(str(small), {f"module.{name}": s for name, s in shapes.items()}) == small


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "resnet20",
            r"not resnet20's: the file lacks layer1\.1\.conv1\.weight.* 16x1x3x3 in the net",
        ),
        ("vgg16", r"not vgg16's: the file lacks features"),
        (
            "resnet_cifar(depth=8,block=basic,shortcut=subsample,width=2)",
            "has no layer2.0.downsamp",
        ),
        ("resnet21", "unknown architecture 'resnet21': did you mean"),
        ("resnet_cifar(depth=8)", "needs block"),
    ],
)
def test_a_wrongly_named_architecture(shapes: Shapes, text: str, says: str) -> None:
    with pytest.raises(ArchitectureError, match=says):
        match(text, shapes)


def test_a_network_of_ones_own() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    own = shapes_of(network)
    assert own == {"0.weight": (2, 1, 3, 3), "0.bias": (2,), "2.weight": (3, 8), "2.bias": (3,)}
    reading = match_network(network, "net", {f"module.{name}": s for name, s in own.items()})
    assert reading.names["2.bias"] == "module.2.bias"
    with pytest.raises(ArchitectureError, match=r"don't fit net: 0.weight is 2x3x3x3 in the file"):
        match_network(network, "net", {**own, "0.weight": (2, 3, 3, 3)})


def test_a_submodule_that_is_truly_called_model_keeps_its_name() -> None:
    network = nn.ModuleDict({"model": nn.Linear(2, 2), "module": nn.Linear(2, 3)})
    reading = match_network(network, "net", shapes_of(network))
    assert set(reading.names) == {"model.weight", "model.bias", "module.weight", "module.bias"}
    assert reading.note is None


def test_building_for_its_shapes_keeps_the_random_numbers(shapes: Shapes) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    identify(shapes)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", importlib.import_module("trpexport.models_zoo").PRESETS)
def test_every_preset_is_recognised(zoo: ModuleType, name: str) -> None:
    architecture = zoo.parse_architecture(name, num_classes=5, in_channels=2)
    with torch.device("meta"), WithoutRandomNumbers():
        shapes = shapes_of(architecture.build())
    found = identify({f"module.{key}": shape for key, shape in shapes.items()}).architecture
    assert (found.num_classes, found.in_channels) == (5, 2)
    # Where the weights can't tell, it is among the look-alikes.
    assert name in map(str, (found, *found.look_alikes))
