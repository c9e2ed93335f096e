"""From a file to a network: what is recognised, checked, cast and said."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from trpexport.checkpoints import load_checkpoint
from trpexport.errors import (
    ArchitectureError,
    CheckpointError,
    TrpexportError,
    UnsafeCheckpointError,
)

Weights = dict[str, Tensor]
Saver = Callable[[object], Path]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A factory in the working directory, for ``--model``."""
    (tmp_path / "net_of_mine.py").write_text(
        "from torch import nn\n"
        "def make(): return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))\n"
    )
    monkeypatch.chdir(tmp_path)
    yield "net_of_mine:make"
    sys.modules.pop("net_of_mine", None)


def holds(module: nn.Module, weights: Weights) -> bool:
    state = module.state_dict()
    return set(state) == set(weights) and all(torch.equal(state[n], w) for n, w in weights.items())


@pytest.mark.parametrize(
    ("file", "name"),
    [("resnet20-12fca82f.th", "resnet20-a"), ("resnet32-d509ac18.th", "resnet32-a")],
)
def test_real_checkpoints_need_no_help(shared: Path, file: str, name: str) -> None:
    path = shared / "checkpoints" / file
    checkpoint = load_checkpoint(path)
    assert checkpoint.label == name
    # The files' names end in the first digits of their SHA-256.
    assert checkpoint.sha256.startswith(path.stem.partition("-")[2])
    assert checkpoint.input_shape == (1, 3, 32, 32)
    assert not checkpoint.module.training
    assert checkpoint.reading == (
        "took the weights under 'state_dict'",
        "stripped 'module.' from the names; read linear.weight as fc.weight, and 1 more likewise",
    )


def test_a_real_checkpoint_computes_what_its_authors_network_does(shared: Path) -> None:
    reference = np.load(shared / "reference" / "original_resnet20_logits.npz")["original"]
    records = np.fromfile(
        shared / "data" / "cifar10-lossless" / "test_batch.bin", np.uint8, count=64 * 3073
    ).reshape(64, 3073)
    images = torch.from_numpy(records[:, 1:].reshape(64, 3, 32, 32)).float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (images - mean[:, None, None]) / std[:, None, None]
    network = load_checkpoint(shared / "checkpoints" / "resnet20-12fca82f.th").module
    with torch.no_grad():
        logits = network(images).numpy()
    np.testing.assert_allclose(logits, reference, rtol=1e-4, atol=1e-4)


def test_a_recognised_network(save: Saver, weights: Weights, small: Any) -> None:
    path = save({"state_dict": {f"module.{name}": w for name, w in weights.items()}})
    checkpoint = load_checkpoint(str(path))
    assert checkpoint.path == path
    assert checkpoint.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert checkpoint.architecture == small
    assert checkpoint.label == str(small)
    assert checkpoint.input_shape == (1, 1, 32, 32)
    assert holds(checkpoint.module, weights)
    assert not checkpoint.module.training
    assert checkpoint.metadata == {}


def test_half_precision_is_cast_and_said(save: Saver, weights: Weights) -> None:
    half = {n: w.half() if w.is_floating_point() else w for n, w in weights.items()}
    checkpoint = load_checkpoint(save(half))
    floats = sum(w.is_floating_point() for w in weights.values())
    assert checkpoint.reading == (f"cast {floats} tensors from float16 to float32",)
    assert {p.dtype for p in checkpoint.module.parameters()} == {torch.float32}


def test_not_a_number_and_integers_are_refused(save: Saver, weights: Weights) -> None:
    path = save({**weights, "fc.bias": torch.full((7,), torch.nan)})
    with pytest.raises(CheckpointError, match=r"fc\.bias has 7 NaN or infinite of 7 values"):
        load_checkpoint(path)
    path = save({**weights, "fc.bias": torch.ones(7, dtype=torch.int8)})
    with pytest.raises(CheckpointError, match=r"fc\.bias holds integers \(torch\.int8\)"):
        load_checkpoint(path)


def test_a_named_architecture(save: Saver, weights: Weights, small: Any) -> None:
    path = save(weights)
    assert load_checkpoint(path, arch=str(small)).architecture == small
    with pytest.raises(ArchitectureError) as caught:
        load_checkpoint(path, arch="resnet20")
    assert str(caught.value).startswith(f"{path}: the weights are not resnet20's: the file lacks ")
    assert str(caught.value).endswith(
        "leave the name out to have the architecture recognised, or give another"
    )


def test_an_unknown_network_names_the_file(save: Saver, weights: Weights) -> None:
    path = save({**weights, "extra": torch.ones(1)})
    with pytest.raises(ArchitectureError, match=r"has no extra; name it, or bring") as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: no architecture of the zoo")


def test_the_input_shape_must_have_the_channels(save: Saver, weights: Weights) -> None:
    path = save(weights)
    assert load_checkpoint(path, inputs=(4, 1, 48, 48)).input_shape == (4, 1, 48, 48)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, inputs=(1, 3, 32, 32))
    assert str(caught.value) == (
        f"{path} has 1 input channels, the given input shape 3 (1x3x32x32): give the shape that "
        "the network was trained on"
    )
    for shape in ((32,), (1, 1, 0, 32), ()):
        with pytest.raises(TrpexportError, match=r"shape .* (is none|of at least 1)") as refused:
            load_checkpoint(path, inputs=shape)
        assert refused.value.parameters == ("input_shape",)


OWN_WEIGHTS = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).state_dict()


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_a_network_of_ones_own(save: Saver, own: str, prefix: str) -> None:
    path = save({prefix + name: w for name, w in OWN_WEIGHTS.items()})
    checkpoint = load_checkpoint(path, model=own, inputs=(1, 1, 8, 8))
    assert holds(checkpoint.module, OWN_WEIGHTS)
    assert not checkpoint.module.training
    assert (checkpoint.architecture, checkpoint.label) == (None, own)
    assert checkpoint.input_shape == (1, 1, 8, 8)
    assert load_checkpoint(path, model=own).input_shape is None


def test_extra_state_of_a_network_is_left_alone(save: Saver, tmp_path: Path, own: str) -> None:
    (tmp_path / "net_of_mine.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def get_extra_state(self): return {'version': 3}\n"
        "    def set_extra_state(self, state): pass\n"
        "def make(): return Net(2, 3)\n"
    )
    state = nn.Linear(2, 3).state_dict()
    checkpoint = load_checkpoint(save({**state, "_extra_state": {"version": 3}}), model=own)
    assert torch.equal(checkpoint.module.get_parameter("bias"), state["bias"])
    assert checkpoint.notes == ("ignored entries that are no tensors: _extra_state",)


def test_weights_of_another_network(save: Saver, own: str) -> None:
    path = save({**OWN_WEIGHTS, "0.weight": torch.ones(2, 3, 3, 3)})
    with pytest.raises(ArchitectureError) as caught:
        load_checkpoint(path, model=own)
    assert str(caught.value) == (
        f"{path}: the weights don't fit model net_of_mine:make: 0.weight is 2x3x3x3 in the file "
        "and 2x1x3x3 in the network; give the network they were trained in"
    )


def test_arch_and_model_exclude_each_other(save: Saver, own: str) -> None:
    with pytest.raises(CheckpointError, match="exclude each other: give one of them"):
        load_checkpoint(save(OWN_WEIGHTS), model=own, arch="resnet20")


def test_a_pickled_network(save: Saver, weights: Weights, small: Any) -> None:
    network = small.build().half().train()
    network.load_state_dict(weights)
    path = save({"model": network})
    with pytest.raises(
        UnsafeCheckpointError, match="if you trust whoever made the file, have its code run"
    ):
        load_checkpoint(path)
    checkpoint = load_checkpoint(path, unsafe_pickle=True)
    assert (checkpoint.architecture, checkpoint.label) == (None, "Sequential")
    assert checkpoint.input_shape is None
    assert not checkpoint.module.training
    assert {p.dtype for p in checkpoint.module.parameters()} == {torch.float32}
    # Its weights can be put into a network of the zoo as well.
    named = load_checkpoint(path, unsafe_pickle=True, arch=str(small))
    assert named.architecture == small
    first, second = checkpoint.module.state_dict(), named.module.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in weights)


def test_the_network_keeps_its_weights_when_the_file_goes(tmp_path: Path, weights: Weights) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(weights, path)
    checkpoint = load_checkpoint(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert holds(checkpoint.module, weights)


@pytest.mark.parametrize("counter", [torch.zeros(5), torch.tensor(3), torch.zeros(1, 1)])
def test_batch_counters_of_any_shape_are_of_no_interest(
    save: Saver, weights: Weights, small: Any, counter: Tensor
) -> None:
    name = "bn1.num_batches_tracked"
    checkpoint = load_checkpoint(save({**weights, name: counter}), arch=str(small))
    weights.pop(name)
    state = checkpoint.module.state_dict()
    assert state.pop(name).shape == ()
    assert all(torch.equal(state[n], weight) for n, weight in weights.items())
