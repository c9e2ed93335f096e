"""Running a network from modules on whose outputs are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from torch import Tensor, nn

from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.running import (
    StoppedPass,
    argument,
    evaluating,
    forwards_replaced,
    noting,
    tensor_leaves,
)

Output = Tensor | tuple[Tensor, ...]
"""What a module returns: a tensor, or a tuple of some."""


@dataclass(frozen=True)
class Form:
    """What a module returns, but for the values.

    Attributes:
        shapes: of its tensors, for one image.
        is_tuple: whether it returns a tuple of them.
        grow: for each, whether its first dimension is as many times as long for more images.
    """

    shapes: tuple[tuple[int, ...], ...]
    is_tuple: bool
    grow: tuple[bool, ...] = ()

    @classmethod
    def of(cls, output: Any) -> Self | None:
        """Return the form of an output; None where it is no tensor, nor a tuple of tensors."""
        is_tuple = type(output) is tuple  # one with names can't be made of its tensors alone
        tensors = output if is_tuple else (output,)
        if not tensors or not all(isinstance(tensor, Tensor) for tensor in tensors):
            return None
        return cls(tuple(tuple(tensor.shape) for tensor in tensors), is_tuple)

    def beside(self, twice: Form) -> Self | None:
        """Return it with what grows; None where it can't be told.

        Args:
            twice: that of two images.
        """
        shapes = list(zip(self.shapes, twice.shapes, strict=False))
        grow = tuple(one != two for one, two in shapes)
        told = all(one == two or (one and two == (2 * one[0], *one[1:])) for one, two in shapes)
        return replace(self, grow=grow) if told and len(grow) == len(twice.shapes) else None

    def filled(self, images: int, filler: Callable[[tuple[int, ...]], Tensor]) -> Output:
        """Return an output of so many images.

        Args:
            images: how many.
            filler: makes a tensor of a shape.
        """
        tensors = tuple(
            filler((images * shape[0], *shape[1:]) if grows else shape)
            for shape, grows in zip(self.shapes, self.grow, strict=True)
        )
        return tensors if self.is_tuple else tensors[0]


@dataclass(frozen=True)
class Cut:
    """Modules whose outputs are all that the rest of the network needs.

    Attributes:
        names: the modules.
        end: when the last of what is skipped returned, in ticks of one forward pass.
        skipped: modules that need not run once those outputs are known, and the forms of what they
            return; ``names`` themselves are among them.
    """

    names: tuple[str, ...]
    end: int
    skipped: Mapping[str, Form]

    def images(self, outputs: Mapping[str, Output]) -> int:
        """Return of how many images these are the outputs of the modules."""
        for name, output in outputs.items():
            form = self.skipped[name]
            for tensor, shape, grows in zip(
                tensor_leaves(output), form.shapes, form.grow, strict=True
            ):
                if grows:
                    return len(tensor) // shape[0]
        raise AssertionError  # no cut is made of such


def outputs_at(model: nn.Module, names: Sequence[str], x: Tensor | Arguments) -> dict[str, Output]:
    """Return the outputs of modules that run once; what follows the last one does not run."""
    found: dict[str, Output] = {}

    def keep(name: str, *noted: Any) -> None:
        found[name] = cloned(noted[-1])
        if len(found) == len(names):
            raise StoppedPass

    try:
        with (
            evaluating(model),
            noting({model.get_submodule(name): partial(keep, name) for name in names}),
        ):
            Arguments.of(x).call(model)
    except StoppedPass:
        pass
    return found


def input_at(model: nn.Module, name: str, x: Tensor | Arguments) -> Tensor:
    """Return the input of the module ``name``; neither it nor what follows runs."""
    found: list[Tensor] = []

    def keep(*inputs: Any, **keywords: Any) -> Any:
        found.append(argument(inputs, keywords))
        raise StoppedPass

    try:
        with evaluating(model), forwards_replaced({model.get_submodule(name): keep}):
            Arguments.of(x).call(model)
    except StoppedPass:
        pass
    return found[0]


def resumed(
    model: nn.Module,
    cut: Cut,
    outputs: Mapping[str, Output],
    filler: Callable[[tuple[int, ...]], Tensor],
) -> AbstractContextManager[None]:
    """Let the modules of a cut return ``outputs`` within the block, what else is skipped a filler.

    Args:
        model: the network.
        cut: where to resume.
        outputs: what its modules return.
        filler: makes a tensor of a shape that nothing is to read.
    """
    images = cut.images(outputs)

    def give(name: str, *_: Any, **__: Any) -> Output:
        if name in outputs:
            return cloned(outputs[name])  # what follows may work in place
        return cut.skipped[name].filled(images, filler)

    forwards = {model.get_submodule(name): partial(give, name) for name in cut.skipped}
    return forwards_replaced(forwards)


def cloned(output: Output) -> Output:
    """Return a copy of what a module returned."""
    return output.clone() if isinstance(output, Tensor) else tuple(x.clone() for x in output)
