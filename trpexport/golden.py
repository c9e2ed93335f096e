"""Golden arrays: inputs and the outputs they must give, so that a device can verify on its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trpexport.arrays import read_arrays, write_arrays
from trpexport.errors import ModelError
from trpexport.inputs import GOLDEN_INPUT as _INPUT
from trpexport.inputs import GOLDEN_OUTPUT as _OUTPUT
from trpexport.tensors import Arrays

_REMEDY = "export the bundle again"


@dataclass(frozen=True)
class Golden:
    """Inputs of a network, whose first dimensions count images, and the reference outputs.

    Attributes:
        inputs: arrays by input name, in the network's order.
        outputs: arrays by output name, in the network's order.
    """

    inputs: Arrays
    outputs: Arrays


def write_golden(path: Path, inputs: Arrays, outputs: Arrays) -> None:
    """Write golden arrays as ``input:NAME`` and ``output:NAME`` of one ``.npz`` file.

    Raises:
        OutputError: the place can't be written.
    """
    arrays = {f"{_INPUT}{name}": array for name, array in inputs.items()}
    arrays |= {f"{_OUTPUT}{name}": array for name, array in outputs.items()}
    write_arrays(path, arrays)


def read_golden(path: Path) -> Golden:
    """Read what :func:`write_golden` wrote; nothing in the file is executed.

    Raises:
        ModelError: the file can't be read, is damaged, or lacks inputs or outputs.
    """
    arrays = read_arrays(path, remedy=_REMEDY)
    inputs = _with_prefix(arrays, _INPUT)
    outputs = _with_prefix(arrays, _OUTPUT)
    # Outputs need not count images: anchors are the same for all, a sum is one number.
    counts = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    if not inputs or not outputs or len(counts) != 1 or 0 in counts:
        raise ModelError(
            f"{path} holds no golden arrays (input:NAME, one entry an image, and output:NAME): "
            f"{_REMEDY}"
        )
    return Golden(inputs, outputs)


def _with_prefix(arrays: Arrays, prefix: str) -> Arrays:
    return {name[len(prefix) :]: a for name, a in arrays.items() if name.startswith(prefix)}
