"""The zoo against published numbers and against networks that others trained."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

zoo = importlib.import_module("trpexport.models_zoo")


def build_meta(name: str, num_classes: int) -> tuple[nn.Module, tuple[int, ...]]:
    architecture = zoo.parse_architecture(name, num_classes=num_classes)
    with torch.device("meta"):
        return architecture.build().eval(), architecture.input_shape


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# torchvision's published metadata of each network: parameters, and 10^9 multiply-adds at 224.
TORCHVISION = {
    "resnet18": (11_689_512, 1.814),
    "resnet34": (21_797_672, 3.664),
    "resnet50": (25_557_032, 4.089),
    "resnet101": (44_549_160, 7.801),
    "resnet152": (60_192_808, 11.514),
    "resnext50_32x4d": (25_028_904, 4.230),
    "resnext101_32x8d": (88_791_336, 16.414),
    "resnext101_64x4d": (83_455_272, 15.460),
    "wide_resnet50_2": (68_883_240, 11.398),
    "wide_resnet101_2": (126_886_696, 22.753),
    "vgg11-imagenet": (132_863_336, 7.609),
    "vgg11_bn-imagenet": (132_868_840, 7.609),
    "vgg13-imagenet": (133_047_848, 11.308),
    "vgg13_bn-imagenet": (133_053_736, 11.308),
    "vgg16-imagenet": (138_357_544, 15.470),
    "vgg16_bn-imagenet": (138_365_992, 15.470),
    "vgg19-imagenet": (143_667_240, 19.632),
    "vgg19_bn-imagenet": (143_678_248, 19.632),
    "alexnet-imagenet": (61_100_840, 0.714),
}


@pytest.mark.parametrize("name", list(TORCHVISION))
def test_torchvision_parameters_and_macs(name: str) -> None:
    count, giga_macs = TORCHVISION[name]
    network, input_shape = build_meta(name, num_classes=1000)
    assert parameters(network) == count
    with FlopCounterMode(display=False) as counter:
        output = network(torch.empty(input_shape, device="meta"))
    assert output.shape == (1, 1000)
    # The strides and poolings are right, not only the shapes of the weights.
    assert counter.get_total_flops() / 2e9 == pytest.approx(giga_macs, abs=6e-4)


# Published with 10 classes. Exact counts: pytorch_resnet_cifar10 (-a), imgclsmob (the others;
# "ResNet-164(BN)" and "PreResNet-164(BN)" have the blocks of depth 110 counted as here).
CIFAR_PARAMETERS = {
    "resnet20-a": 269_722,
    "resnet32-a": 464_154,
    "resnet44-a": 658_586,
    "resnet56-a": 853_018,
    "resnet110-a": 1_727_962,
    "resnet20": 272_474,
    "resnet56": 855_770,
    "resnet110": 1_730_714,
    "resnet110-bottleneck": 1_704_154,
    "resnet110-trp": 1_704_154,
    "preresnet20": 272_282,
    "preresnet56": 855_578,
    "preresnet110": 1_730_522,
    "preresnet110-bottleneck": 1_703_258,
    "resnext29-16x64d": 68_155_210,
    "resnext29-32x4d": 4_775_754,
    "wrn-22-8": 17_158_106,
    "wrn-28-10": 36_479_194,
    "wrn-40-2": 2_243_546,
    "densenet-bc-100-12": 769_162,
    "densenet-bc-190-40": 25_624_430,
    # Summed by hand: 3 * 25 * 32 + 32, 32 * 25 * 32 + 32, 32 * 25 * 64 + 64, 577 * 64, 65 * 10.
    "alexnet-trp": 2_432 + 25_632 + 51_264 + 36_928 + 650,
}


@pytest.mark.parametrize("name", list(CIFAR_PARAMETERS))
def test_cifar_parameters(name: str) -> None:
    network, _ = build_meta(name, num_classes=10)
    assert parameters(network) == CIFAR_PARAMETERS[name]


# In millions, as bearpaw/pytorch-classification prints them.
BEARPAW_PARAMETERS = {
    "alexnet": 2.47,
    "vgg19_bn": 20.04,
    "resnet110-bottleneck": 1.70,
    "preresnet110-bottleneck": 1.70,
    "wrn-28-10": 36.48,
    "resnext29-8x64d": 34.43,
    "resnext29-16x64d": 68.16,
    "densenet-bc-100-12": 0.77,
    "densenet-bc-190-40": 25.62,
}


@pytest.mark.parametrize("name", list(BEARPAW_PARAMETERS))
def test_bearpaw_parameters(name: str) -> None:
    network, _ = build_meta(name, num_classes=10)
    assert parameters(network) / 1e6 == pytest.approx(BEARPAW_PARAMETERS[name], abs=0.005)


def test_densenet_40_12_parameters() -> None:
    """1.0 million in the paper with 16 channels in the stem; here 24, summed by hand."""
    convolutions = batch_norms = 0
    channels = 24
    for block in range(3):
        for _ in range(12):
            convolutions += 9 * channels * 12
            batch_norms += 2 * channels
            channels += 12
        if block < 2:
            convolutions += channels * channels
            batch_norms += 2 * channels
    expected = 27 * 24 + convolutions + batch_norms + 2 * channels + (channels + 1) * 10
    network, _ = build_meta("densenet-40-12", num_classes=10)
    assert parameters(network) == expected == pytest.approx(1.0e6, rel=0.06)


# 10^6 multiply-adds as Lin et al. 2020 (HRank, tables 1 to 3) give them, and for the wide network
# the 5.2 billion of Zagoruyko and Komodakis 2016, table 5.
CIFAR_MACS = {
    "resnet56-a": (125.49, 0.01),
    "resnet110-a": (252.89, 0.01),
    "densenet-40-12": (282.92, 0.01),
    "wrn-28-10": (5.2e3, 50),
}


@pytest.mark.parametrize("name", list(CIFAR_MACS))
def test_cifar_macs(name: str) -> None:
    expected, tolerance = CIFAR_MACS[name]
    network, input_shape = build_meta(name, num_classes=10)
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(input_shape, device="meta"))
    assert counter.get_total_flops() / 2e6 == pytest.approx(expected, abs=tolerance)


def load(path: Path, name: str) -> Any:
    """Return the preset with a checkpoint of pytorch_resnet_cifar10, loaded strictly."""
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    architecture = zoo.parse_architecture(name, num_classes=10)
    canonical = {
        architecture.family.canonical_name(key.removeprefix("module.")): tensor
        for key, tensor in state.items()
    }
    shapes = {key: tuple(tensor.shape) for key, tensor in canonical.items()}
    assert str(zoo.infer_architecture(architecture.family, shapes)) == name
    network = architecture.build().eval()
    network.load_state_dict(canonical, strict=True)
    return network


def read_images(shared: Path) -> tuple[Tensor, Tensor]:
    records = np.fromfile(shared / "data/cifar10-lossless/test_batch.bin", dtype=np.uint8)
    records = records.reshape(-1, 3073)
    assert len(records) == 517
    pixels = torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32) / np.float32(255))
    mean = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
    std = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)
    return (pixels - mean) / std, torch.from_numpy(records[:, 0].astype(np.int64))


@pytest.mark.parametrize(
    ("file", "name"),
    [("resnet20-12fca82f.th", "resnet20-a"), ("resnet32-d509ac18.th", "resnet32-a")],
)
def test_published_checkpoint_reaches_its_accuracy(shared: Path, file: str, name: str) -> None:
    """91.7 % and 92.6 % are published for all 10,000 images."""
    network = load(shared / "checkpoints" / file, name)
    images, labels = read_images(shared)
    with torch.inference_mode():
        accuracy = float((network(images).argmax(1) == labels).float().mean())
    assert accuracy >= 0.90


def test_published_checkpoint_gives_the_reference_logits(shared: Path) -> None:
    network = load(shared / "checkpoints/resnet20-12fca82f.th", "resnet20-a")
    reference = np.load(shared / "reference/original_resnet20_logits.npz")["original"]
    with torch.inference_mode():
        logits = network(read_images(shared)[0][: len(reference)]).numpy()
    np.testing.assert_allclose(logits, reference, rtol=1e-4, atol=1e-4)
