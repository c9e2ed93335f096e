"""What a forward is called with: tensors, by place or by the names of its parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.errors import ModelError, PlanError
from trpexport.inputs import INPUT, Input, Inputs

_BY_PLACE = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_ANY_PLACE, _ANY_NAME = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD


@dataclass(frozen=True)
class Arguments:
    """What a forward is called with.

    Attributes:
        tensors: by input, in the order of the forward's parameters.
        are_keywords: whether the forward takes them by name, not by place.
    """

    tensors: Mapping[str, Tensor]
    are_keywords: bool = False

    @classmethod
    def of(cls, x: Tensor | Arguments) -> Arguments:
        """Return arguments, of which the only one may be given as it is."""
        return x if isinstance(x, Arguments) else cls({INPUT: x})

    def call(self, model: nn.Module) -> Any:
        """Return what a network makes of them."""
        return model(*self.by_place, **self.by_name)

    @property
    def by_place(self) -> tuple[Tensor, ...]:
        """Those that the forward takes by place."""
        return () if self.are_keywords else tuple(self.tensors.values())

    @property
    def by_name(self) -> dict[str, Tensor]:
        """Those that the forward takes by name."""
        return dict(self.tensors) if self.are_keywords else {}

    def map(self, function: Callable[[Tensor], Tensor]) -> Arguments:
        """Return what a function makes of each."""
        return replace(self, tensors={name: function(x) for name, x in self.tensors.items()})

    def clone(self) -> Arguments:
        """Return copies: a network may change its inputs in their place."""
        return self.map(torch.clone)

    def first(self, images: int) -> Arguments:
        """Return those of the first images."""
        return self.map(lambda x: x[:images])

    def joined(self, other: Arguments) -> Arguments:
        """Return those of these images and of others."""
        tensors = {name: torch.cat([x, other.tensors[name]]) for name, x in self.tensors.items()}
        return replace(self, tensors=tensors)

    @property
    def images(self) -> int:
        """How many images they are."""
        return len(next(iter(self.tensors.values())))


def drawn(inputs: Inputs, seed: int = 0) -> dict[str, Tensor]:
    """Return standard normal numbers for each input, the same for the same seed.

    Whole numbers are as likely each.

    Raises:
        ModelError: they take more memory than there is.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw(one: Input) -> Tensor:
        if one.dtype is None:
            return torch.randn(*one.shape, generator=generator)
        dtype: torch.dtype = getattr(torch, one.dtype)
        limit = 2 if dtype == torch.bool else min(one.below, torch.iinfo(dtype).max)
        return torch.randint(0, limit, one.shape, generator=generator).to(dtype)

    try:
        return {name: draw(one) for name, one in inputs.items()}
    except RuntimeError as error:  # from its allocator, or before that
        raise ModelError(
            f"inputs of {inputs} take more memory than there is: give smaller ones",
            parameters=("input_shape",),
        ) from error


def are_keywords(model: nn.Module, names: Collection[str]) -> bool:
    """Whether a network's forward takes inputs of these names by name.

    The only input, by the name that such a one has, is given by its place, as ever.

    Raises:
        PlanError: it takes some of them neither by name nor by place.
    """
    parameters = _parameters(model)
    if list(names) == [INPUT] or parameters is None:
        return list(names) != [INPUT]
    kinds = [parameter.kind for parameter in parameters]
    by_name = {parameter.name for parameter in parameters if parameter.kind in _BY_NAME}
    if by_name.issuperset(names) or _ANY_NAME in kinds:
        return True
    by_place = [parameter.name for parameter in parameters if parameter.kind in _BY_PLACE]
    is_placed = list(names)[: len(by_place)] == by_place[: len(names)]
    if is_placed and (_ANY_PLACE in kinds or len(names) <= len(by_place)):
        return False
    unknown = ", ".join(name for name in names if name not in by_name)
    raise PlanError(
        f"the network's forward takes {', '.join(p.name for p in parameters) or 'nothing'}, and no "
        f"{unknown}: give its inputs by these names",
        parameters=("input_shape",),
    )


def in_order(model: nn.Module, inputs: Inputs) -> Inputs:
    """Return inputs in the order of the parameters of a network's forward."""
    places = [parameter.name for parameter in _parameters(model) or ()]
    names = sorted(inputs, key=lambda name: places.index(name) if name in places else len(places))
    return Inputs({name: inputs[name] for name in names})


def names_by_place(model: nn.Module, count: int) -> list[str]:
    """Return what the first inputs of a network are called: as the parameters of its forward."""
    if count == 1:
        return [INPUT]
    known = [p.name for p in _parameters(model) or () if p.kind in _BY_PLACE][:count]
    return [*known, *(f"{INPUT}_{index}" for index in range(len(known), count))]


def _parameters(model: nn.Module) -> list[inspect.Parameter] | None:
    """Return the parameters of a network's forward; None where Python does not know them."""
    try:
        return list(inspect.signature(model.forward).parameters.values())
    except (TypeError, ValueError):
        return None
