"""A network's outputs as named tensors, whatever container it returns them in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from torch import Tensor

from trpexport.errors import ModelError
from trpexport.inputs import INPUT

OUTPUT = "output"


def named_tensors(output: Any, inputs: Collection[str] = (INPUT,)) -> dict[str, Tensor]:
    """Give the tensors that a network returned the names that its ONNX file gets.

    One tensor is ``output``; several are ``output_0``, ``output_1``, ...; those in a mapping keep
    their keys. Containers in containers add up to ``output_1_0``, ``boxes_0``; None is left out.

    Args:
        output: what it returned.
        inputs: names of its inputs.

    Raises:
        ModelError: something in it is no tensor, or nothing is one.
    """
    named: dict[str, Tensor] = {}
    for path, tensor in _leaves(output, ()):
        name = "_".join(path)
        if not path or not isinstance(output, Mapping):
            name = "_".join((OUTPUT, *path))
        elif name in inputs:  # a graph has one value of a name
            name = f"{OUTPUT}_{name}"
        named[name] = tensor
    if not named:
        raise ModelError("the network returns no tensor: wrap it so that it does")
    return named


def is_flat(output: Any) -> bool:
    """Whether exporters name the outputs as :func:`named_tensors` does, as they stand."""
    if isinstance(output, Tensor):
        return True
    values = output.values() if isinstance(output, Mapping) else output
    return all(isinstance(value, Tensor) for value in values)


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*path, str(index)))
    elif value is not None:
        raise ModelError(
            f"the network's {'_'.join(path) or OUTPUT} is a {type(value).__name__}: only tensors "
            "can be exported, wrap the network so that it returns tensors"
        )
