"""What the tensors of a network take on images, a few images at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from trpexport.quantization.ort import serialized
from trpexport.quantization.ranges import Histogram
from trpexport.quantization.scaling import Floats, Statistics
from trpexport.runtime.session import Session, open_session
from trpexport.tensors import Array, Arrays

if TYPE_CHECKING:
    from onnx import ModelProto

_MEMORY = 1 << 28  # bytes of tensors that are there at a time
_MOST_IMAGES = 32


def histograms(model: ModelProto, inputs: Arrays) -> dict[str, Histogram]:
    """Return what every tensor of float32 takes, but for those that are stored.

    Their types are added to the network, where inference did not find them.

    Args:
        model: the network, not of a fixed size of batch that ``inputs`` can't fill.
        inputs: arrays by input name, the first dimension counting images.
    """
    from onnx import TensorProto, helper

    produced = [name for node in model.graph.node for name in node.output if name]
    session = watched(model, produced)
    found: dict[str, Histogram] = {}
    for batch in batches(session, inputs):
        for name, array in (batch | session.run(batch)).items():
            if array.dtype == np.float32:
                found.setdefault(name, Histogram()).add(array)
    values = (*model.graph.value_info, *model.graph.output, *model.graph.input)
    for name in found.keys() - {value.name for value in values}:
        model.graph.value_info.append(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape=None)
        )
    return found


def channel_statistics(
    model: ModelProto, axes: Mapping[str, int], inputs: Arrays
) -> dict[str, Statistics]:
    """Return what the channels of some tensors take.

    Args:
        model: the network.
        axes: the axis of channels, by the tensor's name.
        inputs: as for :func:`histograms`.
    """
    session = watched(model, axes)
    sums = {name: ChannelSums(axis) for name, axis in axes.items()}
    for batch in batches(session, inputs):
        outputs = session.run(batch)
        for name, one in sums.items():
            one.add(outputs[name])
    return {name: one.result() for name, one in sums.items()}


def watched(model: ModelProto, tensors: Collection[str]) -> Session:
    """Open a network that gives some of its tensors as well, nothing in it fused."""
    copy = type(model)()
    copy.CopyFrom(model)
    given = {value.name for value in copy.graph.output}
    for name in tensors:
        if name not in given:
            copy.graph.output.add(name=name)
    return open_session(serialized(copy), graph_optimization="disable")


class ChannelSums:
    """What is added up of the channels of one tensor.

    Args:
        axis: that of its channels.
    """

    def __init__(self, axis: int) -> None:
        self._axis = axis
        self._high = self._low = self._squares = np.zeros(1)
        self._count = 0

    def add(self, values: Array) -> None:
        """Take in the tensor of some images."""
        rows = np.moveaxis(values, self._axis, 0).reshape(values.shape[self._axis], -1)
        rows = rows.astype(np.float64)
        self._high = np.maximum(self._high, rows.max(1))
        self._low = np.maximum(self._low, -rows.min(1))
        self._squares = self._squares + np.square(rows).sum(1)
        self._count += rows.shape[1]

    def result(self) -> Statistics:
        """Return what it comes to."""
        squares: Floats = self._squares / max(self._count, 1)
        return Statistics(self._high, self._low, squares)


def batches(session: Session, inputs: Arrays) -> Iterator[dict[str, Array]]:
    """Yield inputs a few images at a time, as few as their tensors have room for in memory.

    Args:
        session: the network; its outputs are the tensors.
        inputs: arrays by input name, the first dimension counting images. Where the network's
            batch is fixed, the last one is filled up with images that were there already.
    """
    total = len(next(iter(inputs.values())))
    size = session.batch_size
    if size is None:
        one = {name: array[:1] for name, array in inputs.items()}
        needed = sum(array.nbytes for array in session.run(one).values())
        size = int(np.clip(_MEMORY // max(needed, 1), 1, _MOST_IMAGES))
        for start in range(0, total, size):
            yield {name: array[start : start + size] for name, array in inputs.items()}
        return
    for start in range(0, total, size):
        rows = np.arange(start, start + size) % total
        yield {name: array[rows] for name, array in inputs.items()}
