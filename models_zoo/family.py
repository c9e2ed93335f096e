"""What a family of architectures is, and how one of its members is written as text."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from torch import nn

from trpexport.errors import ArchitectureError, TrpexportError
from trpexport.registry import Registry

Value = int | bool | str
Config = Mapping[str, Value]
Shapes = Mapping[str, tuple[int, ...]]
Size = tuple[int, int]
T = TypeVar("T")

# Above any published depth, width or number of classes, and small enough that no tensor size
# overflows when a network is built on the meta device.
MAX_SETTING = 99_999


@dataclass(frozen=True)
class Family:
    """A family of architectures: one network class and its configurations.

    Attributes:
        name: the family's name, also the function in the text form ``name(key=value,...)``.
        build: makes a network; keyword arguments are the configuration's, ``num_classes`` and
            ``in_channels``.
        presets: well-known members by name.
        input_size: height and width, in pixels, that the family was published for; a function of
            the configuration where its members differ.
        infer: reads a full configuration, ``num_classes`` and ``in_channels`` included, from the
            names and shapes of a state dict; None where they can't be this family's. It never
            raises, but it may be wrong: whoever calls it compares all names and shapes with the
            network it describes. Write it with :func:`none_on_misfit`.
        source: where the architecture comes from.
        aliases: (regular expression, replacement) pairs that turn the parameter names that other
            code bases use into this family's.
        alike: settings that neither names nor shapes of the weights tell, each with the groups of
            its values that share them; ``infer`` gives the first of a group.
        defaults: values of the settings that a text may leave out.
    """

    name: str
    build: Callable[..., nn.Module]
    presets: Mapping[str, Config]
    input_size: Size | Callable[[Config], Size]
    infer: Callable[[Shapes], Config | None]
    source: str
    aliases: tuple[tuple[str, str], ...] = ()
    alike: Mapping[str, tuple[tuple[Value, ...], ...]] = field(default_factory=dict)
    defaults: Config = field(default_factory=dict)

    def canonical_name(self, key: str) -> str:
        """Return a parameter's name in this family's own terms."""
        for pattern, replacement in self.aliases:
            key = re.sub(pattern, replacement, key)
        return key

    def describe(self, config: Config) -> str:
        """Return the text form of a configuration: a preset's name, or a name and settings.

        A look-alike of a preset has that one's name, with the settings that weights do not tell.
        """
        config = {**config, **{key: v for key, v in self.defaults.items() if key not in config}}
        for name, preset in self.presets.items():
            if dict(preset) == config:
                return name
        plain = {key: self._group(config, key)[0] for key in self.alike}
        inferred, base, settings = {**config, **plain}, self.name, dict(config)
        for name, preset in self.presets.items():
            if dict(preset) == inferred:
                base = name
                settings = {key: config[key] for key in plain if config[key] != plain[key]}
        shown = (f"{k}={v}" for k, v in settings.items() if self.defaults.get(k) != v)
        return f"{base}({','.join(shown)})"

    def look_alikes(self, config: Config) -> list[Config]:
        """Return the other configurations whose weights have the same names and shapes.

        Those that differ in the fewest settings come first.
        """
        groups = (self._group(config, key) for key in self.alike)
        found = [
            MappingProxyType({**config, **dict(zip(self.alike, values, strict=True))})
            for values in itertools.product(*groups)
        ]
        return sorted(
            (other for other in found if other != config),
            key=lambda other: sum(other[key] != config[key] for key in config),
        )

    def _group(self, config: Config, setting: str) -> tuple[Value, ...]:
        """Return the values of a setting that weights do not tell from that of ``config``."""
        value = config[setting]
        return next((group for group in self.alike[setting] if value in group), (value,))


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
        """Make the network, with fresh weights, in training mode.

        Raises:
            ArchitectureError: the family has no such member (a depth that it can't divide into
                stages, an unknown block). What :func:`infer_architecture` gives can be built.
        """
        return self.family.build(
            **self.config, num_classes=self.num_classes, in_channels=self.in_channels
        )

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Shape of one image as a batch: 1 x in_channels x height x width."""
        size = self.family.input_size
        return (1, self.in_channels, *(size(self.config) if callable(size) else size))

    @property
    def look_alikes(self) -> tuple[Architecture, ...]:
        """The other networks whose weights have the same names and shapes, the nearest first."""
        return tuple(
            replace(self, config=config) for config in self.family.look_alikes(self.config)
        )

    def __str__(self) -> str:
        return self.family.describe(self.config)


FAMILIES: Registry[Family] = Registry("family")
PRESETS: Registry[tuple[Family, Config]] = Registry("architecture")


def register(family: Family) -> Family:
    """Add a family and its presets to the zoo."""
    FAMILIES.register(family.name, family)
    for name, config in family.presets.items():
        PRESETS.register(name, (family, MappingProxyType(dict(config))))
    return family


def parse_architecture(text: str, *, num_classes: int, in_channels: int = 3) -> Architecture:
    """Return the architecture that ``text`` names.

    That is a preset, ``family(key=value,...)``, or ``preset(key=value,...)`` with settings of its
    own.

    Raises:
        ArchitectureError: there is none; the message lists the near names or the right keys.
    """
    match = re.fullmatch(r"\s*([\w-]+)\((.*)\)\s*", text)
    if match is None:
        family, config = _look_up(PRESETS, text.strip())
        return Architecture(family, config, num_classes, in_channels)
    if match[1] in PRESETS and match[1] not in FAMILIES:
        family, base = PRESETS[match[1]]
    else:
        family = _look_up(FAMILIES, match[1])
        base = family.defaults
    example = next(iter(family.presets.values()))
    given: dict[str, Value] = {}
    for item in filter(None, (part.strip() for part in match[2].split(","))):
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in example:
            raise ArchitectureError(
                f"{family.name} has no setting {key!r}: choose from {', '.join(example)}"
            )
        given[key] = _parse_value(family.name, key, value, example[key])
    given = {**base, **given}
    missing = [key for key in example if key not in given]
    if missing:
        raise ArchitectureError(f"{family.name}(...) needs {', '.join(missing)} as well")
    # In the order of the presets, so that one configuration has one text form.
    config = MappingProxyType({key: given[key] for key in example})
    return Architecture(family, config, num_classes, in_channels)


def infer_architecture(family: Family, shapes: Shapes) -> Architecture | None:
    """Return the member of ``family`` that a state dict could belong to, or None.

    Args:
        family: the family to try.
        shapes: the tensors' shapes by the family's own names (:meth:`Family.canonical_name`).

    Returns:
        An architecture that can be built, from a look at a few names and shapes only: compare all
        of them with the network it builds.
    """
    inferred = family.infer(shapes)
    if inferred is None:
        return None
    config = dict(inferred)
    num_classes, in_channels = int(config.pop("num_classes")), int(config.pop("in_channels"))
    return Architecture(family, MappingProxyType(config), num_classes, in_channels)


def none_on_misfit(read: Callable[[Shapes], Config]) -> Callable[[Shapes], Config | None]:
    """Make a :attr:`Family.infer` of a function that reads shapes as if they fitted.

    The function may look up names that are missing and unpack shapes of another rank: the result
    is then None. So it is where a number can't be a setting.
    """

    @functools.wraps(read)
    def infer(shapes: Shapes) -> Config | None:
        try:
            config = read(shapes)
        except (LookupError, ValueError, ZeroDivisionError):
            return None
        numbers = (value for value in config.values() if type(value) is int)
        return config if all(1 <= number <= MAX_SETTING for number in numbers) else None

    return infer


def count_children(shapes: Shapes, module: str) -> int:
    """Return how many children of ``module`` own tensors.

    Raises:
        LookupError: none do.
    """
    start = f"{module}."
    children = {key[len(start) :].partition(".")[0] for key in shapes if key.startswith(start)}
    if not children:
        raise LookupError(f"no tensor lies in {module}")
    return len(children)


def choose(setting: str, choices: Mapping[str, T], value: str) -> T:
    """Return the choice called ``value``.

    Raises:
        ArchitectureError: there is none.
    """
    if value not in choices:
        raise ArchitectureError(f"{setting}={value!r} is unknown: choose from {', '.join(choices)}")
    return choices[value]


def blocks_per_stage(depth: int, *, layers: int, others: int) -> int:
    """Return n, where a network with n blocks in each stage has ``layers * n + others`` layers.

    Raises:
        ArchitectureError: no whole number of blocks gives this depth.
    """
    blocks, rest = divmod(depth - others, layers)
    if rest or blocks < 1:
        raise ArchitectureError(
            f"depth={depth} can't be built: give {layers}n+{others}, such as {layers * 3 + others}"
        )
    return blocks


def _look_up(registry: Registry[T], name: str) -> T:
    try:
        return registry[name]
    except TrpexportError as error:
        raise ArchitectureError(str(error)) from None


def _parse_value(family: str, key: str, value: str, example: Value) -> Value:
    if isinstance(example, bool):
        if value in ("True", "False"):
            return value == "True"
    elif isinstance(example, int):
        if re.fullmatch(r"[1-9][0-9]{0,4}", value):
            return int(value)
    elif value:
        return value
    raise ArchitectureError(
        f"{family}: {key}={value!r} can't be used, it must look like {key}={example}"
    )
