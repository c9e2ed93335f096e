"""Recognising an architecture of the zoo from parameter names and shapes."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from trpexport.checkpoints.keys import (
    MAX_TENSORS,
    KeyDifference,
    Reading,
    Shapes,
    key_difference,
    nearest_reading,
    readings,
)
from trpexport.errors import ArchitectureError

if TYPE_CHECKING:  # only for the types: the zoo is loaded by name, see docs/architecture.md
    from models_zoo.family import Architecture, Family

_REMEDY = "name it, or bring your own network as package.module:factory"
_CANDIDATES_SHOWN = 3


@dataclass(frozen=True)
class Match:
    """An architecture, and the reading of a file's names under which the weights fit it."""

    architecture: Architecture
    reading: Reading


@dataclass(frozen=True)
class _Near:
    match: Match
    difference: KeyDifference


def identify(shapes: Shapes) -> Match:
    """Find the one architecture of the zoo that has exactly these parameters.

    Class count and input channels are read from the weights. Prefixes in the names and the names
    that other code bases use are understood.

    Args:
        shapes: shape of each parameter and buffer by its name in the file.

    Raises:
        ArchitectureError: there is none, or more than one; the message lists the candidates, and
            for an unknown one the difference to the nearest.
    """
    near: list[_Near] = []
    tried: list[Reading] = []
    for reading in readings(shapes):
        tried.append(reading)
        found = list(_inferred(reading, shapes))
        fitting = [item.match for item in found if not item.difference]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            names = ", ".join(str(match.architecture) for match in fitting)
            raise ArchitectureError(
                f"the weights fit several architectures ({names}): choose one of them"
            )
        near += found
    raise _unknown(near or list(_presets(tried, shapes)))


def match_architecture(text: str, shapes: Shapes, *, remedy: str) -> Match:
    """Check that weights belong to a named architecture.

    Class count and input channels are read from the weights.

    Args:
        text: a preset of the zoo, or ``family(key=value,...)``.
        shapes: shape of each parameter and buffer by its name in the file.
        remedy: what to do where they don't, for the message.

    Raises:
        ArchitectureError: there is none of that name, or the weights differ from it; the message
            says where.
    """
    zoo = importlib.import_module("trpexport.models_zoo")
    family: Family = zoo.parse_architecture(text, num_classes=1).family
    nearest: _Near | None = None
    for reading in _family_readings(family, readings(shapes)):
        num_classes, in_channels = _counts(family, reading.shapes(shapes))
        architecture = zoo.parse_architecture(
            text, num_classes=num_classes, in_channels=in_channels
        )
        difference = key_difference(_built_shapes(architecture), reading.shapes(shapes))
        if nearest is None or difference.share > nearest.difference.share:
            nearest = _Near(Match(architecture, reading), difference)
        if not difference:
            return Match(architecture, reading)
    if nearest is None:
        raise ArchitectureError(
            f"the names can't be {family.name}'s, two of them become one: {remedy}"
        )
    raise ArchitectureError(
        f"the weights are not {nearest.match.architecture}'s: {nearest.difference}; {remedy}"
    )


def match_network(network: nn.Module, label: str, shapes: Shapes) -> Reading:
    """Return the reading of a file's names under which the weights fit a network.

    Raises:
        ArchitectureError: there is none; the message says where they differ.
    """
    reading, difference = nearest_reading(readings(shapes), shapes, shapes_of(network))
    if difference:
        raise ArchitectureError(
            f"the weights don't fit {label}: {difference}; give the network they were trained in"
        )
    return reading


def shapes_of(network: nn.Module) -> Shapes:
    """Return the shape of each parameter and buffer that a network saves."""
    return {
        name: tuple(value.shape)
        for name, value in network.state_dict().items()
        if isinstance(value, torch.Tensor)
    }


_RANDOM = frozenset(
    {
        torch.Tensor.normal_,
        torch.Tensor.uniform_,
        nn.init.kaiming_normal_,
        nn.init.kaiming_uniform_,
        nn.init.normal_,
        nn.init.uniform_,
    }
)


class WithoutRandomNumbers(TorchFunctionMode):
    """Skips random initialisation, which on the meta device is slow and has no effect."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = kwargs or {}
        if func in _RANDOM:
            return next(iter((*args, *given.values())))  # the tensor to fill
        return func(*args, **given)


def outline_of(architecture: Architecture) -> nn.Module:
    """Return a network of the zoo without memory for its weights, on the meta device.

    Raises:
        ArchitectureError: it has more parameters than any network.
    """
    counter = itertools.count(1)

    def counted(*_: Any) -> None:
        if next(counter) > MAX_TENSORS:
            raise ArchitectureError(
                f"{architecture} has more than {MAX_TENSORS} parameters, as no network has: give "
                "the one that the weights are of"
            )

    hook = register_module_parameter_registration_hook(counted)
    try:
        with torch.device("meta"), WithoutRandomNumbers():
            return architecture.build()
    finally:
        hook.remove()


def _built_shapes(architecture: Architecture) -> Shapes:
    return shapes_of(outline_of(architecture))


def _inferred(reading: Reading, shapes: Shapes) -> Iterator[_Near]:
    """Yield what each family takes the weights for, right or wrong."""
    zoo = importlib.import_module("trpexport.models_zoo")
    for name in zoo.FAMILIES:
        family: Family = zoo.FAMILIES[name]
        for own in _family_readings(family, [reading]):
            own_shapes = own.shapes(shapes)
            architecture = zoo.infer_architecture(family, own_shapes)
            if architecture is not None:
                difference = key_difference(_built_shapes(architecture), own_shapes)
                yield _Near(Match(architecture, own), difference)


def _presets(tried: list[Reading], shapes: Shapes) -> Iterator[_Near]:
    """Yield every preset of the zoo with the reading that comes nearest to it."""
    zoo = importlib.import_module("trpexport.models_zoo")
    for name, (family, _) in zoo.PRESETS.items():
        own = list(_family_readings(family, tried))
        if own:
            num_classes, in_channels = _counts(family, own[0].shapes(shapes))
            architecture = zoo.parse_architecture(
                name, num_classes=num_classes, in_channels=in_channels
            )
            reading, difference = nearest_reading(own, shapes, _built_shapes(architecture))
            yield _Near(Match(architecture, reading), difference)


def _family_readings(family: Family, candidates: Iterable[Reading]) -> Iterator[Reading]:
    """Yield readings in a family's own names, without those where two names become one."""
    for reading in candidates:
        own = reading.renamed(family.canonical_name, "read")
        if own is not None:
            yield own


def _counts(family: Family, shapes: Shapes) -> tuple[int, int]:
    """Read class count and input channels off the weights: the family's way, else by position."""
    zoo = importlib.import_module("trpexport.models_zoo")
    architecture = zoo.infer_architecture(family, shapes)
    if architecture is not None:
        return architecture.num_classes, architecture.in_channels
    matrices = [shape for shape in shapes.values() if len(shape) == 2]
    kernels = [shape for shape in shapes.values() if len(shape) == 4]
    return (matrices[-1][0] if matrices else 1000), (kernels[0][1] if kernels else 3)


def _unknown(near: list[_Near]) -> ArchitectureError:
    ranked = sorted(near, key=lambda item: item.difference.share, reverse=True)
    if not ranked or ranked[0].difference.share == 0:
        return ArchitectureError(f"no architecture of the zoo has such parameters: {_REMEDY}")
    shares: dict[str, float] = {}
    for item in ranked:
        shares.setdefault(str(item.match.architecture), item.difference.share)
    shown = ", ".join(
        f"{label} ({share:.0%} of names and shapes)"
        for label, share in list(shares.items())[:_CANDIDATES_SHOWN]
    )
    nearest = ranked[0]
    return ArchitectureError(
        f"no architecture of the zoo has exactly these parameters; nearest are {shown}; to "
        f"{nearest.match.architecture}: {nearest.difference}; {_REMEDY}"
    )
