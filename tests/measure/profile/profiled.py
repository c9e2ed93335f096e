"""A network with a pair in it, its original, their plan, and profiles made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.strategies import conv_op
from trpexport.inputs import Inputs
from trpexport.measure.profile.profile import NodeTime, Profile
from trpexport.ops import Call, LinearOp
from trpexport.plan import LayerPlan, Plan

WriteOnnx = Callable[..., Path]
Array = np.ndarray[Any, np.dtype[Any]]
node = helper.make_node

RANK = 5  # fills no block of channels
SIZE = 12  # pixels
STEM = conv_op(8, 16, (3, 3), (1, 1), (1, 1), (1, 1))
CONV1 = conv_op(16, 16, (3, 3), (1, 1), (1, 1), (1, 1))
FACTORS = (
    conv_op(16, RANK, (3, 1), (1, 1), (1, 0), (1, 1)),
    conv_op(RANK, 16, (1, 3), (1, 1), (0, 1), (1, 1)),
)
CONV2 = conv_op(16, 16, (5, 5), (1, 1), (2, 2), (1, 1))
MACS = {  # each times 12 x 12 pixels
    "stem": 16 * 8 * 9 * 144,
    "block.conv1": 16 * 16 * 9 * 144,
    "block.conv1.0": RANK * 16 * 3 * 144,
    "block.conv1.1": 16 * RANK * 3 * 144,
    "block.conv2": 16 * 16 * 25 * 144,
    "fc": 16 * 4,
}


def layer(name: str, conv: LinearOp, *factors: LinearOp, calls: int = 1) -> LayerPlan:
    return LayerPlan(
        name=name,
        op=conv,
        calls=(Call(1, (SIZE, SIZE)),) * calls,
        scheme="spatial" if factors else None,
        rank=RANK if factors else None,
        full_rank=None,
        factors=factors,
        reason=None if factors else "kept",
        weight_error=None,
        macs=0,
        factor_macs=0,
    )


def plan_of(*layers: LayerPlan) -> Plan:
    return Plan("spatial", "rank:5", Inputs.of((1, 8, SIZE, SIZE)), layers)


PLAN = plan_of(
    layer("stem", STEM), layer("block.conv1", CONV1, *FACTORS), layer("block.conv2", CONV2)
)


def weight(conv: LinearOp) -> Array:
    shape = (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)
    return np.random.default_rng(len(shape)).standard_normal(shape).astype(np.float32)


def convolve(data: str, name: str, conv: LinearOp, output: str) -> onnx.NodeProto:
    inputs = [data, f"{name}.weight", f"{name}.bias"]
    pads = [before for before, _ in conv.window.pads] * 2
    return node("Conv", inputs, [output], name=f"{name}/Conv", pads=pads)


def residual(write_onnx: WriteOnnx, *, pair: bool, named: bool = True) -> Path:
    """Stem, a block of two convolutions with a shortcut, a classifier; all biases are equal."""
    convs = {"stem": STEM, "block.conv2": CONV2}
    if pair:
        convs |= {f"block.conv1.{i}": factor for i, factor in enumerate(FACTORS)}
        middle = [
            convolve("s", "block.conv1.0", FACTORS[0], "p"),
            convolve("p", "block.conv1.1", FACTORS[1], "c"),
        ]
    else:
        convs |= {"block.conv1": CONV1}
        middle = [convolve("s", "block.conv1", CONV1, "c")]
    nodes = [
        convolve("x", "stem", STEM, "stem_out"),
        node("Relu", ["stem_out"], ["s"], name="stem/Relu"),
        *middle,
        node("Relu", ["c"], ["r"], name="block/Relu"),
        convolve("r", "block.conv2", CONV2, "d"),
        node("Add", ["d", "s"], ["e"], name="block/Add"),
        node("Relu", ["e"], ["f"], name="block/Relu2"),
        node("GlobalAveragePool", ["f"], ["g"], name="pool"),
        node("Flatten", ["g"], ["h"], name="flatten"),
        node("Gemm", ["h", "fc.weight"], ["y"], name="fc/Gemm"),
    ]
    if not named:
        for proto in nodes:
            proto.name = ""
    constants = {f"{name}.weight": weight(conv) for name, conv in convs.items()}
    constants |= {
        f"{name}.bias": np.zeros(conv.out_channels, np.float32) for name, conv in convs.items()
    }
    return write_onnx(
        nodes,
        {"x": ("n", 8, SIZE, SIZE)},
        {"y": ("n", 4)},
        constants | {"fc.weight": np.ones((16, 4), np.float32)},
    )


@dataclass(frozen=True)
class Ran:
    """A node of an optimized graph, and how many microseconds it takes in each run."""

    operator: str
    name: str
    inputs: str
    output: str
    micros: Sequence[float] = (1,)
    provider: str = "CPUExecutionProvider"
    activation: str | None = None
    weight: tuple[int, ...] = ()

    def proto(self) -> onnx.NodeProto:
        extra = {"activation": self.activation} if self.activation else {}
        return node(self.operator, self.inputs.split(), [self.output], name=self.name, **extra)

    def time(self) -> NodeTime:
        shapes = ((1, 1, 1, 1), self.weight) if self.weight else ()
        samples = tuple(micros * 1e-6 for micros in self.micros)
        return NodeTime(self.name, self.operator, self.provider, shapes, (), samples)


def profile_of(
    *ran: Ran, shapes: dict[str, tuple[int, ...]] | None = None, written: bool = True
) -> Profile:
    """A profile of these nodes; ``written``: with their optimized graph."""
    graph = helper.make_graph([r.proto() for r in ran], "graph", [], [])
    times = tuple(r.time() for r in ran)
    return Profile(
        model="net.onnx",
        provider="cpu",
        threads=1,
        shapes=shapes or {"x": (1, 8, SIZE, SIZE)},
        nodes=times,
        wall_samples=tuple(map(sum, zip(*(time.samples for time in times), strict=True))),
        optimized=helper.make_model(graph).SerializeToString() if written else None,
    )
