"""Named arrays and what is known of them: type aliases, and the shapes of a network's inputs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np

from trpexport.errors import ModelError
from trpexport.schema import each, fits, whole

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = Mapping[str, Array]
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
NO_SHAPES: Shapes = MappingProxyType({})
ONLY_INPUT = ""  # stands for the name of an input where there is but one
USUAL_SHAPES = "trpexport.input_shapes"  # what a file's metadata call the sizes of its inputs
UNNAMED = "?"  # stands for a dynamic dimension without a name


@dataclass(frozen=True)
class TensorInfo:
    """One input or output of a network.

    Attributes:
        name: its name in the file.
        shape: one entry a dimension, a name where it is dynamic (:data:`UNNAMED` if it
            has none). Empty for a scalar, and where the file does not say.
        dtype: the element type.
        usual: the sizes that it gets where nobody names others; empty where none are known.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: np.dtype[Any]
    usual: Shape = ()

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape can stand here."""
        if not self.shape:
            return True
        return len(shape) == len(self.shape) and all(
            isinstance(wanted, str) or wanted == given
            for wanted, given in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.name} {self.dtype}[{shape_text(self.shape)}]"


def free_dimensions(shape: Sequence[int | str]) -> tuple[int | str, ...]:
    """Return the shape of an input with its sizes below zero free: so Paddle writes them."""
    return tuple(UNNAMED if isinstance(n, int) and n < 0 else n for n in shape)


def shape_text(shape: Sequence[int | str]) -> str:
    """Return a shape as it is typed on the command line: ``1x3x224x224``."""
    return "x".join(map(str, shape))


def with_usual_shapes(
    inputs: Iterable[TensorInfo], metadata: Mapping[str, str]
) -> list[TensorInfo]:
    """Return inputs with the sizes that the metadata of their file name as usual, if they fit."""
    try:
        usual = json.loads(metadata.get(USUAL_SHAPES, "{}"))
    except (ValueError, RecursionError):
        usual = {}
    if not fits(usual, each([whole(1)])):
        usual = {}
    return [
        replace(info, usual=tuple(usual[info.name]))
        if info.shape and info.accepts(usual.get(info.name, ()))
        else info
        for info in inputs
    ]


def resolve_shapes(
    inputs: Sequence[TensorInfo], overrides: Shapes, batch: int = 1
) -> dict[str, Shape]:
    """Return a shape without dynamic dimensions for every input.

    Args:
        inputs: the inputs of a network.
        overrides: whole shapes by input name, or of :data:`ONLY_INPUT`; they also fix the
            dimensions of the same name in the other inputs.
        batch: the first dimension, where it is dynamic and not overridden.

    Raises:
        ModelError: an override is for no input or does not fit; or a dimension other than the
            first is dynamic and has neither that nor a usual size.
    """
    overrides = _named([inputs], overrides)
    _check_names(inputs, overrides)
    sizes: dict[str, int] = {}
    for info in inputs:
        if info.name in overrides:
            bind_dimensions(info, overrides[info.name], sizes)
    return {
        info.name: overrides.get(info.name) or _fixed_shape(info, sizes, batch) for info in inputs
    }


def shapes_by_network(
    networks: Sequence[Sequence[TensorInfo]], shapes: Shapes
) -> list[dict[str, Shape]]:
    """Return which of some shapes the inputs of each network get.

    A shape is for all inputs of its name. Where networks are made for different sizes, an input
    that is fixed to another size than the shape's keeps its own, and only its free batch follows.

    Args:
        networks: the inputs of each network.
        shapes: whole input shapes by name, or of :data:`ONLY_INPUT`.

    Raises:
        ModelError: no network has an input of that name that can have the shape, or one that
            needs a shape can't.
    """
    infos = [info for inputs in networks for info in inputs]
    shapes = _named(networks, shapes)
    _check_names(infos, shapes)
    for name, shape in shapes.items():
        bearers = [info for info in infos if info.name == name]
        if not any(info.accepts(shape) for info in bearers):
            raise _unfit(bearers[0], shape)
    return [
        {info.name: _shape_of(info, shapes[info.name]) for info in inputs if info.name in shapes}
        for inputs in networks
    ]


def _named(networks: Sequence[Sequence[TensorInfo]], shapes: Shapes) -> Shapes:
    """Return shapes by input name where one was given for the only input of each network.

    Raises:
        ModelError: a network has several inputs.
    """
    if ONLY_INPUT not in shapes:
        return shapes
    named = {name: shape for name, shape in shapes.items() if name != ONLY_INPUT}
    for inputs in networks:
        if len(inputs) != 1:
            names = ", ".join(info.name for info in inputs)
            raise ModelError(
                f"there are several inputs ({names}): name the one that has the shape, as in "
                f"{inputs[0].name if inputs else 'input'}={shape_text(shapes[ONLY_INPUT])}",
                parameters=("shapes",),
            )
        named[inputs[0].name] = shapes[ONLY_INPUT]
    return named


def _check_names(inputs: Sequence[TensorInfo], shapes: Shapes) -> None:
    names = dict.fromkeys(info.name for info in inputs)
    for name in shapes:
        if name not in names:
            raise ModelError(
                f"there is no input {name!r} to give a shape: choose from {', '.join(names)}",
                parameters=("shapes",),
            )


def _shape_of(info: TensorInfo, given: Shape) -> Shape:
    """Return a shape that was given, or the one that an input is fixed to."""
    own = tuple(n for n in info.shape[1:] if isinstance(n, int))
    if info.accepts(given) or len(own) + 1 != len(info.shape) or len(given) != len(info.shape):
        return given
    batch = given[0] if isinstance(info.shape[0], str) else info.shape[0]
    return (batch, *own)


def bind_dimensions(info: TensorInfo, shape: Shape, sizes: dict[str, int]) -> None:
    """Add to ``sizes`` what ``shape`` makes of the named dimensions of ``info``.

    Raises:
        ModelError: the shape does not fit, or contradicts ``sizes``.
    """
    if not info.accepts(shape) or min(shape, default=1) < 1:
        raise _unfit(info, shape)
    for name, size in zip(info.shape, shape, strict=False):  # info.shape may be unknown
        if isinstance(name, str) and name != UNNAMED and sizes.setdefault(name, size) != size:
            raise ModelError(
                f"the dimension {name} can't be both {sizes[name]} and {size}: "
                f"give {info.name} a shape that agrees with the other inputs"
            )


def _unfit(info: TensorInfo, shape: Shape) -> ModelError:
    return ModelError(
        f"the input {info} can't have the shape {shape_text(shape)}: "
        "only its named dimensions are free, and none can be below 1",
        parameters=("shapes",),
    )


def _example(shape: Sequence[int | str]) -> str:
    """Return a shape with some size for each dimension that is free."""
    return shape_text([n if isinstance(n, int) else 224 for n in shape])


def _fixed_shape(info: TensorInfo, sizes: Mapping[str, int], batch: int) -> Shape:
    shape = [sizes.get(n, n) if isinstance(n, str) else n for n in info.shape]
    if shape and isinstance(shape[0], str):
        shape[0] = batch
    if info.usual:
        shape = [
            usual if isinstance(n, str) else n for n, usual in zip(shape, info.usual, strict=True)
        ]
    fixed = tuple(n for n in shape if isinstance(n, int))
    if len(fixed) < len(shape):
        raise ModelError(
            f"the input {info} has dynamic dimensions: give its shape, "
            f"as in {info.name}={_example(shape)}",
            parameters=("shapes",),
        )
    return fixed


def has_channels_last(shape: Sequence[int | str], channels: int) -> bool:
    """Whether a shape, batch first, has so many channels in its last place, not its second."""
    return len(shape) > 1 and shape[-1] == channels and shape[1] != channels


def laid_out(images: Array, shape: Sequence[int | str]) -> Array:
    """Return images, (n, channels, height, width), with the channels last if a shape has them so.

    Args:
        images: the images.
        shape: of the network's input, batch first; names stand for sizes that are open.
    """
    is_last = len(shape) == images.ndim and has_channels_last(shape, images.shape[1])
    return np.ascontiguousarray(np.moveaxis(images, 1, -1)) if is_last else images
