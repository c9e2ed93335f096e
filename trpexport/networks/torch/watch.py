"""What calibration may ask of a PyTorch network, and of a copy that it decomposes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from torch import Tensor, nn

from trpexport.lowrank.chain import Chain
from trpexport.networks.base import Observation
from trpexport.networks.samples import Samples
from trpexport.networks.torch.copying import copied
from trpexport.networks.torch.curvature import metric_groups, output_metrics
from trpexport.networks.torch.cuts import Cuts
from trpexport.networks.torch.modules import LAYERS, FactorChain
from trpexport.networks.torch.pupil import Pupil
from trpexport.networks.torch.replay import Replay, batch_of
from trpexport.networks.torch.running import forwards_replaced

# Samples that the derivative of the outputs is taken on; fewer of a costly network, so that they
# take so many multiply-adds in a forward pass.
_MOST_DERIVED, _LEAST_DERIVED, _DERIVED_MACS = 128, 32, 6e11


def derived_on(macs: float) -> int:
    """Return on how many samples the derivative of a network's outputs is taken, at most.

    Args:
        macs: of a forward pass of one.
    """
    return int(min(_MOST_DERIVED, max(_LEAST_DERIVED, _DERIVED_MACS // max(1, macs))))


class TorchCandidate:
    """A copy of a network that is decomposed from its input on.

    Args:
        model: the network to copy.
        cuts: its cuts.
        samples: what it runs on.
        memory: bytes of intermediate results to keep.
        outputs: globs of the names of those outputs that count; all where there are none.
    """

    def __init__(
        self,
        model: nn.Module,
        cuts: Cuts,
        samples: Samples,
        memory: int,
        outputs: Sequence[str] = (),
    ) -> None:
        # Chains take the place of modules, which nobody changes: the parameters need no copies.
        network = copied(model, reused=model.parameters())
        self._replay = Replay(network, cuts, samples, memory, outputs=outputs)

    def advance(self, name: str) -> None:
        """Go on to the layer ``name``."""
        self._replay.advance(name)

    def observe(self, name: str, batch: int) -> Observation:
        """Return what the layer ``name`` does to a batch."""
        return self._replay.observe(name, batch)

    def inputs(self, name: str, batch: int) -> list[Tensor]:
        """Return what the layer ``name`` gets of a batch, by call."""
        return self._replay.inputs(name, batch)

    def outputs(self, batch: int) -> dict[str, Tensor]:
        """Return what the network gives for a batch: by output (samples, elements), float64."""
        return self._replay.outputs(batch)

    def put(self, name: str, chain: Chain) -> None:
        """Let a chain stand in for the layer ``name`` from now on, wherever its module stands."""
        module = self._replay.model.get_submodule(name)
        assert isinstance(module, LAYERS)
        # The network is this candidate's own: a copy with another module would take much longer.
        module.forward = FactorChain.of(chain, module).forward  # type: ignore[method-assign]


class TorchWatch:
    """What a PyTorch network does to samples.

    Attributes:
        note: nothing: there is one way.

    Args:
        model: the network; it is left as it is.
        cuts: its cuts.
        samples: unlabelled inputs.
        memory: bytes of intermediate results to keep of each network.
        outputs: globs of the names of those outputs that count; all where there are none.
        derived: samples that the derivative of the outputs is taken on, at most.
    """

    note = None

    def __init__(
        self,
        model: nn.Module,
        cuts: Cuts,
        samples: Samples,
        memory: int,
        outputs: Sequence[str] = (),
        *,
        derived: int = _MOST_DERIVED,
    ) -> None:
        self.samples = samples
        self._model = model
        self._cuts = cuts
        self._memory = memory
        self._counted = outputs
        self._derived_on = derived
        self._replay = Replay(model, cuts, samples, memory, outputs=outputs, is_final=True)
        self._derived: tuple[tuple[str, ...], dict[str, Tensor]] = (), {}

    def advance(self, name: str) -> None:
        """Go on to the layer ``name``."""
        self._replay.advance(name)

    def observe(self, name: str, batch: int) -> Observation:
        """Return what the layer ``name`` does to a batch."""
        return self._replay.observe(name, batch)

    def outputs(self, batch: int) -> dict[str, Tensor]:
        """Return what the network gives for a batch: by output (samples, elements), float64.

        It is kept if it is small, as that of a classifier is.
        """
        if self._cuts.output_elements * len(self.samples) * 8 > self._memory:
            return self._replay.outputs(batch)
        return self._outputs[batch]

    def outputs_with(self, name: str, chain: Chain, batch: int) -> dict[str, Tensor]:
        """Return what the network gives where a chain stands in for one layer."""
        module = self._model.get_submodule(name)
        assert isinstance(module, LAYERS)
        self._replay.advance(name)
        with forwards_replaced({module: FactorChain.of(chain, module).forward}):
            return self._replay.outputs(batch)

    def metric(self, name: str) -> Tensor | None:
        """Return what counts as error in the outputs of a layer; None where nothing is derived.

        Those of the layers around it are derived with it, as many as fit into the memory.
        """
        group = next((group for group in self._groups if name in group), ())
        if group != self._derived[0]:
            self._derived = (), {}  # before others take as much
            self._derived = group, self._metrics(group)
        return self._derived[1].get(name)

    def candidate(self) -> TorchCandidate:
        """Return a copy of the network, to be decomposed layer after layer."""
        return TorchCandidate(self._model, self._cuts, self.samples, self._memory, self._counted)

    def pupil(self, chains: Mapping[str, Chain]) -> Pupil:
        """Return what chains in the place of layers, by name, can be trained in."""
        return Pupil.of(self._model, chains, self._counted)

    @cached_property
    def _outputs(self) -> list[dict[str, Tensor]]:
        return [self._replay.outputs(index) for index in range(self.samples.batches)]

    @cached_property
    def _groups(self) -> list[tuple[str, ...]]:
        return list(metric_groups(self._model, self._cuts.layers, self._memory))

    def _metrics(self, layers: Sequence[str]) -> dict[str, Tensor]:
        some = self.samples.first(self._derived_on)
        batches = (
            self._cuts.laid_out(batch_of(self._model, some, index)) for index in range(some.batches)
        )
        return output_metrics(self._model, batches, self._counted, layers=layers)
