"""What a family of architectures is, and how one of its members is written as text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from torch import nn

from trpexport.errors import ArchitectureError
from trpexport.registry import Registry

Value = int | bool | str
Config = Mapping[str, Value]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Family:
    """A family of architectures: one network class and its configurations.

    Attributes:
        name: the family's name, also the function in the text form ``name(key=value,...)``.
        build: makes a network; keyword arguments are the configuration's, ``num_classes`` and
            ``in_channels``.
        presets: well-known members by name.
        input_size: height and width, in pixels, that the family was published for.
        infer: reads a full configuration, ``num_classes`` and ``in_channels`` included, from the
            names and shapes of a state dict; None where they can't be this family's. It may be
            wrong: whoever calls it compares all names and shapes with the network it describes.
        source: where the architecture comes from.
        aliases: (regular expression, replacement) pairs that turn the parameter names that other
            code bases use into this family's.
        caution: says what the weights alone can't tell about a configuration, or None.
    """

    name: str
    build: Callable[..., nn.Module]
    presets: Mapping[str, Config]
    input_size: tuple[int, int]
    infer: Callable[[Shapes], Config | None]
    source: str
    aliases: tuple[tuple[str, str], ...] = ()
    caution: Callable[[Config], str | None] = field(default=lambda config: None)

    def canonical_name(self, key: str) -> str:
        """Return a parameter's name in this family's own terms."""
        for pattern, replacement in self.aliases:
            key = re.sub(pattern, replacement, key)
        return key


@dataclass(frozen=True)
class Architecture:
    """One member of a family: everything needed to build the network.

    ``str()`` gives its shortest text form, which :func:`parse_architecture` reads back.
    """

    family: Family
    config: Config
    num_classes: int
    in_channels: int = 3

    def build(self) -> nn.Module:
        """Make the network, with fresh weights, in training mode."""
        return self.family.build(
            **self.config, num_classes=self.num_classes, in_channels=self.in_channels
        )

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of one image as a batch: 1 x in_channels x height x width."""
        return (1, self.in_channels, *self.family.input_size)

    @property
    def caution(self) -> str | None:
        """What the weights alone can't tell about this network, or None."""
        return self.family.caution(self.config)

    def __str__(self) -> str:
        for name, config in self.family.presets.items():
            if dict(config) == dict(self.config):
                return name
        arguments = ",".join(f"{key}={value}" for key, value in self.config.items())
        return f"{self.family.name}({arguments})"


FAMILIES: Registry[Family] = Registry("family")
PRESETS: Registry[tuple[Family, Config]] = Registry("architecture")


def register(family: Family) -> Family:
    """Add a family and its presets to the zoo."""
    FAMILIES.register(family.name, family)
    for name, config in family.presets.items():
        PRESETS.register(name, (family, MappingProxyType(dict(config))))
    return family


def parse_architecture(text: str, *, num_classes: int, in_channels: int = 3) -> Architecture:
    """Return the architecture that ``text`` names: a preset, or ``family(key=value,...)``.

    Raises:
        ArchitectureError: there is none; the message lists the near names or the right keys.
    """
    match = re.fullmatch(r"\s*(\w+)\((.*)\)\s*", text)
    if match is None:
        family, config = PRESETS[text.strip()]
        return Architecture(family, config, num_classes, in_channels)
    family = FAMILIES[match[1]]
    example = next(iter(family.presets.values()))
    config = {}
    for item in filter(None, (part.strip() for part in match[2].split(","))):
        key, _, value = item.partition("=")
        if key not in example:
            raise ArchitectureError(
                f"{family.name} has no setting {key!r}: choose from {', '.join(example)}"
            )
        config[key] = _parse_value(family.name, key, value, example[key])
    missing = [key for key in example if key not in config]
    if missing:
        raise ArchitectureError(f"{family.name}(...) needs {', '.join(missing)} as well")
    return Architecture(family, MappingProxyType(config), num_classes, in_channels)


def _parse_value(family: str, key: str, value: str, example: Value) -> Value:
    if isinstance(example, bool):
        if value in ("True", "False"):
            return value == "True"
    elif isinstance(example, int):
        if re.fullmatch(r"\d+", value):
            return int(value)
    elif value:
        return value
    raise ArchitectureError(
        f"{family}: {key}={value!r} can't be used, it must look like {key}={example}"
    )
