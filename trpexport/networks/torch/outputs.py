"""A network's outputs as named arrays, whatever container it returns them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from trpexport.errors import ModelError

INPUT = "input"
OUTPUT = "output"


def named_tensors(output: Any) -> dict[str, Tensor]:
    """Give the tensors that a network returned the names that its ONNX file gets.

    One tensor is ``output``; several are ``output_0``, ``output_1``, ...; those in a mapping keep
    their keys.

    Raises:
        ModelError: something in it is no tensor.
    """
    if isinstance(output, Tensor):
        return {OUTPUT: output}
    if isinstance(output, Mapping):
        named = {str(key): value for key, value in output.items()}
    elif isinstance(output, Sequence):
        named = {f"{OUTPUT}_{index}": value for index, value in enumerate(output)}
    else:
        named = {OUTPUT: output}
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise ModelError(
                f"the network's {name} is a {type(value).__name__}: only tensors can be exported, "
                "wrap the network so that it returns tensors"
            )
    return named
