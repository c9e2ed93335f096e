"""Any data as the inputs of a network, to run it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trpexport.datasets.base import Dataset
from trpexport.datasets.calibration import spread
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.tensors import TensorSet
from trpexport.errors import DataError
from trpexport.inputs import rows
from trpexport.tensors import Array, shape_text


def ready_inputs(
    data: Dataset | TensorSet,
    shapes: Mapping[str, Sequence[int | str]],
    preprocessing: Preprocessing | None,
    count: int | None = None,
) -> dict[str, Array]:
    """Return samples as a network takes them, by input; of a data set its test images, if any.

    Args:
        data: where they come from.
        shapes: of the network's inputs by name, batch first; names stand for sizes that are open.
        preprocessing: how images become input; raw tensors need none.
        count: how many, spread evenly; None for all.

    Raises:
        DataError: they can't be read, or do not fit the network.
    """
    if isinstance(data, TensorSet):
        arrays = data.inputs_of(shapes)
        if count is not None and count < len(data):
            arrays = rows(arrays, spread(len(data), count, 0))
        return arrays
    if len(shapes) > 1:
        raise DataError(
            f"{data.name} holds images for one input, the network takes {', '.join(shapes)}: save "
            "an array for each, under its name, in one file of numpy.savez"
        )
    assert preprocessing is not None
    ((name, shape),) = shapes.items()
    preprocessing.check_input(shape, "the network")
    split = data.images("test" if "test" in data.readers else next(iter(data.readers)))
    if not len(split):
        raise DataError(f"{data.name} has no images: check the path")
    indices = spread(len(split), min(count or len(split), len(split)), 0)
    inputs = preprocessing.inputs(preprocessing.prepare_split(split, indices), shape)
    if shape and not _fits(shape, inputs.shape):
        raise DataError(
            f"{data.name} gives images of {shape_text(inputs.shape[1:])}, the network takes "
            f"{shape_text(shape[1:])}: choose size and resize, or the data set that it was "
            "trained on",
            parameters=("size", "resize"),
        )
    return {name: inputs}


def _fits(wanted: Sequence[int | str], found: Sequence[int]) -> bool:
    return len(wanted) == len(found) and all(
        isinstance(size, str) or size == given
        for size, given in zip(wanted[1:], found[1:], strict=True)
    )
