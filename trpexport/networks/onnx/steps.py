"""The steps of a graph: uses of operators and of layers, run one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from trpexport.errors import ModelError
from trpexport.foreign import first_line
from trpexport.networks.onnx.interpreter.registry import Operator, Use

# What a graph computes, by the number that the value has in its program.
Values = dict[int, Any]
Layers = Sequence[nn.Module] | nn.ModuleList


@dataclass(frozen=True, eq=False)
class Step:
    """One use of an operator, or of a layer.

    It never changes, and is the same in all copies of a network.

    Attributes:
        label: what to call it in a message.
        operator: what it computes; None of a layer.
        use: how.
        layer: number of the layer that it is, or None.
        inputs: what it takes; None where an input is left out.
        outputs: what it gives; None where nobody takes it.
        bodies: graphs of its own, by attribute.
        freed: values that nothing after it reads.
    """

    label: str
    operator: Operator | None
    use: Use
    layer: int | None
    inputs: tuple[int | None, ...]
    outputs: tuple[int | None, ...]
    bodies: Mapping[str, Program]
    freed: tuple[int, ...] = ()

    def __deepcopy__(self, _: Any) -> Self:
        return self

    @property
    def reads(self) -> set[int]:
        """What must be known before it runs."""
        captured = (body.captured for body in self.bodies.values())
        own = {slot for slot in self.inputs if slot is not None}
        return own.union(*captured)

    def run(self, values: Values, floating: torch.dtype, layers: Layers) -> None:
        """Add what it computes to the values, and take away what is no longer needed.

        Raises:
            ModelError: it can't be computed.
        """
        inputs: list[Any] = [None if slot is None else values[slot] for slot in self.inputs]
        try:
            if self.layer is not None:
                found: Any = layers[self.layer](inputs[0])
            else:
                found = self._computed(inputs, values, floating, layers)
        except ModelError:
            raise
        except Exception as error:  # PyTorch's, or Python's, for inputs that do not fit
            raise ModelError(
                f"{self.label} can't be computed in PyTorch ({first_line(error)})"
            ) from error
        outputs = found if isinstance(found, tuple) else (found,)
        for slot, value in zip(self.outputs, outputs, strict=False):
            if slot is not None:
                values[slot] = value
        for slot in self.freed:
            values.pop(slot, None)

    def _computed(
        self, inputs: list[Any], values: Values, floating: torch.dtype, layers: Layers
    ) -> Any:
        assert self.operator is not None
        bodies = {
            name: partial(body.run, values, floating, layers) for name, body in self.bodies.items()
        }
        attributes = {**self.use.attributes, **bodies} if bodies else self.use.attributes
        inputs = _together(inputs, self.operator.numbers)
        use = Use(attributes, self.use.opset, self.use.outputs, floating)
        return self.operator.run(use, *inputs)


@dataclass(frozen=True, eq=False)
class Program:
    """A graph inside a node: steps that read what is around them.

    Attributes:
        steps: what is run.
        inputs: what it is called with.
        outputs: what it gives.
    """

    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @property
    def captured(self) -> set[int]:
        """What it reads of what is around it."""
        made = {slot for step in self.steps for slot in step.outputs} | set(self.inputs)
        read = set(self.outputs).union(*(step.reads for step in self.steps))
        return read - made

    def run(
        self, around: Values, floating: torch.dtype, layers: Layers, *inputs: Any
    ) -> tuple[Any, ...]:
        """Return its outputs."""
        values = {**around, **dict(zip(self.inputs, inputs, strict=True))}
        for step in self.steps:
            step.run(values, floating, layers)
        return tuple(values[slot] for slot in self.outputs)


def _together(inputs: list[Any], numbers: tuple[int, ...]) -> list[Any]:
    """Return inputs on one device: what follows from shapes alone stays with the processor."""
    devices = {
        value.device
        for index, value in enumerate(inputs)
        if isinstance(value, Tensor) and index not in numbers
    }
    if len(devices) < 2:
        return inputs
    device = next(device for device in devices if device.type != "cpu")
    return [
        value.to(device) if isinstance(value, Tensor) and index not in numbers else value
        for index, value in enumerate(inputs)
    ]
