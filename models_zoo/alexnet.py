"""AlexNet in three forms: torchvision's for ImageNet, and two for CIFAR."""

from __future__ import annotations

from torch import nn

from .family import Config, Family, Shapes, Size, choose, none_on_misfit, register
from .layers import network


def _one_tower(in_channels: int, *, padding: int, pool: int) -> nn.Sequential:
    """Return the convolutions of Krizhevsky 2014, with a first padding and a pooling window."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 64, 11, stride=4, padding=padding),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(pool, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(pool, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(pool, 2),
    )


def _imagenet(num_classes: int, in_channels: int) -> nn.Module:
    return network(
        features=_one_tower(in_channels, padding=2, pool=3),
        avgpool=nn.AdaptiveAvgPool2d(6),
        flatten=nn.Flatten(),
        classifier=nn.Sequential(
            nn.Dropout(),
            nn.Linear(256 * 6 * 6, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Linear(4096, num_classes),
        ),
    )


def _cifar(num_classes: int, in_channels: int) -> nn.Module:
    return network(
        features=_one_tower(in_channels, padding=5, pool=2),
        avgpool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        classifier=nn.Linear(256, num_classes),
    )


def _trp(num_classes: int, in_channels: int) -> nn.Module:
    return network(
        features=nn.Sequential(
            nn.Conv2d(in_channels, 32, 5, padding=2),
            nn.MaxPool2d(3, 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(3, 2),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.AvgPool2d(3, 2),
        ),
        avgpool=nn.AdaptiveAvgPool2d(3),
        flatten=nn.Flatten(),
        L1=nn.Linear(64 * 3 * 3, 64),
        classifier=nn.Linear(64, num_classes),
    )


VARIANTS = {"cifar": _cifar, "trp": _trp, "imagenet": _imagenet}


def alexnet(*, variant: str, num_classes: int, in_channels: int) -> nn.Module:
    """Make an AlexNet.

    Args:
        variant: ``imagenet`` for torchvision's; ``cifar`` for the same convolutions with a single
            linear layer (bearpaw/pytorch-classification); ``trp`` for the small one of the
            original TRP code (three 5x5 convolutions).
        num_classes: outputs.
        in_channels: channels of the image.

    Raises:
        ArchitectureError: there is no such network.
    """
    return choose("variant", VARIANTS, variant)(num_classes, in_channels)


@none_on_misfit
def infer(shapes: Shapes) -> Config:
    """Read the configuration from names and shapes."""
    variant, last = "cifar", "classifier.weight"
    if last not in shapes:
        variant, last = "imagenet", "classifier.6.weight"
    elif "L1.weight" in shapes:
        variant = "trp"
    return {
        "variant": variant,
        "num_classes": shapes[last][0],
        "in_channels": shapes["features.0.weight"][1],
    }


def input_size(config: Config) -> Size:
    """Return the height and width of the data set that the variant is for."""
    return (224, 224) if config["variant"] == "imagenet" else (32, 32)


FAMILY = register(
    Family(
        name="alexnet",
        build=alexnet,
        presets={
            "alexnet": {"variant": "cifar"},
            "alexnet-trp": {"variant": "trp"},
            "alexnet-imagenet": {"variant": "imagenet"},
        },
        input_size=input_size,
        infer=infer,
        source="Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks",
    )
)
