"""Arrays to run a network on: drawn, or given by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from trpexport.errors import ModelError
from trpexport.onnxfile.input_values import Choice
from trpexport.tensors import Array, Arrays, Shape, TensorInfo


def drawn(
    info: TensorInfo, shape: Shape, choice: Choice | None, generator: np.random.Generator
) -> Array:
    """Return an array for an input; what :meth:`Session.random_inputs` says holds for it."""
    if info.dtype.kind == "f":
        if not shape:
            return np.asarray(generator.uniform(0.5, 1.5), info.dtype)
        return generator.standard_normal(shape).astype(info.dtype)
    if choice is None:
        return np.asarray(generator.integers(0, 2, shape), info.dtype)
    if choice.is_guess and info.dtype.itemsize == 1:  # pixels
        limits = np.iinfo(info.dtype)
        return generator.integers(limits.min, limits.max, shape, info.dtype, endpoint=True)
    values = choice.values
    rows = generator.integers(0, len(values), shape)
    return np.asarray(np.asarray(values, info.dtype)[rows])


def named_arrays(label: str, inputs: Sequence[TensorInfo], given: Arrays) -> dict[str, Array]:
    """Return arrays by input name, in the inputs' types where those can hold them.

    Args:
        label: what the network is called.
        inputs: its inputs.
        given: by name; a single one belongs to a single input whatever its name.

    Raises:
        ModelError: there is none for an input.
    """
    names = [info.name for info in inputs]
    if len(names) == len(given) == 1:
        given = {names[0]: next(iter(given.values()))}
    for name in names:
        if name not in given:
            raise ModelError(
                f"the data hold nothing for the input {name!r} of {label}, but "
                f"{', '.join(map(repr, given)) or 'nothing at all'}: save it under that name with "
                "numpy.savez"
            )
    return {info.name: _as_type(given[info.name], info.dtype) for info in inputs}


def _as_type(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return an array in another precision; as it is where it is of another kind or too large."""
    if array.dtype.kind == dtype.kind == "f":
        return array.astype(dtype)
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        fitting = array.astype(dtype)
        return fitting if np.array_equal(fitting, array) else array
    return array
