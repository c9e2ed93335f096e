"""What a network takes: its inputs by name, their shapes and types. No torch, no onnx."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Union

import numpy as np

from trpexport.errors import DataError, TrpexportError
from trpexport.schema import each, fits, text, whole
from trpexport.tensors import Array, Arrays, Shape, shape_text

INPUT = "input"  # the name of the only input of a network
GOLDEN_INPUT, GOLDEN_OUTPUT = "input:", "output:"  # how a bundle's golden arrays are named
MAX_INPUT = 2**28  # values of an input that a file may ask for: 1 GiB of floats
DTYPES = ("bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
_SHAPE, _INPUTS = "input_shape", "inputs"  # how JSON has them: of one plain input, and of others


@dataclass(frozen=True)
class Input:
    """One input of a network.

    Attributes:
        shape: its shape, batch first.
        dtype: numpy's name of its type where it holds whole numbers or truth values; None for
            floats, in the type of the weights.
        below: whole numbers are drawn from 0 to below this where nobody gives any.
    """

    shape: Shape
    dtype: str | None = None
    below: int = 2

    def __post_init__(self) -> None:
        if not self.shape or min(self.shape) < 1:
            raise DataError(
                f"an input can't have the shape {shape_text(self.shape) or 'of no numbers'}: give "
                "the batch first, and sizes of at least 1",
                parameters=("input_shape",),
            )
        if self.dtype is not None and self.dtype not in DTYPES:
            raise DataError(
                f"an input can't be {self.dtype}: choose from {', '.join(DTYPES)}",
                parameters=("input_shape",),
            )

    def __str__(self) -> str:
        return shape_text(self.shape) + (f":{self.dtype}" if self.dtype else "")


class Inputs(Mapping[str, Input]):
    """The inputs of a network by name; the first dimension of each counts images.

    Raises:
        DataError: there are none, or they have different numbers of images.
    """

    def __init__(self, inputs: Mapping[str, Input]) -> None:
        self._inputs = dict(inputs)
        if len({one.shape[0] for one in self._inputs.values()}) != 1:
            raise DataError(
                f"the inputs {self} must have the same first dimension, which counts images: what "
                "is the same for all images belongs into the network, as a buffer",
                parameters=("input_shape",),
            )

    @classmethod
    def of(cls, like: Inputs | Sequence[int] | Mapping[str, Input | Sequence[int]]) -> Inputs:
        """Return inputs, of which one may be given by its shape alone."""
        if isinstance(like, Inputs):
            return like
        if not isinstance(like, Mapping):
            like = {INPUT: like}
        return cls(
            {
                name: one if isinstance(one, Input) else Input(tuple(one))
                for name, one in like.items()
            }
        )

    @property
    def batch(self) -> int:
        """How many images they are."""
        return self.first.shape[0]

    @property
    def first(self) -> Input:
        """The first of them."""
        return next(iter(self.values()))

    @property
    def elements(self) -> int:
        """Numbers for one image, all inputs together."""
        return sum(math.prod(one.shape[1:]) for one in self.values())

    def with_batch(self, batch: int) -> Inputs:
        """Return them for another number of images."""
        return self.map(lambda _, one: replace(one, shape=(batch, *one.shape[1:])))

    def map(self, function: Any) -> Inputs:
        """Return what ``function`` makes of each name and input, under the same names."""
        return Inputs({name: function(name, one) for name, one in self.items()})

    def named(
        self, given: Array | Arrays, what: str, error: type[TrpexportError] = DataError
    ) -> dict[str, Array]:
        """Return arrays by name, in the inputs' order; the only input's need not have one.

        Args:
            given: by name (images, *shape of one image), or an array for the only input.
            what: what they are, for the message.
            error: what is raised.

        Raises:
            TrpexportError: ``error``, for arrays that do not fit.
        """
        arrays = given if isinstance(given, Mapping) else {next(iter(self)): given}
        if arrays.keys() != self.keys():
            raise error(
                f"{what} are for {', '.join(arrays) or 'no input'}, the network takes "
                f"{', '.join(self)}: give an array for each"
            )
        for name, one in self.items():
            if arrays[name].ndim != len(one.shape) or arrays[name].shape[1:] != one.shape[1:]:
                wanted = shape_text(one.shape[1:])
                raise error(
                    f"{what}{self._for(name)} of shape {shape_text(arrays[name].shape)} do not fit "
                    f"the network, which takes images of {wanted}: give them as N x {wanted}"
                )
            if one.dtype is not None and arrays[name].dtype.kind not in "biu":
                raise error(
                    f"{what}{self._for(name)} are {arrays[name].dtype}, the network takes "
                    f"{one.dtype}"
                )
        if len({len(array) for array in arrays.values()}) > 1:
            counts = ", ".join(f"{len(array)} for {name}" for name, array in arrays.items())
            raise error(f"{what} are {counts}: give as many for each input")
        return {name: arrays[name] for name in self}

    def to_json(self) -> dict[str, Any]:
        """Return them as an entry of JSON-ready facts: ``input_shape`` of one plain input."""
        if self == Inputs.of({INPUT: self.first.shape}):
            return {_SHAPE: list(self.first.shape)}
        return {
            _INPUTS: {
                name: {"shape": list(one.shape)}
                | ({} if one.dtype is None else {"dtype": one.dtype, "below": one.below})
                for name, one in self.items()
            }
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Inputs | None:
        """Read what :meth:`to_json` made among other facts; None where they say nothing.

        Raises:
            ValueError: it is something else, or too large.
        """
        found = data.get(_INPUTS)
        if found is None:
            if (shape := data.get(_SHAPE)) is None:
                return None
            found = {INPUT: {"shape": shape}}
        if not fits(found, each(lambda one: isinstance(one, Mapping))) or not found:
            raise ValueError(f"{_INPUTS!r} must be shapes by name")
        try:
            return cls({name: _parsed(name, one) for name, one in found.items()})
        except DataError as error:
            raise ValueError(error) from None

    def _for(self, name: str) -> str:
        return f" for {name}" if len(self) > 1 else ""

    def __getitem__(self, name: str) -> Input:
        return self._inputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)

    def __str__(self) -> str:
        if list(self) == [INPUT]:
            return str(self.first)
        return ", ".join(f"{name}={one}" for name, one in self.items())

    def __repr__(self) -> str:
        return f"Inputs({self._inputs})"


# All of them, or the shape of the only one.
InputsLike = Union[Inputs, Sequence[int]]  # noqa: UP007 - Python 3.9 reads this on a device


def rows(given: Array | Arrays, which: Any) -> Any:
    """Return some of the images of an array, or of each of several by name."""
    if isinstance(given, Mapping):
        return {name: array[which] for name, array in given.items()}
    return given[which]


def images_of(given: Array | Arrays) -> int:
    """Return of how many images the inputs are."""
    return len(next(iter(given.values())) if isinstance(given, Mapping) else given)


def input_of_array(array: Array, batch: int | None = None) -> Input:
    """Return the input that an array is an example of.

    Args:
        array: the example, batch first.
        batch: how many images the input has; as many as the array where it is None.
    """
    shape = tuple(int(size) for size in array.shape)
    shape = shape if batch is None else (batch, *shape[1:])
    if array.dtype.kind not in "biu":
        return Input(shape)
    return Input(shape, str(array.dtype), max(2, int(np.max(array, initial=0)) + 1))


def _parsed(name: str, data: Mapping[str, Any]) -> Input:
    shape, dtype, below = data.get("shape"), data.get("dtype"), data.get("below", 2)
    if not (shape and fits(shape, [whole(0)]) and 1 <= math.prod(shape) <= MAX_INPUT):
        place = repr(_SHAPE) if name == INPUT else f"the shape of {name!r}"
        raise ValueError(f"{place} must be a list of whole numbers of a sensible size")
    if not (dtype is None or (text(dtype) and dtype in DTYPES)) or not whole(2)(below):
        raise ValueError(f"the type of {name!r} must be one of {', '.join(DTYPES)}")
    return Input(tuple(shape), dtype, below)
