"""What a network costs: MACs, parameters, output sizes. Pure functions of shapes.

One MAC is one multiply-add; FLOPs are 2 x MACs. Biases, activations and normalisation are left
out of both, as in the papers that this project compares with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from trpexport.ops import Call, LinearOp
from trpexport.shown import Shown
from trpexport.text import quantity

FLOPS_PER_MAC = 2


@dataclass(frozen=True)
class OperatorCost:
    """What one convolution or matrix product costs.

    Attributes:
        name: its layer's name where it belongs to one, else that of what it stands in.
        operator: what kind of operator it is, in the words of its framework.
        input_shape: shape of the data that comes in.
        output_shape: shape of what goes out.
        macs: multiply-adds, without the bias.
        parameters: number of weights and biases; those shared with an earlier layer are counted
            there.
        activation_bytes: size of the output.
    """

    name: str
    operator: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    macs: int
    parameters: int
    activation_bytes: int


@dataclass(frozen=True, repr=False)
class Cost(Shown):
    """What a network costs for one input of the size that was asked for: all of it.

    Attributes:
        layers: all that multiplies and adds, in the order in which it runs.
        left_out: how often each operator occurs that is left out by convention: activations,
            normalisation, pooling, elementwise arithmetic, moving data about.
        uncounted: how often each operator occurs that is not counted and may well cost something:
            it is not known, or the shapes around it are not.
        other_parameters: parameters of the operators that are left out or uncounted.
        uncounted_macs: MACs that the uncounted ones may have at most, as far as shapes tell: each
            number that they put out a sum over the longest dimension of what comes in.
    """

    layers: tuple[OperatorCost, ...]
    left_out: Mapping[str, int]
    uncounted: Mapping[str, int]
    other_parameters: int
    uncounted_macs: int = 0

    @property
    def macs(self) -> int:
        """Multiply-adds of all layers."""
        return sum(layer.macs for layer in self.layers)

    @property
    def flops(self) -> int:
        """Floating point operations of all layers: 2 x MACs."""
        return FLOPS_PER_MAC * self.macs

    @property
    def largest_activation(self) -> int:
        """Bytes of the largest output of a layer; 0 where there is none."""
        return max((layer.activation_bytes for layer in self.layers), default=0)

    @property
    def parameters(self) -> int:
        """Parameters of the whole network."""
        return self.other_parameters + sum(layer.parameters for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes that all layers put out, what is left out not included.

        Counted over convolutions and matrix products alone, as "activations" are in Radosavovic
        et al., "Designing Network Design Spaces" (2020): memory traffic, not peak memory.
        """
        return sum(layer.activation_bytes for layer in self.layers)

    def to_json(self) -> dict[str, Any]:
        """Return the cost as JSON-ready data, the totals first."""
        totals = ("macs", "flops", "parameters", "activation_bytes")
        return {name: getattr(self, name) for name in totals} | asdict(self)

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        bound = "≥ " if self.uncounted else ""
        missing = {"uncounted": ", ".join(sorted(self.uncounted))} if self.uncounted else {}
        return {
            "macs": f"{bound}{quantity(self.macs)}",
            "parameters": quantity(self.parameters),
            "operators": len(self.layers),
            **missing,
        }


def output_size(op: LinearOp, input_size: Sequence[int]) -> tuple[int, ...]:
    """Return the spatial size of the output of ``op`` for a spatial ``input_size``, in pixels."""
    window = op.window
    axes = zip(input_size, window.pads, window.dilation, window.kernel, window.stride, strict=True)
    if window.transposed:
        extra = window.output_pads or (0,) * window.ndim
        return tuple(
            (size - 1) * s - before - after + d * (k - 1) + 1 + more
            for (size, (before, after), d, k, s), more in zip(axes, extra, strict=True)
        )
    return tuple(
        (size + before + after - d * (k - 1) - 1) // s + 1
        for size, (before, after), d, k, s in axes
    )


def weight_count(op: LinearOp) -> int:
    """Return the number of weights of ``op``, without its bias."""
    return op.out_channels * (op.in_channels // op.groups) * prod(op.kernel)


def parameter_count(op: LinearOp) -> int:
    """Return the number of parameters of ``op``, its bias included."""
    return weight_count(op) + (op.out_channels if op.bias else 0)


def chain_macs(ops: Iterable[LinearOp], call: Call) -> int:
    """Return the MACs for one image of one call of the chain ``ops``, each fed by the one before.

    Args:
        ops: one operator, or the factors that replace it.
        call: the use of the chain's first operator.
    """
    total = 0
    size = call.size
    for op in ops:
        after = output_size(op, size)
        # A transposed convolution multiplies at each of its inputs, any other at its outputs.
        total += weight_count(op) * prod(size if op.window.transposed else after)
        size = after
    return call.places * total


def macs(ops: Sequence[LinearOp], calls: Iterable[Call]) -> int:
    """Return the MACs for one image of all calls of the chain ``ops``."""
    return sum(chain_macs(ops, call) for call in calls)
