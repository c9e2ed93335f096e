"""What calibration may ask of an ONNX graph that only ONNX Runtime runs.

Nothing has a derivative there: the scales of the batch norms behind a layer say what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from trpexport.lowrank.chain import Chain
from trpexport.networks.base import Observation
from trpexport.networks.onnx.batch_norms import norm_behind
from trpexport.networks.onnx.constants import Constants
from trpexport.networks.onnx.layers import OnnxLayer
from trpexport.networks.onnx.saving import open_model
from trpexport.networks.samples import Samples
from trpexport.networks.torch.outputs import picked
from trpexport.networks.torch.replay import by_sample
from trpexport.runtime.session import Session, run_in_batches
from trpexport.tensors import Array, Arrays


class Graph(Protocol):
    """A network that is a graph."""

    @property
    def model(self) -> ir.Model:
        """The graph."""

    @property
    def layers(self) -> tuple[OnnxLayer, ...]:
        """Its layers."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Globs of the names of the outputs whose errors count; all where there are none."""

    def run(self, feeds: Arrays) -> Arrays:
        """Return its outputs by name for inputs by name."""


Rewrite = Callable[[Mapping[str, Chain]], Graph]


@dataclass(frozen=True)
class _Behind:
    """What happens to a layer's output.

    Attributes:
        scale: what batch norms and products multiply each channel with, (channels,), or None.
        shortcut: what is added then, or None.
    """

    scale: Array | None
    shortcut: ir.Value | None


class OrtTraversal:
    """A graph on its way through batches: run as a whole for each layer that is asked for.

    Args:
        network: the graph.
        samples: what it runs on.
    """

    def __init__(self, network: Graph, samples: Samples) -> None:
        self.samples = samples
        self.network = network
        self._layer: OnnxLayer | None = None
        self._behind = _Behind(None, None)
        self._session: Session | None = None

    def advance(self, name: str) -> None:
        """Go on to the layer ``name``."""
        layer = next(each for each in self.network.layers if each.name == name)
        if self._layer is not None and layer.node is self._layer.node:
            return
        self._layer, self._behind = layer, _behind(layer, Constants(self.network.model))
        wanted = (layer.data, layer.node.outputs[0], self._behind.shortcut)
        inner = [value for value in wanted if value is not None and value.producer() is not None]
        self._session = open_model(self.network.model, inner, only=True)

    def observe(self, name: str, batch: int) -> Observation:
        """Return what the layer ``name`` does to a batch."""
        self.advance(name)
        layer, session = self._layer, self._session
        assert layer is not None
        assert session is not None
        feeds = session.named(self.samples.batch(batch))
        values = {**feeds, **run_in_batches(session, feeds)}

        def seen(value: ir.Value) -> Tensor:
            found = _tensor(values[value.name or ""])
            return found if layer.op.ndim else found.reshape(-1, found.shape[-1])

        output = seen(layer.node.outputs[0])
        shortcut = None if self._behind.shortcut is None else seen(self._behind.shortcut)
        if shortcut is not None and shortcut.shape != output.shape:
            shortcut = None
        scale = None if self._behind.scale is None else _tensor(self._behind.scale)
        return Observation([seen(layer.data)], [output], shortcut, scale)

    def outputs(self, batch: int) -> Mapping[str, Tensor]:
        """Return what the network gives for a batch: by output (samples, elements), float64."""
        return _outputs(self.network, self.samples, batch)


class OrtCandidate(OrtTraversal):
    """A graph that is decomposed layer after layer.

    Args:
        network: the graph.
        samples: what it runs on.
        rewritten: returns the graph with chains in the place of layers.
    """

    def __init__(self, network: Graph, samples: Samples, rewritten: Rewrite) -> None:
        super().__init__(network, samples)
        self._rewritten = rewritten
        self._chains: dict[str, Chain] = {}

    def put(self, name: str, chain: Chain) -> None:
        """Let a chain stand in for the layer ``name`` from now on."""
        self._chains[name] = chain
        self.network, self._layer, self._session = self._rewritten(self._chains), None, None


class OrtWatch(OrtTraversal):
    """What a graph does to samples.

    Args:
        network: the graph.
        samples: unlabelled inputs.
        rewritten: returns the graph with chains in the place of layers.
        reason: why PyTorch does not run it.
    """

    def __init__(self, network: Graph, samples: Samples, rewritten: Rewrite, reason: str) -> None:
        super().__init__(network, samples)
        self._rewritten = rewritten
        self.note = (
            f"calibrated through ONNX Runtime ({reason}): what counts as error in a layer is "
            "told by the batch norms behind it alone"
        )

    def metric(self, name: str) -> Tensor | None:
        """Return None: nothing is derived."""
        return None

    def outputs_with(self, name: str, chain: Chain, batch: int) -> Mapping[str, Tensor]:
        """Return what the network gives where a chain stands in for one layer."""
        return _outputs(self._rewritten({name: chain}), self.samples, batch)

    def candidate(self) -> OrtCandidate:
        """Return a copy of the network, to be decomposed layer after layer."""
        return OrtCandidate(self.network, self.samples, self._rewritten)


def _outputs(network: Graph, samples: Samples, index: int) -> dict[str, Tensor]:
    feeds = samples.batch(index)
    images = len(next(iter(feeds.values())))
    found = {name: _tensor(array) for name, array in network.run(feeds).items()}
    return by_sample(picked(found, network.outputs), images)


def _behind(layer: OnnxLayer, constants: Constants) -> _Behind:
    """Return what happens to the output of a layer up to an addition, if it is scaled alone."""
    node, scale = layer.node, None
    while True:
        norm = norm_behind(node, constants)
        if norm is None:
            break
        node, scale = norm.node, norm.scale if scale is None else scale * norm.scale
    output = node.outputs[0]
    uses = list(output.uses())
    if len(uses) != 1 or output.is_graph_output():
        return _Behind(scale, None)
    added = uses[0].node
    others = [value for value in added.inputs if value is not output and value is not None]
    is_sum = (added.domain, added.op_type) == ("", "Add") and len(others) == 1
    if not is_sum or constants.find(others[0]) is not None or added.graph is not node.graph:
        return _Behind(scale, None)
    return _Behind(scale, others[0])


def _tensor(array: Array) -> Tensor:
    values = np.asarray(array)
    if values.dtype.kind not in "biu" and values.dtype != np.float64:
        values = values.astype(np.float32)
    return torch.from_numpy(np.ascontiguousarray(values))
