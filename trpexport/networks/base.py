"""The seam: what the mathematics asks of whoever holds a network, and nothing else.

One who holds networks of another framework writes a :class:`Network` and its :class:`Watch`; the
choice of ranks, the calibration and the export stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, Self

from trpexport.cost import Cost
from trpexport.inputs import Inputs
from trpexport.ops import Layer, LinearOp
from trpexport.tensors import Arrays

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from trpexport.lowrank.chain import Chain
    from trpexport.networks.onnx_settings import OnnxSettings
    from trpexport.networks.samples import Samples

NO_CHAINS: Mapping[str, Chain] = MappingProxyType({})
# Bytes of intermediate results that a watch keeps of each network.
WATCH_BYTES = 3 << 28


@dataclass
class Observation:
    """One forward pass, as a layer saw it.

    Attributes:
        inputs: input of each call (batch, in_channels, *size).
        outputs: output of each call.
        shortcut: what is added to the output, directly or behind a batch norm; None where nothing
            of the same shape is, or where the layer is called more than once.
        scale: what the way there multiplies each channel with, relative to the shortcut; None for
            1.
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    shortcut: Tensor | None = None
    scale: Tensor | None = None


class Network(Protocol):
    """A network that can be decomposed. It never changes: what changes it returns another one."""

    @property
    def inputs(self) -> Inputs:
        """What it takes, by name."""

    @property
    def ops(self) -> Mapping[str, LinearOp]:
        """What each of its layers computes, by name: known without running it."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What may be rewritten, in the order in which a forward pass first calls it."""

    @property
    def stem(self) -> str | None:
        """Name of the layer that runs first, or None."""

    @property
    def head(self) -> str | None:
        """Name of the layer that runs last, if no other layer with weights comes after it."""

    @property
    def cost(self) -> Cost:
        """What all of it costs for ``inputs``; unknown operators are listed."""

    @property
    def other_macs(self) -> int:
        """MACs for one image of all that ``layers`` do not account for."""

    def weights(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Return kernel and bias of a layer."""

    def rewritten(self, chains: Mapping[str, Chain]) -> Self:
        """Return the network with chains in the place of layers, by name.

        Raises:
            PlanError: a chain is for another network, or the network can't run with it.
        """

    def dense(self) -> Self:
        """Return the network that this one stands for, by the products of its chains."""

    def run(self, feeds: Arrays) -> Arrays:
        """Return its outputs by name for inputs by name."""

    def write_onnx(self, path: Path, settings: OnnxSettings) -> None:
        """Write it as an ONNX file.

        Raises:
            ModelError: it can't be written so.
        """

    def watch(self, samples: Samples, *, memory: int = WATCH_BYTES) -> Watch:
        """Return all that calibration may ask of it.

        Args:
            samples: unlabelled inputs.
            memory: bytes of intermediate results to keep of each network.
        """

    def identity(self) -> str:
        """Return what tells it from others, for caches: by its weights and by its behaviour."""


class Traversal(Protocol):
    """A network on its way through batches of samples, layer after layer."""

    def advance(self, name: str) -> None:
        """Go on to the layer ``name``: what comes before it is not asked for any more."""

    def observe(self, name: str, batch: int) -> Observation:
        """Return what the layer ``name`` does to a batch."""

    def outputs(self, batch: int) -> Mapping[str, Tensor]:
        """Return what the network gives for a batch: by output (images, elements), float64."""


class Candidate(Traversal, Protocol):
    """A network that is being decomposed, from its input on."""

    def put(self, name: str, chain: Chain) -> None:
        """Let a chain stand in for the layer ``name`` from now on."""


class Watch(Traversal, Protocol):
    """What a network does to samples, as calibration asks for it."""

    @property
    def samples(self) -> Samples:
        """The samples."""

    def metric(self, name: str) -> Tensor | None:
        """Return what counts as error in the outputs of a layer; None where nothing is derived.

        (groups, O, O), O the output channels of a group, positive definite, in float64.
        """

    def outputs_with(self, name: str, chain: Chain, batch: int) -> Mapping[str, Tensor]:
        """Return what the network gives where a chain stands in for one layer."""

    def candidate(self) -> Candidate:
        """Return a copy of the network, to be decomposed layer after layer."""
