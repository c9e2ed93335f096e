"""An ONNX graph as a module of PyTorch, in which its layers are modules."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn

from trpexport.errors import ModelError
from trpexport.networks.onnx.layers import OnnxLayer
from trpexport.networks.onnx.program import Compiled, compiled
from trpexport.networks.onnx.steps import Step
from trpexport.networks.torch.cuts import MOST_REPEATED
from trpexport.networks.torch.modules import LinearLayer, make_layer, set_kernel


class OnnxModule(nn.Module):
    """A network that computes what an ONNX graph does, in single precision where that is half.

    It runs in segments: from one place where a single tensor is all that the rest follows from to
    the next, or several where there is no such place for many layers, so that a pass can be resumed
    there.

    Args:
        model: the graph.
        layers: its layers. Those that may be rewritten become modules.
        loosened: a batch size that the file writes into shapes, and that is not meant.

    Attributes:
        layers: the modules of layers; those that share a weight share it here.
        names: name of the module, by that of the layer.
        batch: how many images it takes at a time, where it is right for no other number.

    Raises:
        ModelError: an operator of it is not known.
    """

    def __init__(
        self, model: ir.Model, layers: Sequence[OnnxLayer], *, loosened: int | None = None
    ) -> None:
        super().__init__()
        self.batch: int | None = None
        taken = [each for each in layers if each.fixed is None and each.place is None]
        modules: dict[str, LinearLayer] = {}
        for layer in taken:
            modules[layer.name] = _module(layer, modules.get(layer.shares or ""))
        self.layers = nn.ModuleList(modules.values())
        self.names = {layer.name: f"layers.{index}" for index, layer in enumerate(taken)}
        nodes = {layer.node: (index, layer.data) for index, layer in enumerate(taken)}
        program = compiled(model, nodes, loosened=loosened)
        self.constants = Constants(program.constants)
        self.segments = nn.ModuleList(
            Segment(steps, entries, exits, self.constants, self.layers)
            for steps, entries, exits in _segments(program)
        )
        self._inputs = tuple(program.inputs)
        self._outputs = tuple(program.outputs)

    def forward(self, *inputs: Tensor, **named: Tensor) -> dict[str, Tensor]:
        """Return its outputs by name.

        Args:
            inputs: its inputs, in the order of the file.
            named: further ones, by name.
        """
        given = dict(zip(self._inputs, inputs, strict=False)) | named
        missing = [name for name in self._inputs if name not in given]
        if missing or len(given) > len(self._inputs) or len(inputs) > len(self._inputs):
            wanted = ", ".join(self._inputs) or "none"
            raise ModelError(f"the network has the inputs {wanted}: give each of them")
        if self.batch is not None and any(x.shape[:1] != (self.batch,) for x in given.values()):
            raise ModelError(f"the network takes a batch of {self.batch} alone")
        values: tuple[Tensor, ...] = tuple(given[name] for name in self._inputs)
        for segment in self.segments:
            found = segment(*values)
            values = found if isinstance(found, tuple) else (found,)
        return dict(zip(self._outputs, values, strict=True))


class Constants(nn.Module):
    """What a graph stores beside its layers: real numbers move with the network.

    Whole numbers are sizes, axes and indices for the most part, and stay with the processor.
    """

    def __init__(self, values: Mapping[int, Any]) -> None:
        super().__init__()
        self._numbers: dict[int, Any] = {}
        for slot, value in values.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                self.register_buffer(str(slot), value)
            else:
                self._numbers[slot] = value

    def values(self) -> dict[int, Any]:
        """Return them by number."""
        return {**self._numbers, **{int(name): value for name, value in self._buffers.items()}}


class Segment(nn.Module):
    """Some steps of a graph.

    Args:
        steps: they.
        entries: what it is called with.
        exits: what it returns: a tensor, or a tuple of several.
        constants: of the whole network.
        layers: of the whole network.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        entries: Sequence[int],
        exits: Sequence[int],
        constants: Constants,
        layers: nn.ModuleList,
    ) -> None:
        super().__init__()
        self._steps = tuple(steps)
        self._entries, self._exits = tuple(entries), tuple(exits)
        # In a tuple: they belong to the network, and are listed there.
        self._shared = (constants, layers)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return what leaves the segment."""
        constants, layers = self._shared
        values = constants.values() | dict(zip(self._entries, inputs, strict=True))
        real = (x.dtype for x in inputs if x.is_floating_point())
        floating = next(real, torch.float32)
        for step in self._steps:
            step.run(values, floating, layers)
        found = tuple(values[slot] for slot in self._exits)
        return found[0] if len(found) == 1 else found


def _module(layer: OnnxLayer, owner: LinearLayer | None) -> LinearLayer:
    """Return a layer as a module; its weight is that of ``owner`` where there is one."""
    module = make_layer(layer.op)
    if owner is None:
        set_kernel(module, torch.from_numpy(layer.kernel.astype("float32")))
    else:
        module.weight = owner.weight
    if module.bias is not None:
        assert layer.bias is not None
        module.bias.data.copy_(torch.from_numpy(layer.bias.astype("float32")))
    return module.eval()


def _segments(
    program: Compiled,
) -> Iterator[tuple[Sequence[Step], Sequence[int], Sequence[int]]]:
    """Yield steps between two cuts, what they are called with, and what they return."""
    steps, start = program.steps, 0
    entries: Sequence[int] = list(program.inputs.values())
    for end, slots in _cuts(program):
        yield steps[start:end], entries, slots
        start, entries = end, slots
    yield steps[start:], entries, list(program.outputs.values())


def _cuts(program: Compiled) -> Iterator[tuple[int, Sequence[int]]]:
    """Yield, for each layer, the last step before it where one value is all that is read later.

    Where there is none for several layers, the step before a layer, and all that is read later. As
    (how many steps come before, the values).
    """
    reads = [step.reads - program.constants.keys() for step in program.steps]
    last = {slot: len(reads) for slot in program.outputs.values()}
    for index, slots in enumerate(reads):
        for slot in slots:
            last[slot] = max(index, last.get(slot, 0))
    live = {slot for slot in program.inputs.values() if slot in last}
    found: tuple[int, Sequence[int]] | None = None
    layers = 0
    for index, step in enumerate(program.steps):
        if len(live) == 1 and index:
            found = index, list(live)
        if step.layer is not None:
            if found is None and layers > MOST_REPEATED:
                found = index, sorted(live)
            if found is not None:
                yield found
                found, layers = None, 0
            layers += 1
        made = {slot for slot in step.outputs if slot is not None and slot in last}
        live = {slot for slot in live | made if last[slot] > index}
