"""float16 and bfloat16: half the bits, inputs and outputs in float32 as they were."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import InlinePass, ShapeInferencePass

from trpexport.errors import ModelError
from trpexport.quantization import graphs
from trpexport.quantization.magnitudes import largest_values
from trpexport.quantization.retyping import retype
from trpexport.quantization.schemas import TypedNode, typed_node
from trpexport.quantization.settings import QuantizationSettings, Quantized
from trpexport.runtime.kernels import kernels_of
from trpexport.runtime.providers import PROVIDERS

_HEADROOM = 2.0  # other inputs than those that were run may give larger values
_ROUNDS = 16
# Kernels that add up squares in the type itself.
_SQUARES = frozenset(("ReduceL2", "ReduceSumSquare", "LpNormalization"))

Reasons = dict[str, str]


@dataclass(frozen=True)
class Half:
    """A type of half the bits.

    Attributes:
        precision: what the precision is called.
        dtype: ONNX's type.
        largest: the largest number in it.
        smallest: half the smallest above 0: what is less becomes 0.
        is_run_anywhere: whether ONNX Runtime casts where a provider lacks it.
    """

    precision: str
    dtype: ir.DataType
    largest: float
    smallest: float
    is_run_anywhere: bool

    @property
    def name(self) -> str:
        """ONNX Runtime's name of the type."""
        return self.dtype.name.lower()


FLOAT16 = Half("fp16", ir.DataType.FLOAT16, 65504.0, 2.0**-25, True)
BFLOAT16 = Half("bf16", ir.DataType.BFLOAT16, 3.3895e38, 2.0**-134, False)


def convert(source: Path, target: Path, half: Half, settings: QuantizationSettings) -> Quantized:
    """Write a float32 network in a type of half the bits.

    Operators stay in float32 that have no such form, whose values are beyond the type on the
    calibration inputs, or that the provider lacks while it has others.

    Args:
        source: the float32 file.
        target: the file to write, which may be the same.
        half: the type.
        settings: inputs to find the largest values on, and the provider that will run it.

    Raises:
        ModelError: it can't be run, or nothing in it can be written so.
    """
    model = graphs.read(source)
    InlinePass()(model)
    ShapeInferencePass()(model)
    nodes = [typed_node(node, model.graph.opset_imports, half.dtype) for node in model.graph]
    exact = largest_values(model, settings.calibration)
    kept = {
        **_out_of_range(model, half, exact),
        **_not_run(nodes, half, settings.provider),
        **_out_of_type(nodes, half),
    }
    result = _converted(model, half, kept)
    for _ in range(_ROUNDS):
        broken = _first_broken(result, exact, half, settings)
        if not broken or broken.keys() <= kept.keys():
            break
        kept |= broken
        result = _converted(model, half, kept)
    if all(str(one.node.name) in kept for one in nodes if one.outputs):
        reasons = ", ".join(sorted(set(kept.values())))
        raise ModelError(f"nothing in {source.name} can be computed in {half.name}: {reasons}")
    graphs.write(result, target, precision=half.precision)
    return Quantized({"float32": _listed(model, kept)}, slowness(half, settings.provider))


def slowness(half: Half, provider: str) -> str | None:
    """Return why a file in a type will be slower on a provider; None where it need not be."""
    if kernels_of(provider, half.name).multiplies:
        return None
    return (
        f"{half.precision} will be slower than float32 here: {PROVIDERS[provider].ort_name} has no "
        f"{half.name} kernels on this machine, so it computes in float32 and converts around every "
        "operator; the file is for devices that have them"
    )


def _listed(model: ir.Model, kept: Reasons) -> list[dict[str, str]]:
    """Return which nodes stay in float32 and why, for a report."""
    return [
        {"node": str(node.name), "operator": node.op_type, "reason": kept[str(node.name)]}
        for node in model.graph
        if str(node.name) in kept
    ]


def _out_of_type(nodes: list[TypedNode], half: Half) -> Reasons:
    """Return the nodes that compute floats and have no form in a type."""
    return {
        str(one.node.name): f"ONNX has no form of {one.node.op_type} in {half.name}"
        for one in nodes
        if not one.outputs and any(_is_float(value) for value in one.node.outputs)
    }


def _not_run(nodes: list[TypedNode], half: Half, provider: str) -> Reasons:
    """Return the nodes that a provider lacks in a type; none if it lacks all of them."""
    kernels = kernels_of(provider, half.name)
    if not kernels.multiplies:
        return {}
    return {
        str(one.node.name): f"{provider} has no {one.node.op_type} in {half.name}"
        for one in nodes
        if one.outputs and not kernels.has(one.node.domain, one.node.op_type, one.since)
    }


def _out_of_range(model: ir.Model, half: Half, largest: Mapping[str, float]) -> Reasons:
    """Return the nodes with numbers that a type does not have."""
    found = {}
    for node in model.graph:
        limit = math.sqrt(half.largest) if node.op_type in _SQUARES else half.largest
        for value in (*node.inputs, *node.outputs):
            if value is None:
                continue
            size = largest.get(str(value.name), 0.0)
            if _is_lost(value, half):
                found[str(node.name)] = f"{value.name} becomes 0 or infinite in {half.name}"
            elif size * _HEADROOM > limit:
                found[str(node.name)] = f"{value.name} is as large as {size:.3g}"
    return found


def _is_lost(value: ir.Value, half: Half) -> bool:
    """Whether a constant overflows, or is a single number, as of an epsilon, that becomes 0."""
    stored = value.const_value
    if stored is None or stored.dtype != ir.DataType.FLOAT:
        return False
    constant: NDArray[Any] = np.abs(stored.numpy())
    largest = float(constant[np.isfinite(constant)].max(initial=0.0))
    return largest > half.largest or (constant.size == 1 and 0 < largest < half.smallest)


def _is_float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT


def _converted(model: ir.Model, half: Half, kept: Reasons) -> ir.Model:
    result = model.clone()
    opsets = result.graph.opset_imports
    chosen = [node for node in result.graph if str(node.name) not in kept]
    retype(result, [typed_node(node, opsets, half.dtype) for node in chosen], half.dtype)
    return result


def _first_broken(
    result: ir.Model, exact: Mapping[str, float], half: Half, settings: QuantizationSettings
) -> Reasons:
    """Return the first node whose values are not finite where those in float32 are.

    None in a type that this machine can't run.
    """
    if not half.is_run_anywhere:
        return {}
    found = largest_values(result, settings.calibration)
    broken: Iterator[tuple[str, str]] = (
        (str(node.name), str(value.name))
        for node in result.graph
        for value in node.outputs
        if math.isnan(found.get(str(value.name), 0.0))
        and not math.isnan(exact.get(str(value.name), math.nan))
    )
    return {name: f"{value} overflows" for name, value in [*broken][:1]}
