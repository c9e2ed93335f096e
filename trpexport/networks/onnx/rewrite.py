"""The rewrite of a graph: a node becomes nodes in its place, all else stays as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trpexport.networks.onnx.batch_norms import FoldedNorm, norm_behind
from trpexport.networks.onnx.constants import Constants, rearranges
from trpexport.networks.onnx.layers import OnnxLayer
from trpexport.networks.onnx.operators import attribute, transposed_kernel
from trpexport.networks.onnx.windows import keeps_size
from trpexport.ops import LinearOp
from trpexport.tensors import Array

# Until then each initializer had to be an input as well.
_INITIALIZERS_ARE_INPUTS_UNTIL_IR = 3

_GEMM_WITHOUT_BIAS = 11  # the operator set from which on Gemm may go without


@dataclass(frozen=True)
class Factors:
    """What stands in for a layer.

    Attributes:
        ops: the operators, in the order in which they run.
        kernels: one each, (out_channels, in_channels / groups, *kernel); those that are the same
            object are written once.
        bias: that of the last one, (out_channels,), or None.
    """

    ops: tuple[LinearOp, ...]
    kernels: tuple[Array, ...]
    bias: NDArray[np.float64] | None


def rewrite(
    model: ir.Model, layers: Sequence[OnnxLayer], factors: Mapping[str, Factors], *, fold: bool
) -> dict[str, tuple[str, ...]]:
    """Put factors in the place of layers, in the type of the weight that they stand for.

    Names and types of all other tensors stay, those of outputs as well. What nothing uses any
    more is removed.

    Args:
        model: the network, which is changed.
        layers: its layers.
        factors: by layer.
        fold: multiply a batch norm that follows a layer alone into the last factor.

    Returns:
        Names of the nodes that stand for each layer now.
    """
    writer = _Writer(model, factors)
    return {
        layer.name: writer.put(layer, factors[layer.name], fold=fold)
        for layer in layers
        if layer.name in factors
    }


class _Writer:
    """Puts factors into a graph."""

    def __init__(self, model: ir.Model, factors: Mapping[str, Factors]) -> None:
        self._graph = model.graph
        self._constants = Constants(model)
        self._stored_as_inputs = (model.ir_version or 0) <= _INITIALIZERS_ARE_INPUTS_UNTIL_IR
        self._gemm_needs_bias = model.graph.opset_imports.get("", 0) < _GEMM_WITHOUT_BIAS
        self._names = set(_names(model))
        # With the kernel itself: an id is only unique among living arrays.
        self._stored: dict[tuple[object, ...], tuple[Array, ir.Value]] = {}
        uses: dict[int, int] = {}
        for found in factors.values():
            for kernel in found.kernels:
                uses[id(kernel)] = uses.get(id(kernel), 0) + 1
        self._uses = uses

    def put(self, layer: OnnxLayer, factors: Factors, *, fold: bool) -> tuple[str, ...]:
        """Put factors in the place of a layer, and return the names of their nodes."""
        last = layer.node.outputs[0]
        replaced = [layer.node]
        norm = (
            norm_behind(layer.node, self._constants) if fold and self._is_alone(factors) else None
        )
        if norm is not None:
            factors = _folded(factors, norm)
            last = norm.node.outputs[0]
            replaced.append(norm.node)
        nodes = list(self._nodes(layer, factors))
        self._graph.insert_before(layer.node, nodes)
        _take_place(nodes[-1].outputs[0], last)
        inputs = [value for node in replaced for value in node.inputs[1:]]
        weight_first = layer.node.inputs[0] if layer.read.weight == 0 else None
        self._graph.remove(list(reversed(replaced)), safe=True)
        for value in (*inputs, weight_first):
            self._remove_unused(value)
        return tuple(node.name or "" for node in nodes)

    def _is_alone(self, factors: Factors) -> bool:
        return self._uses[id(factors.kernels[-1])] == 1

    def _nodes(self, layer: OnnxLayer, factors: Factors) -> Iterator[ir.Node]:
        """Yield the nodes that compute factors, one after another."""
        value = layer.data
        assert layer.weight is not None
        dtype = layer.weight.dtype
        for index, (op, kernel) in enumerate(zip(factors.ops, factors.kernels, strict=True)):
            is_last = index + 1 == len(factors.ops)
            bias = factors.bias if is_last else None
            name = layer.name if len(factors.ops) == 1 else f"{layer.name}.{index}"
            weight = self._stored_once(kernel, _layout(layer, kernel, op), f"{name}.weight", dtype)
            inputs = [value, weight]
            is_product = layer.node.op_type == "MatMul"
            if bias is None and layer.node.op_type == "Gemm" and self._gemm_needs_bias:
                bias = np.zeros(1)
            if bias is not None and not is_product:
                inputs.append(self._store(bias, f"{name}.bias", dtype))
            node = self._node(layer, op, inputs, name)
            yield node
            value = node.outputs[0]
            if bias is not None and is_product:
                stored = self._store(bias, f"{name}.bias", dtype)
                yield self._made("Add", [value, stored], {}, f"{name}.Add")

    def _node(
        self, layer: OnnxLayer, op: LinearOp, inputs: Sequence[ir.Value], name: str
    ) -> ir.Node:
        kind = layer.node.op_type
        if kind == "MatMul":
            return self._made(kind, inputs, {}, name)
        if kind == "Gemm":
            flag = int(bool(attribute(layer.node, "transB", 0)))
            return self._made(kind, inputs, {"transB": flag} if flag else {}, name)
        window = op.window
        facts: dict[str, int | str | Sequence[int]] = {
            "kernel_shape": window.kernel,
            "strides": window.stride,
            "dilations": window.dilation,
            "group": op.groups,
        }
        if keeps_size(layer.node) and not window.transposed:
            facts["auto_pad"] = str(attribute(layer.node, "auto_pad", ""))  # of any size of input
        else:
            before, after = zip(*window.pads, strict=True)
            facts["pads"] = (*before, *after)
        if any(window.output_pads):
            facts["output_padding"] = window.output_pads
        return self._made("ConvTranspose" if window.transposed else "Conv", inputs, facts, name)

    def _made(
        self,
        kind: str,
        inputs: Sequence[ir.Value],
        facts: Mapping[str, int | str | Sequence[int]],
        name: str,
    ) -> ir.Node:
        attributes = ir.convenience.convert_attributes(dict(facts))
        node = ir.Node("", kind, inputs, attributes, name=self._fresh(name))
        node.outputs[0].name = self._fresh(f"{name}.output")
        return node

    def _stored_once(self, kernel: Array, weight: Array, name: str, dtype: ir.DataType) -> ir.Value:
        """Return the stored weight of a kernel, which several layers may share."""
        key = (id(kernel), weight.shape, dtype)
        if key not in self._stored:
            self._stored[key] = (kernel, self._store(weight, name, dtype))
        return self._stored[key][1]

    def _store(self, array: Array, name: str, dtype: ir.DataType) -> ir.Value:
        name = self._fresh(name)
        tensor = ir.tensor(np.ascontiguousarray(array.astype(dtype.numpy())), dtype, name=name)
        value = ir.Value(
            name=name, shape=ir.Shape(array.shape), type=ir.TensorType(dtype), const_value=tensor
        )
        self._graph.register_initializer(value)
        if self._stored_as_inputs:
            self._graph.inputs.append(value)
        return value

    def _fresh(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self._names:
            count += 1
            name = f"{wanted}_{count}"
        self._names.add(name)
        return name

    def _remove_unused(self, value: ir.Value | None) -> None:
        """Remove a stored value that nothing uses any more, and what rearranged it."""
        if value is None or value.uses() or value.is_graph_output():
            return
        node = value.producer()
        if node is not None:
            if node.graph is self._graph and (rearranges(node) or node.op_type == "Constant"):
                inputs = list(node.inputs)
                self._graph.remove(node, safe=True)
                for each in inputs:
                    self._remove_unused(each)
        elif value.is_initializer() and value.graph is self._graph:
            if value.is_graph_input():
                if not self._stored_as_inputs:
                    return
                self._graph.inputs.remove(value)
            del self._graph.initializers[value.name or ""]


def _layout(layer: OnnxLayer, kernel: Array, op: LinearOp) -> Array:
    """Return the weight of a node from a kernel (out_channels, in_channels / groups, *kernel)."""
    if op.window.transposed:
        return transposed_kernel(kernel, op.groups)
    is_flipped = layer.node.op_type == "Gemm" and attribute(layer.node, "transB", 0)
    return kernel if op.ndim or is_flipped else kernel.T


def _folded(factors: Factors, norm: FoldedNorm) -> Factors:
    """Return factors with a batch norm multiplied into the last of them."""
    *first, last = factors.kernels
    bias = np.zeros(len(norm.scale)) if factors.bias is None else factors.bias
    scale = norm.scale.reshape(-1, *(1,) * (last.ndim - 1))
    return Factors(
        (*factors.ops[:-1], replace(factors.ops[-1], bias=True)),
        (*first, last.astype(np.float64) * scale),
        bias * norm.scale + norm.shift,
    )


def _take_place(new: ir.Value, old: ir.Value) -> None:
    """Let a value stand for another one in all respects."""
    new.type, new.shape, new.doc_string = old.type, old.shape, old.doc_string
    new.metadata_props.update(old.metadata_props)
    name, old.name = old.name, None
    new.name = name
    old.replace_all_uses_with(new, replace_graph_outputs=True)


def _names(model: ir.Model) -> Iterator[str]:
    """Yield the names of all nodes and values."""
    graphs = [model.graph, *model.graph.subgraphs()]
    for graph in graphs:
        yield from (value.name or "" for value in graph.inputs)
        yield from graph.initializers
        for node in graph:
            yield node.name or ""
            yield from (value.name or "" for value in node.outputs)
