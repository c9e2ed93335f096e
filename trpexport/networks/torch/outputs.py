"""A network's outputs as named tensors, whatever container it returns them in."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from torch import Tensor

from trpexport.errors import DataError, ModelError
from trpexport.inputs import INPUT

OUTPUT = "output"
T = TypeVar("T")


def named_tensors(output: Any, inputs: Collection[str] = (INPUT,)) -> dict[str, Tensor]:
    """Give the tensors that a network returned the names that its ONNX file gets.

    One tensor is ``output``; several are ``output_0``, ``output_1``, ...; those in a mapping or a
    data class keep their keys. Containers in containers add up to ``output_1_0``, ``boxes_0``. What
    is no tensor is left out: :func:`left_out` tells of it.

    Args:
        output: what it returned.
        inputs: names of its inputs.

    Raises:
        ModelError: nothing in it is a tensor.
    """
    named: dict[str, Tensor] = {}
    for path, value in _leaves(output, ()):
        if isinstance(value, Tensor):
            name = "_".join(path)
            if not path or not isinstance(_opened(output), Mapping):
                name = "_".join((OUTPUT, *path))
            while name in inputs or name in named:  # a graph has one value of a name
                name = f"{OUTPUT}_{name}"
            named[name] = value
    if not named:
        raise ModelError("the network returns no tensor: wrap it so that it does")
    return named


def left_out(output: Any) -> dict[str, str]:
    """Return what in a network's output is no tensor and no None, by its place: its type's name."""
    return {
        "_".join(path) or OUTPUT: type(value).__name__
        for path, value in _leaves(output, ())
        if value is not None and not isinstance(value, Tensor)
    }


def picked(named: Mapping[str, T], patterns: Sequence[str]) -> dict[str, T]:
    """Return the outputs whose names match one of some globs; all where there are none.

    Raises:
        DataError: a glob matches no output.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise DataError(
                f"the network has no output {pattern!r}: choose from {', '.join(named)}",
                parameters=("outputs",),
            )
    return {
        name: value
        for name, value in named.items()
        if not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def is_flat(output: Any) -> bool:
    """Whether exporters name the outputs as :func:`named_tensors` does, as they stand."""
    if isinstance(output, Tensor):
        return True
    values = output.values() if isinstance(output, Mapping) else output
    return type(output) in (dict, list, tuple) and all(isinstance(x, Tensor) for x in values)


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield what a value holds, with the keys on the way to it."""
    opened = value if isinstance(value, Tensor) else _opened(value)
    if isinstance(opened, Mapping):
        for key, inner in opened.items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(opened, list | tuple):
        for index, inner in enumerate(opened):
            yield from _leaves(inner, (*path, str(index)))
    else:
        yield path, value


def _opened(value: Any) -> Any:
    """Return a data class as a mapping; others, such as Hugging Face's, are one already."""
    if is_dataclass(value) and not isinstance(value, type | Mapping):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return value
