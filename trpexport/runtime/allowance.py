"""How much memory and time ONNX Runtime may take of a network that anybody may have written."""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from pathlib import Path

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.onnxfile.external_data import external_paths
from trpexport.supervision import MEMORY_VARIABLE, guarded, memory_allowance, time_allowance
from trpexport.tensors import Shape, TensorInfo

# As they stand in a file, field and length before the text: the key of a tensor's data elsewhere,
# and the one operator that may never end.
_EXTERNAL = b"\x0a\x08location"
_LOOP = b'"\x04Loop'
# Bytes of activations alive at a time, a byte of the inputs: some 100 in U-Nets at full resolution.
_TIMES_INPUTS = 256


@dataclass(frozen=True)
class Allowance:
    """What opening and running one network may take.

    Attributes:
        memory: bytes, without what its inputs add; None where another provider than the CPU runs
            it, whose memory is of another kind.
        seconds: to open it; None likewise.
        may_be_endless: whether it loops as often as it likes.
    """

    memory: int | None
    seconds: float | None
    may_be_endless: bool

    @classmethod
    def of(cls, model: Path | bytes, *, is_bounded: bool) -> Allowance:
        """Return the allowance for an ONNX file or its content.

        Raises:
            ModelError: weights of the file lie outside its directory, or are missing.
        """
        size = len(model) if isinstance(model, bytes) else model.stat().st_size
        if not isinstance(model, bytes) and _contains(model, _EXTERNAL):
            try:
                size += sum(path.stat().st_size for path in external_paths(model))
            except MissingDependencyError:  # a device may have ONNX Runtime alone, which looks
                is_bounded = False
        if not is_bounded:
            return cls(None, None, False)
        return cls(memory_allowance(size), time_allowance(size), _contains(model, _LOOP))

    def opening(self, label: str) -> AbstractContextManager[None]:
        """Return the limits for opening the network."""
        return guarded(f"opening {label}", memory=self.memory, seconds=self.seconds)

    def running(self, label: str, input_bytes: int) -> AbstractContextManager[None]:
        """Return the limits for running it once; how long that takes may depend on the machine."""
        memory = None if self.memory is None else self.memory + _TIMES_INPUTS * input_bytes
        seconds = self.seconds if self.may_be_endless else None
        return guarded(f"running {label}", memory=memory, seconds=seconds)

    def check_inputs(self, inputs: Sequence[TensorInfo], shapes: Mapping[str, Shape]) -> None:
        """Refuse to draw inputs that take more than the whole network may.

        Raises:
            ModelError: they do.
        """
        for info in inputs:
            # Numbers are drawn in float64.
            if self.memory is not None and 8 * prod(shapes[info.name]) > self.memory:
                raise ModelError(
                    f"the input {info} takes more memory than a network of this size should: give "
                    "a smaller batch or shape; if all is right with it, allow more, as in "
                    f"{MEMORY_VARIABLE}=16G",
                    parameters=("batch", "shapes"),
                )


def _contains(model: Path | bytes, part: bytes) -> bool:
    if isinstance(model, bytes):
        return part in model
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(part) >= 0
