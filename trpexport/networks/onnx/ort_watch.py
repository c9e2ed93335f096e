"""What calibration may ask of an ONNX graph that only ONNX Runtime runs.

Nothing has a derivative there: the scales of the batch norms behind a layer say what counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Protocol

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from trpexport.cost import output_size
from trpexport.errors import ModelError
from trpexport.lowrank.chain import Chain
from trpexport.networks.base import Observation
from trpexport.networks.onnx.batch_norms import norm_behind
from trpexport.networks.onnx.constants import Constants
from trpexport.networks.onnx.layers import OnnxLayer
from trpexport.networks.onnx.saving import open_model
from trpexport.networks.samples import Samples
from trpexport.networks.torch.outputs import picked
from trpexport.networks.torch.pupil import Pupil
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
    """A graph on its way through batches: run as a whole for each layer, or for several at once.

    Args:
        network: the graph.
        samples: what it runs on.
        memory: bytes of what layers get and give that may be kept until somebody asks for it:
            such layers are observed together. 0 for one layer after the other.
    """

    def __init__(self, network: Graph, samples: Samples, memory: int = 0) -> None:
        self.samples = samples
        self.network = network
        self._memory = memory
        self._group: dict[str, tuple[OnnxLayer, _Behind]] = {}
        self._seen: dict[tuple[str, int], Observation] = {}
        self._session: Session | None = None

    def advance(self, name: str) -> None:
        """Go on to the layer ``name``."""
        if name in self._group:
            return
        constants = Constants(self.network.model)
        self._seen = {}
        self._group = {
            layer.name: (layer, _behind(layer, constants)) for layer in self._together(name)
        }
        wanted = [
            value
            for layer, behind in self._group.values()
            for value in (layer.data, layer.node.outputs[0], behind.shortcut)
            if value is not None and value.producer() is not None
        ]
        self._session = open_model(self.network.model, wanted, only=True)

    def observe(self, name: str, batch: int) -> Observation:
        """Return what the layer ``name`` does to a batch."""
        seen = self._seen.pop((name, batch), None)
        if seen is not None:
            return seen
        self.advance(name)
        assert self._session is not None
        feeds = self._session.named(self.samples.batch(batch))
        values = {**feeds, **run_in_batches(self._session, feeds)}
        names = list(self._group)
        for later in names[names.index(name) + 1 :]:
            self._seen[later, batch] = _observed(*self._group[later], values)
        return _observed(*self._group[name], values)

    def _together(self, name: str) -> Iterator[OnnxLayer]:
        """Yield a layer and as many behind it as there is memory for what they get and give."""
        names = [layer.name for layer in self.network.layers]
        left = self._memory
        for layer in self.network.layers[names.index(name) :]:
            left -= 0 if layer.name == name else _observed_bytes(layer) * len(self.samples)
            if left < 0:
                return
            if layer.calls:
                yield layer

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

    def inputs(self, name: str, batch: int) -> list[Tensor]:
        """Return what the layer ``name`` gets of a batch, by call."""
        return self.observe(name, batch).inputs

    def put(self, name: str, chain: Chain) -> None:
        """Let a chain stand in for the layer ``name`` from now on."""
        self._chains[name] = chain
        self.network, self._group, self._session = self._rewritten(self._chains), {}, None


class OrtWatch(OrtTraversal):
    """What a graph does to samples.

    Args:
        network: the graph.
        samples: unlabelled inputs.
        rewritten: returns the graph with chains in the place of layers.
        reason: why PyTorch does not run it.
        memory: bytes of what layers get and give that may be kept.
    """

    def __init__(
        self, network: Graph, samples: Samples, rewritten: Rewrite, reason: str, memory: int
    ) -> None:
        super().__init__(network, samples, memory)
        self._rewritten = rewritten
        self._reason = reason
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

    def pupil(self, chains: Mapping[str, Chain]) -> Pupil:
        """Refuse: nothing is derived.

        Raises:
            ModelError: always.
        """
        raise ModelError(
            f"the network can't be refined ({self._reason}): gradients need one that PyTorch "
            "computes; leave the refining out",
            parameters=("refine",),
        )


def _observed(layer: OnnxLayer, behind: _Behind, values: Mapping[str, Array]) -> Observation:
    """Return what a layer did, by the values of a run."""

    def seen(value: ir.Value) -> Tensor:
        found = _tensor(values[value.name or ""])
        return found if layer.op.ndim else found.reshape(-1, found.shape[-1])

    output = seen(layer.node.outputs[0])
    shortcut = None if behind.shortcut is None else seen(behind.shortcut)
    if shortcut is not None and shortcut.shape != output.shape:
        shortcut = None
    scale = None if behind.scale is None else _tensor(behind.scale)
    return Observation([seen(layer.data)], [output], shortcut, scale)


def _observed_bytes(layer: OnnxLayer) -> int:
    """Return how much what a layer gets and gives for one image takes at most, in float32."""
    op = layer.op
    return 4 * sum(
        call.places
        * (
            op.in_channels * prod(call.size)
            + 2 * op.out_channels * prod(output_size(op, call.size))
        )
        for call in layer.calls
    )


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
