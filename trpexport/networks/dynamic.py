"""Which dimensions of a network's inputs an ONNX file leaves open, besides the batch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from trpexport.errors import ModelError
from trpexport.inputs import Input, Inputs

Dynamic = Mapping[str, Mapping[int, str]]  # by input: the names of its open axes
# Names that stand for an axis of every input of images, from its end.
_KNOWN = {"height": -2, "width": -1}
_IMAGE_RANK = 4
_GROWN, _SHRUNK = 1.5, 0.75
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


def parse_dynamic(texts: Iterable[str], inputs: Inputs) -> dict[str, dict[int, str]]:
    """Read which dimensions are open: ``height``, ``width``, or ``NAME:AXIS=DIMENSION``.

    Raises:
        ModelError: there is no such dimension.
    """
    found: dict[str, dict[int, str]] = {}
    for text in texts:
        for name, axis, dimension in _axes(text, inputs):
            found.setdefault(name, {})[axis] = dimension
    return found


def _axes(text: str, inputs: Inputs) -> Iterator[tuple[str, int, str]]:
    images = {name: one for name, one in inputs.items() if len(one.shape) >= _IMAGE_RANK}
    if text in _KNOWN and images:
        for name, one in images.items():
            yield name, len(one.shape) + _KNOWN[text], text
        return
    parts = re.fullmatch(r"(.+):(\d+)=([A-Za-z_]\w*)", text)
    if parts is None or parts[1] not in inputs or parts[3] == "batch":
        raise ModelError(
            f"{text!r} names no dimension of {inputs}: give height or width, of images, or an "
            f"input's axis, as in {next(iter(inputs))}:2=length",
            parameters=("dynamic",),
        )
    name, axis = parts[1], int(parts[2])
    if not 1 <= axis < len(inputs[name].shape):
        raise ModelError(
            f"{text!r} names no dimension: {name} has axes 1 to {len(inputs[name].shape) - 1} "
            "besides its batch",
            parameters=("dynamic",),
        )
    yield name, axis, parts[3]


def dimensions(dynamic: Dynamic) -> list[str]:
    """Return the names of the dimensions that are open, each once."""
    return list(dict.fromkeys(name for axes in dynamic.values() for name in axes.values()))


def other_sizes(inputs: Inputs, dynamic: Dynamic) -> Iterator[Sequence[Inputs]]:
    """Yield inputs of other sizes to try, in groups of which one that runs will do.

    The groups are larger ones, smaller ones, and those whose dimensions change by turns; in each
    the sizes are multiples of ever larger numbers, as networks that halve and double need them.
    """
    names = dimensions(dynamic)
    groups = [dict.fromkeys(names, factor) for factor in (_GROWN, _SHRUNK)] if names else []
    if len(names) > 1:
        groups.append({name: (_SHRUNK, _GROWN)[i % 2] for i, name in enumerate(names)})
    for factors in groups:
        sizes = [_resized(inputs, dynamic, factors, multiple) for multiple in _MULTIPLES]
        yield [size for size in sizes if size != inputs]


def _resized(
    inputs: Inputs, dynamic: Dynamic, factors: Mapping[str, float], multiple: int
) -> Inputs:
    def resized(name: str, one: Input) -> Input:
        shape = list(one.shape)
        for axis, dimension in dynamic.get(name, {}).items():
            size = round(shape[axis] * factors[dimension] / multiple) * multiple
            shape[axis] = max(2, multiple, size)
        return replace(one, shape=tuple(shape))

    return inputs.map(resized)
