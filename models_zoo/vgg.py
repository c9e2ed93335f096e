"""VGG with 11, 13, 16 or 19 layers, for CIFAR and for ImageNet."""

from __future__ import annotations

from torch import nn

from trpexport.errors import ArchitectureError

from .family import Config, Family, Shapes, Size, choose, none_on_misfit, register
from .layers import network

# Convolutions of the five stages, each followed by a pooling, by depth (configurations A, B, D, E).
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
CHANNELS = (64, 128, 256, 512, 512)
INPUT_SIZES = {"cifar": (32, 32), "imagenet": (224, 224)}
# What halves the size behind each of the five stages.
POOLINGS: dict[str, tuple[type[nn.Module], ...]] = {
    "max": (nn.MaxPool2d,) * 5,
    "average": (nn.AvgPool2d,) * 5,
    "max-average": (nn.MaxPool2d,) * 4 + (nn.AvgPool2d,),
}


def vgg(
    *,
    depth: int,
    batch_norm: bool,
    head: str,
    pooling: str = "max",
    num_classes: int,
    in_channels: int,
) -> nn.Module:
    """Make a VGG.

    Args:
        depth: 11, 13, 16 or 19 layers with weights, counted with three linear ones.
        batch_norm: whether a batch norm follows each convolution.
        head: ``imagenet`` for three linear layers on 7x7 pixels, ``cifar`` for a single one on the
            mean over all pixels.
        pooling: ``max`` or ``average``, or ``max-average``: the last one alone averages.
        num_classes: outputs.
        in_channels: channels of the image.

    Raises:
        ArchitectureError: there is no such network.
    """
    if depth not in STAGES:
        raise ArchitectureError(f"depth={depth} can't be built: give {', '.join(map(str, STAGES))}")
    pool, classifier = _head(head, num_classes)
    layers: list[nn.Module] = []
    poolings = choose("pooling", POOLINGS, pooling)
    for count, channels, make_pool in zip(STAGES[depth], CHANNELS, poolings, strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(in_channels, channels, 3, padding=1))
            if batch_norm:
                layers.append(nn.BatchNorm2d(channels))
            layers.append(nn.ReLU(inplace=True))
            in_channels = channels
        layers.append(make_pool(2, 2))
    for module in classifier.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    return network(
        features=nn.Sequential(*layers), avgpool=pool, flatten=nn.Flatten(), classifier=classifier
    )


def _head(head: str, num_classes: int) -> tuple[nn.Module, nn.Module]:
    choose("head", INPUT_SIZES, head)
    if head == "cifar":
        return nn.AdaptiveAvgPool2d(1), nn.Linear(512, num_classes)
    return nn.AdaptiveAvgPool2d(7), nn.Sequential(
        nn.Linear(512 * 7 * 7, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, 4096),
        nn.ReLU(inplace=True),
        nn.Dropout(),
        nn.Linear(4096, num_classes),
    )


@none_on_misfit
def infer(shapes: Shapes) -> Config:
    """Read the configuration from names and shapes."""
    convolutions = sum(key.startswith("features.") and len(shapes[key]) == 4 for key in shapes)
    if convolutions + 3 not in STAGES:
        raise LookupError(f"no VGG has {convolutions} convolutions")
    head, last = "cifar", "classifier.weight"
    if last not in shapes:
        head, last = "imagenet", "classifier.6.weight"
    return {
        "depth": convolutions + 3,
        # What follows the first convolution: a ReLU has no weight.
        "batch_norm": "features.1.weight" in shapes,
        "head": head,
        "pooling": "max",
        "num_classes": shapes[last][0],
        "in_channels": shapes["features.0.weight"][1],
    }


def input_size(config: Config) -> Size:
    """Return the height and width of the data set that the head is for."""
    return INPUT_SIZES[str(config["head"])]


FAMILY = register(
    Family(
        name="vgg",
        build=vgg,
        presets={
            f"vgg{depth}{norm_suffix}{head_suffix}": {
                "depth": depth,
                "batch_norm": batch_norm,
                "head": head,
                "pooling": "max",
            }
            for head_suffix, head in (("", "cifar"), ("-imagenet", "imagenet"))
            for norm_suffix, batch_norm in (("", False), ("_bn", True))
            for depth in STAGES
        },
        input_size=input_size,
        infer=infer,
        source=(
            "Simonyan and Zisserman 2015, Very Deep Convolutional Networks; "
            "names as in bearpaw/pytorch-classification (cifar) and torchvision (imagenet)"
        ),
        alike={"pooling": (("max", "average", "max-average"),)},
        defaults={"pooling": "max"},
    )
)
