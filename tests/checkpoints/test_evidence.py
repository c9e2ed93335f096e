"""What batch norms say of an architecture: the look-alike that they recorded is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tests.data import cifar10_test_images
from trpexport.checkpoints import examined, load_checkpoint
from trpexport.datasets.dead_leaves import dead_leaves


def recorded(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return random weights with batch norms that recorded images in this structure."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all batches: there is one
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
    with torch.no_grad():
        network.train()(images)
    return network.eval().state_dict()


def images(seed: int = 1, channels: int = 3) -> Tensor:
    return torch.from_numpy(dead_leaves(32, channels, 32, 32, seed=seed))


def written(path: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, path)
    return path


PLAIN_A = "resnet_cifar(depth=14,block=basic,shortcut={},width=8)"
BOTTLENECK = "resnet_cifar(depth=14,block={},shortcut=projection,width=8)"
SMALL_RESNET = "resnet(block=basic,blocks=1-1-1-1,groups=1,width_per_group=64,stem={})"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN_A.format("subsample"),
        PLAIN_A.format("average-behind"),
        BOTTLENECK.format("bottleneck"),
        BOTTLENECK.format("bottleneck-trp"),
        SMALL_RESNET.format("cifar"),
        SMALL_RESNET.format("cifar-pooled"),
        SMALL_RESNET.format("cifar,last_stride=1"),
        "preresnet20",
        "preresnet20(block=basic-activated)",
        "wideresnet(depth=10,widen_factor=1)",
        "wideresnet(depth=10,widen_factor=1,shortcut=raw)",
        "vgg11_bn",
        "vgg11_bn(pooling=average)",
    ],
)
def test_the_recorded_structure_is_found(zoo: Any, tmp_path: Path, text: str) -> None:
    architecture = zoo.parse_architecture(text, num_classes=10)
    network = architecture.build()
    path = written(tmp_path / "net.pth", recorded(network, images()))
    checkpoint = load_checkpoint(path)
    assert checkpoint.architecture == architecture
    assert checkpoint.label == str(architecture)
    x = images(2)[:4]
    with torch.no_grad():
        assert torch.equal(checkpoint.module(x), network(x))
    assert any(f"statistics match {architecture} (0." in note for note in checkpoint.notes)
    inferred = zoo.infer_architecture(architecture.family, shapes(network))
    taken = [note for note in checkpoint.notes if note.startswith("taken for")]
    assert bool(taken) == (inferred != architecture)


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("text", "others"),
    [
        ("resnet20-a", ["subsample-behind)", "shortcut=average)", "average-behind)"]),
        ("resnet18-cifar", ["cifar-pooled", "cifar-strided", "last_stride=1"]),
        ("resnet20-bottleneck", ["block=bottleneck-v1", "bottleneck-trp"]),
        ("vgg11", ["pooling=average", "max-average"]),
    ],
)
def test_untrained_networks_have_no_witness(
    zoo: Any, tmp_path: Path, text: str, others: list[str]
) -> None:
    state = zoo.parse_architecture(text, num_classes=10).build().state_dict()
    checkpoint = load_checkpoint(written(tmp_path / "net.pth", state))
    assert checkpoint.label == text
    (note,) = checkpoint.notes
    assert all(other in note for other in others)
    assert "nothing in the file tells them apart" in note
    # Who names the architecture needs no word on what the file can't tell.
    assert load_checkpoint(tmp_path / "net.pth", arch=text).notes == ()


def test_a_network_like_no_other_without_witness_is_said(zoo: Any, tmp_path: Path) -> None:
    state = zoo.parse_architecture("alexnet-trp", num_classes=10).build().state_dict()
    (note,) = load_checkpoint(written(tmp_path / "net.pth", state)).notes
    assert note.startswith("nothing but names and shapes says that it is alexnet-trp: check it on")


def test_a_wrong_name_is_warned_of(zoo: Any, tmp_path: Path) -> None:
    right = zoo.parse_architecture("wideresnet(depth=10,widen_factor=1)", num_classes=10)
    path = written(tmp_path / "net.pth", recorded(right.build(), images()))
    wrong = "wideresnet(depth=10,widen_factor=1,shortcut=raw)"
    checkpoint = load_checkpoint(path, arch=wrong)
    assert checkpoint.label == wrong
    (note,) = checkpoint.notes
    assert f"they get in {right}, not in {wrong}, which was named" in note
    (note,) = load_checkpoint(path, arch=str(right)).notes
    assert note.startswith(f"its recorded batch-norm statistics match {right} (0.")


REAL = pytest.mark.parametrize(
    "file",
    ["resnet20-12fca82f.th", pytest.param("resnet32-d509ac18.th", marks=pytest.mark.slow)],
)


@REAL
def test_real_checkpoints_know_themselves(shared: Path, file: str) -> None:
    path = shared / "checkpoints" / file
    checkpoint = load_checkpoint(path)
    assert any(f"statistics match {checkpoint.label} (0.2" in note for note in checkpoint.notes)
    # Every other pixel or a mean of four: artificial images do not tell, photographs do.
    assert "(shortcut=average)' as well" in checkpoint.notes[-1]
    photographs: NDArray[Any] = cifar10_test_images(shared, 256)[0].numpy()
    (verdict,) = examined(checkpoint, photographs).evidence
    assert verdict.startswith(f"its recorded batch-norm statistics match {checkpoint.label} (0.1")


@REAL
@pytest.mark.parametrize("shortcut", ["subsample-behind", "average-behind"])
def test_real_weights_in_a_wrong_structure(shared: Path, file: str, shortcut: str) -> None:
    name = file.partition("-")[0]
    wrong = f"{name}-a(shortcut={shortcut})"
    checkpoint = load_checkpoint(shared / "checkpoints" / file, arch=wrong)
    assert f"they get in {name}-a, not in {wrong}, which was named" in checkpoint.notes[-1]


@pytest.mark.parametrize(
    ("file", "arch"),
    [
        ("resnet20-plain", "resnet20"),
        ("resnet20-trp-spatial", "resnet20"),
        ("wrn-10-2-trp-spatial", "wrn-10-2"),
    ],
)
def test_the_checkpoints_of_this_repository(file: str, arch: str) -> None:
    path = Path(__file__).parents[2] / "models_zoo" / "checkpoints" / f"{file}.safetensors"
    (note,) = load_checkpoint(path).notes
    assert note.startswith(f"its recorded batch-norm statistics match {arch} (0.2")


@pytest.mark.parametrize(("activation", "verdict"), [("ReLU", "match"), ("Identity", "contradict")])
def test_networks_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, activation: str, verdict: str
) -> None:
    code = """
from torch import nn

def make():
    layers = []
    for channels in (3, 8, 8):
        layers += [nn.Conv2d(channels, 8, 3), nn.BatchNorm2d(8), nn.{}()]
    return nn.Sequential(*layers)
"""
    monkeypatch.chdir(tmp_path)
    for name in ("ReLU", activation):
        Path(f"own_{name.lower()}.py").write_text(code.format(name))
    monkeypatch.syspath_prepend(str(tmp_path))
    from importlib import import_module

    network = import_module("own_relu").make()
    path = written(tmp_path / "net.pth", recorded(network, images()))
    checkpoint = load_checkpoint(
        path, model=f"own_{activation.lower()}:make", inputs=(1, 3, 32, 32)
    )
    (note,) = checkpoint.notes
    assert verdict in note
