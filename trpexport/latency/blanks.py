"""The graph of a network with chains in the place of layers, made of no weights in milliseconds.

What a layer costs in time depends on what stands around it: its neighbours are fused with it, and
hand it tensors in one layout or in another. So it is timed inside the whole network; and since
what its weights are does not matter for that, no factorization and no export is needed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx_ir as ir

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.latency.ways import Way, Ways
from trpexport.networks.base import Network
from trpexport.networks.onnx.layers import OnnxLayer
from trpexport.networks.onnx.network import OnnxNetwork
from trpexport.networks.onnx.reading import OnnxSource, read_model
from trpexport.networks.onnx.rewrite import Factors
from trpexport.networks.onnx.saving import save
from trpexport.networks.onnx.simplifying import simplify_in_place
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.ops import Layer, LinearOp
from trpexport.tensors import Array

_SIMPLIFY = "simplify"  # the pass that is part of what is timed
_RANDOM = 1 << 16  # numbers that weights are made of, over and over


class Form(Protocol):
    """What networks are turned into before they are timed."""

    @property
    def name(self) -> str:
        """The precision."""

    def __call__(self, file: Path) -> None:
        """Change an ONNX file of float32 in its place.

        Raises:
            ModelError: it can't be written so.
        """


class Blanks:
    """Writes a network with any ways in the place of its layers, with random weights in them.

    Args:
        network: the network.
        folder: where its file goes.
        batch: images at a time; None for as many as the network's input has.
        form: what each file is turned into; None to leave it in float32.

    Attributes:
        original: the file with the network as it is, in float32.
        form: as it was given.
        dynamic_batch: whether files take batches of any size.

    Raises:
        ModelError: the network can't be written as ONNX.
    """

    def __init__(
        self,
        network: Network,
        folder: Path,
        *,
        batch: int | None = None,
        form: Form | None = None,
    ) -> None:
        path = self.original = folder / "original.onnx"
        self.form = form
        self.dynamic_batch = batch not in (None, network.inputs.batch)
        write_simplified(network, path, dynamic_batch=self.dynamic_batch)
        model = read_model(path)
        _name_nodes(model)
        self._file = OnnxNetwork.open(OnnxSource(path, model), network.inputs)
        self._found = paired(network.layers, self._file.layers)
        numbers = np.random.default_rng(0).standard_normal(_RANDOM)
        self._numbers = numbers.astype(np.float32)

    def into(self, form: Form | None) -> Blanks:
        """Return what writes the same networks, and turns them into something else."""
        other = copy(self)
        other.form = form
        return other

    @property
    def layers(self) -> frozenset[str]:
        """Names of the layers that can be timed: those that are found in the file."""
        return frozenset(self._found)

    def nodes(self, name: str) -> tuple[OnnxLayer, ...]:
        """Return the nodes of the file that a layer is: one for each of its calls."""
        return self._found[name]

    def write(self, path: Path, ways: Ways) -> dict[str, str]:
        """Write the network with chains in the place of layers.

        Args:
            path: the file.
            ways: what stands in for which layer, by its name.

        Returns:
            Name of the layer that each node computes, by name of the node.
        """
        factors = {
            node.name: self._factors(node, ways[name])
            for name, nodes in self._found.items()
            if name in ways
            for node in nodes
        }
        model, written = self._file.with_factors(factors)
        save(model, path)
        if self.form is not None:
            self.form(path)
        return {
            own: name
            for name, nodes in self._found.items()
            for node in nodes
            for own in written.get(node.name, (node.node.name or "",))
        }

    def _factors(self, layer: OnnxLayer, way: Way) -> Factors:
        ops = way.ops(layer.op)
        return Factors(ops, tuple(map(self._kernel, ops)), np.zeros(layer.op.out_channels))

    def _kernel(self, op: LinearOp) -> Array:
        """Return a kernel that keeps values as large as they are: tiny ones are slow to compute."""
        shape = (op.out_channels, op.in_channels // op.groups, *op.kernel)
        return np.resize(self._numbers, shape) / np.float32(max(1, prod(shape[1:])) ** 0.5)


def write_simplified(network: Network, path: Path, *, dynamic_batch: bool) -> None:
    """Write a network as it is exported, so that it takes as long.

    Raises:
        ModelError: it can't be written as ONNX.
    """
    network.write_onnx(path, OnnxSettings(dynamic_batch=dynamic_batch))
    if _SIMPLIFY in network.passes:
        with suppress(ModelError, MissingDependencyError):  # it is left out of the export too
            simplify_in_place(path)


def paired(layers: Sequence[Layer], nodes: Sequence[OnnxLayer]) -> dict[str, tuple[OnnxLayer, ...]]:
    """Return the nodes of a file that each layer of the network became, by the layer's name.

    By name; where an exporter has made up names, by order among those that compute the same.
    Layers that are found in neither way are left out.

    Args:
        layers: those of the network.
        nodes: those of its file.
    """
    groups: dict[str, list[OnnxLayer]] = defaultdict(list)
    for node in nodes:
        if node.fixed is None:
            groups[node.shares or node.name].append(node)
    wanted = [layer for layer in layers if layer.fixed is None and layer.calls]
    found: dict[str, tuple[OnnxLayer, ...]] = {}
    for layer in wanted:
        group = groups.get(layer.name, [])
        if group and _bare(group[0].op) == _bare(layer.op):
            found[layer.name] = tuple(groups.pop(layer.name))
    rest: dict[LinearOp, list[tuple[OnnxLayer, ...]]] = defaultdict(list)
    for group in groups.values():
        rest[_bare(group[0].op)].append(tuple(group))
    missing: dict[LinearOp, list[str]] = defaultdict(list)
    for layer in wanted:
        if layer.name not in found:
            missing[_bare(layer.op)].append(layer.name)
    for op, names in missing.items():
        if len(names) == len(rest[op]):
            found |= dict(zip(names, rest[op], strict=True))
    return {layer.name: found[layer.name] for layer in wanted if layer.name in found}


def check_found(blanks: Blanks, names: Mapping[str, object]) -> None:
    """Refuse a network of which no layer is found in its file.

    Raises:
        ModelError: it is such.
    """
    if names and not blanks.layers & set(names):
        raise ModelError(
            "no layer of the network is found in the ONNX file that the exporter makes of it, so "
            "that none can be timed: give the ONNX file itself"
        )


def _bare(op: LinearOp) -> LinearOp:
    """Return an operator without its bias: folded batch norms bring one."""
    return replace(op, bias=False)


def _name_nodes(model: ir.Model) -> None:
    """Give each node of the main graph a name of its own, by which a profile tells it."""
    taken: set[str] = set()
    for index, node in enumerate(model.graph):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}_node"
        taken.add(node.name)
