"""The seam: what the mathematics asks of whoever holds a network, and nothing else.

One who holds networks of another framework writes a :class:`Network` and its :class:`Watch`; the
choice of ranks, the calibration and the export stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, Self

from trpexport.cost import Cost
from trpexport.inputs import Inputs
from trpexport.networks.dynamic import Dynamic
from trpexport.ops import Layer, LinearOp
from trpexport.tensors import Arrays

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import Tensor, nn

    from models_zoo.family import Architecture
    from trpexport.compare import Tolerance
    from trpexport.lowrank.chain import Chain
    from trpexport.networks.onnx_settings import OnnxSettings
    from trpexport.networks.samples import Samples
    from trpexport.networks.torch.chain_check import LayerCheck
    from trpexport.networks.torch.pupil import Pupil
    from trpexport.plan import Plan

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


class Origin(Protocol):
    """The file that a network comes from."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def sha256(self) -> str:
        """SHA-256 of it."""

    @property
    def label(self) -> str:
        """What the network is called."""

    @property
    def architecture(self) -> Architecture | None:
        """The architecture in it, if that is known."""

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Facts that go with it, JSON-ready."""

    @property
    def notes(self) -> Sequence[str]:
        """What the reader of a report should know of it."""


class Network(Protocol):
    """A network that can be decomposed. It never changes: what changes it returns another one."""

    @property
    def inputs(self) -> Inputs:
        """What it takes, by name."""

    @property
    def outputs(self) -> Sequence[str]:
        """Globs of the names of the outputs whose errors count; all where there are none."""

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
    def heads(self) -> Sequence[str]:
        """Names of the layers whose outputs leave it without passing another with weights."""

    @property
    def cost(self) -> Cost:
        """What all of it costs for ``inputs``; unknown operators are listed."""

    @property
    def other_macs(self) -> int:
        """MACs for one image of all that ``layers`` do not account for."""

    @property
    def parameters(self) -> int:
        """Number of its parameters; those that are shared count once."""

    @property
    def dtype(self) -> str:
        """Numpy's name of the type of its input."""

    @property
    def tolerance(self) -> Tolerance:
        """How far rounding may carry its outputs."""

    @property
    def dynamic(self) -> Dynamic:
        """By input, the axes besides the batch that it leaves open whatever the settings."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What is done otherwise than a user may expect, when it is verified and written."""

    @property
    def device(self) -> torch.device:
        """Where its layers are, and calibration computes."""

    def on(self, device: torch.device) -> Self:
        """Return the network where its layers are on a device, itself where they are already.

        Raises:
            DeviceError: it can't run there.
        """

    @property
    def module(self) -> nn.Module | None:
        """The module of PyTorch that computes; None where it is none."""

    def as_module(self) -> nn.Module:
        """Return the network as a module of one's own, in the precision that it came in.

        Raises:
            PlanError: it is no network of PyTorch.
        """

    @property
    def passes(self) -> tuple[str, ...]:
        """The passes that make its file where nobody asks for others."""

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

    def rounding(self, feeds: Arrays) -> Mapping[str, float]:
        """Return how far outputs are from those in float64, RMS relative to these, by name.

        Those that can't be told are left out.

        Raises:
            TrpexportError: none can.
        """

    def check_layers(self, original: Self, plan: Plan, feeds: Arrays) -> tuple[LayerCheck, ...]:
        """Compare each chain in it with its plan, on what the layer gets in ``original``.

        Raises:
            PlanError: a layer that the plan rewrites is no chain.
        """

    def first_drift(self, other: Self, plan: Plan, feeds: Arrays, limit: float) -> str | None:
        """Return the first layer of a plan whose output in another network differs, or None.

        Args:
            other: a network of the same layers.
            plan: the plan.
            feeds: inputs of both by name.
            limit: largest relative RMS difference that is no drift.
        """

    def first_drift_in(self, path: Path, feeds: Arrays, limit: float) -> str | None:
        """Return the first layer whose output differs in an ONNX file made of it, or None."""

    def write_onnx(self, path: Path, settings: OnnxSettings) -> str | None:
        """Write it as an ONNX file, and return what a user should know of it.

        Raises:
            ModelError: it can't be written so.
        """

    def written_as(self, settings: OnnxSettings) -> dict[str, Any]:
        """Return how it is written under some settings, as a manifest tells it."""

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

    def inputs(self, name: str, batch: int) -> Sequence[Tensor]:
        """Return what the layer ``name`` gets of a batch, by call: it need not run for that."""

    def put(self, name: str, chain: Chain) -> None:
        """Let a chain stand in for the layer ``name`` from now on."""


class Watch(Traversal, Protocol):
    """What a network does to samples, as calibration asks for it."""

    @property
    def samples(self) -> Samples:
        """The samples."""

    @property
    def note(self) -> str | None:
        """How it watches, where there is more than one way."""

    def metric(self, name: str) -> Tensor | None:
        """Return what counts as error in the outputs of a layer; None where nothing is derived.

        (groups, O, O), O the output channels of a group, positive definite, in float64.
        """

    def outputs_with(self, name: str, chain: Chain, batch: int) -> Mapping[str, Tensor]:
        """Return what the network gives where a chain stands in for one layer."""

    def candidate(self) -> Candidate:
        """Return a copy of the network, to be decomposed layer after layer."""

    def pupil(self, chains: Mapping[str, Chain]) -> Pupil:
        """Return what chains in the place of layers, by name, can be trained in.

        Raises:
            ModelError: the network has no gradients.
        """
