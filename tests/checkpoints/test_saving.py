"""Safetensors with the architecture beside the weights."""

from __future__ import annotations

import importlib
import json
import os
import resource
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from trpexport.checkpoints import load_checkpoint, save_checkpoint
from trpexport.errors import ArchitectureError, CheckpointError, OutputError
from trpexport.inputs import Inputs
from trpexport.plan import Plan

Weights = dict[str, Tensor]


@pytest.fixture
def network(small: Any, weights: Weights) -> nn.Module:
    module: nn.Module = small.build()
    module.load_state_dict(weights)
    return module


def test_there_and_back(tmp_path: Path, network: nn.Module, small: Any, weights: Weights) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, network, architecture=small, metadata={"epoch": 3})
    checkpoint = load_checkpoint(path)
    assert checkpoint.architecture == small
    state = checkpoint.module.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in weights.items())
    assert checkpoint.notes == ()
    assert checkpoint.metadata["epoch"] == 3
    assert list(tmp_path.iterdir()) == [path]


def test_what_lies_in_the_header(tmp_path: Path, zoo: ModuleType) -> None:
    path = tmp_path / "net.safetensors"
    architecture = zoo.parse_architecture("resnet20-a", num_classes=10)
    save_checkpoint(path, architecture.build(), architecture=architecture)
    with safetensors.safe_open(path, framework="pt") as file:
        header = file.metadata()
    assert header["format"] == "pt"
    assert json.loads(header["trpexport"]) == {
        "architecture": "resnet20-a",
        "num_classes": 10,
        "in_channels": 3,
        "input_shape": [1, 3, 32, 32],
    }


def test_the_stored_input_shape_counts_unless_another_is_given(
    tmp_path: Path, network: nn.Module, small: Any
) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, network, architecture=small, metadata={"input_shape": [1, 1, 48, 40]})
    assert load_checkpoint(path).input_shape == (1, 1, 48, 40)
    assert load_checkpoint(path, inputs=(2, 1, 64, 64)).input_shape == (2, 1, 64, 64)
    save_checkpoint(path, network, architecture=small, metadata={"input_shape": [1, 3, 48, 40]})
    with pytest.raises(CheckpointError, match="has 1 input channels, the stored input shape 3"):
        load_checkpoint(path)


def test_a_network_that_is_not_of_the_zoo(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, nn.Conv2d(1, 2, 3), architecture=None)
    with pytest.raises(ArchitectureError, match="no architecture of the zoo"):
        load_checkpoint(path)


def test_the_stored_architecture_is_checked(
    tmp_path: Path, weights: Weights, zoo: ModuleType
) -> None:
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(weights, path, {"trpexport": '{"architecture": "resnet20"}'})
    with pytest.raises(ArchitectureError, match=r"not resnet20's: .*metadata is wrong, name the"):
        load_checkpoint(path)
    # What the user says goes before what the file says.
    named = "resnet_cifar(depth=8,block=basic,shortcut=projection,width=2)"
    assert load_checkpoint(path, arch=named).label == named


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "3",
        "null",
        "[]",
        '{"architecture": 3}',
        '{"input_shape": 32}',
        '{"input_shape": [1, 3.0, 32, 32]}',
        '{"input_shape": "1133"}',
        '{"num_classes": Infinity}',
        '{"num_classes": 1e999}',
        '{"num_classes": 10.0}',
        '{"in_channels": -1}',
        '{"plan": {"spectrum": NaN}}',
        "[" * 100_000,
    ],
)
def test_damaged_metadata(tmp_path: Path, weights: Weights, text: str) -> None:
    path = tmp_path / "net.safetensors"
    safetensors.torch.save_file(weights, path, {"trpexport": text})
    with pytest.raises(
        CheckpointError, match=r"its trpexport metadata is damaged .*: save it again"
    ):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "facts",
    [
        {"num_classes": 10**9},
        {"in_channels": 10**9},
        {"architecture": "resnet_cifar(depth=99998,block=basic,shortcut=projection,width=2)"},
        {"input_shape": [1, 1, 10**9, 10**9]},
    ],
)
@pytest.mark.parametrize("planned", [False, True])
def test_forged_facts_ask_for_no_memory(
    tmp_path: Path,
    network: nn.Module,
    small: Any,
    facts: dict[str, Any],
    planned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A network of the file's words alone would take terabytes, or hours."""
    module = importlib.import_module("trpexport.checkpoints.identify")  # shadowed by its function
    monkeypatch.setattr(module, "MAX_TENSORS", 2000)
    path = tmp_path / "net.safetensors"
    plan = Plan("spatial", "none", Inputs.of((1, 1, 32, 32)), ()).to_json() if planned else None
    sound = {"architecture": str(small), "num_classes": 7, "in_channels": 1}
    text = json.dumps({**sound, **facts, "plan": plan})
    safetensors.torch.save_file(network.state_dict(), path, {"trpexport": text})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if planned or not {"num_classes", "in_channels"} & set(facts):  # else the weights tell
        with pytest.raises(CheckpointError) as caught:
            load_checkpoint(path)
        assert len(str(caught.value)) < 1001
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500 * 2**10


def test_shared_and_strided_weights_can_be_saved(tmp_path: Path) -> None:
    network = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    network["b"].weight = network["a"].weight
    network["b"].bias = nn.Parameter(torch.arange(6.0)[::2])
    path = tmp_path / "net.safetensors"
    save_checkpoint(path, network, architecture=None)
    found = safetensors.torch.load_file(path)
    assert torch.equal(found["a.weight"], found["b.weight"])
    assert found["b.bias"].tolist() == [0, 2, 4]


def test_metadata_must_not_contradict_the_architecture(
    tmp_path: Path, network: nn.Module, small: Any
) -> None:
    with pytest.raises(ValueError, match="must not hold num_classes"):
        save_checkpoint(tmp_path / "x", network, architecture=small, metadata={"num_classes": 3})


def test_a_place_that_cant_be_written(tmp_path: Path, network: nn.Module, small: Any) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "gone" / "x", tmp_path / "file" / "x", tmp_path / "folder"):
        with pytest.raises(OutputError, match=f"can't write {path}: "):
            save_checkpoint(path, network, architecture=small)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, network: nn.Module, small: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.safetensors"
    path.write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="no space left there"):
        save_checkpoint(path, network, architecture=small)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_weights_are_the_same_bytes(
    tmp_path: Path, network: nn.Module, small: Any
) -> None:
    """The order in which safetensors writes metadata differs from call to call."""
    files = set()
    for place in range(8):
        path = tmp_path / f"{place}.safetensors"
        save_checkpoint(path, network, architecture=small, metadata={"said": "é"})
        files.add(path.read_bytes())
    assert len(files) == 1
    assert load_checkpoint(path).metadata["said"] == "é"
