"""What calibration may ask of an ONNX graph: of the graph in PyTorch, or of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from trpexport.errors import ModelError, TrpexportError
from trpexport.inputs import Inputs
from trpexport.lowrank.chain import Chain
from trpexport.networks.base import Candidate, Observation, Watch
from trpexport.networks.onnx.interpreter import unknown_operators
from trpexport.networks.onnx.layers import OnnxLayer
from trpexport.networks.onnx.module import OnnxModule
from trpexport.networks.onnx.saving import open_model
from trpexport.networks.samples import Samples
from trpexport.networks.torch.arguments import drawn
from trpexport.networks.torch.chain_check import relative_rms
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.pupil import Pupil
from trpexport.tensors import Arrays

# A wrong operator is off by the size of what it computes, half precision by this.
_MAX_DIFFERENCE = 2e-2


class OnnxWatch:
    """A watch of the graph in PyTorch, that knows layers by the names that they have in the file.

    Args:
        watch: of the module.
        names: of the layers' modules, by layer.
    """

    note = (
        "calibrated in PyTorch, which gives what ONNX Runtime gives: what counts as error in a "
        "layer is derived from the outputs"
    )

    def __init__(self, watch: Watch, names: Mapping[str, str]) -> None:
        self._watch = watch
        self._names = names

    @property
    def samples(self) -> Samples:
        """The samples."""
        return self._watch.samples

    def advance(self, name: str) -> None:
        """Go on to the layer ``name``."""
        self._watch.advance(self._names[name])

    def observe(self, name: str, batch: int) -> Observation:
        """Return what the layer ``name`` does to a batch."""
        return self._watch.observe(self._names[name], batch)

    def outputs(self, batch: int) -> Mapping[str, Tensor]:
        """Return what the network gives for a batch: by output (samples, elements), float64."""
        return self._watch.outputs(batch)

    def outputs_with(self, name: str, chain: Chain, batch: int) -> Mapping[str, Tensor]:
        """Return what the network gives where a chain stands in for one layer."""
        return self._watch.outputs_with(self._names[name], chain, batch)

    def metric(self, name: str) -> Tensor | None:
        """Return what counts as error in the outputs of a layer; None where nothing is derived."""
        return self._watch.metric(self._names[name])

    def candidate(self) -> Candidate:
        """Return a copy of the network, to be decomposed layer after layer."""
        return _OnnxCandidate(self._watch.candidate(), self._names)

    def pupil(self, chains: Mapping[str, Chain]) -> Pupil:
        """Return what chains in the place of layers, by name, can be trained in."""
        pupil = self._watch.pupil({self._names[name]: chain for name, chain in chains.items()})
        return replace(pupil, modules={name: self._names[name] for name in chains})


class _OnnxCandidate:
    """A candidate that knows layers by the names that they have in the file."""

    def __init__(self, candidate: Candidate, names: Mapping[str, str]) -> None:
        self._candidate = candidate
        self._names = names

    def advance(self, name: str) -> None:
        """Go on to the layer ``name``."""
        self._candidate.advance(self._names[name])

    def observe(self, name: str, batch: int) -> Observation:
        """Return what the layer ``name`` does to a batch."""
        return self._candidate.observe(self._names[name], batch)

    def inputs(self, name: str, batch: int) -> Sequence[Tensor]:
        """Return what the layer ``name`` gets of a batch, by call."""
        return self._candidate.inputs(self._names[name], batch)

    def outputs(self, batch: int) -> Mapping[str, Tensor]:
        """Return what the network gives for a batch: by output (samples, elements), float64."""
        return self._candidate.outputs(batch)

    def put(self, name: str, chain: Chain) -> None:
        """Let a chain stand in for the layer ``name`` from now on."""
        self._candidate.put(self._names[name], chain)


def in_torch(
    model: ir.Model, layers: Sequence[OnnxLayer], inputs: Inputs, outputs: Sequence[str] = ()
) -> TorchNetwork:
    """Return a graph as a network of PyTorch, once that gives what ONNX Runtime gives.

    Args:
        model: the graph.
        layers: its layers.
        inputs: what it takes.
        outputs: globs of the names of the outputs whose errors count; all where there are none.

    Raises:
        ModelError: it can't be computed in PyTorch, with the reason.
    """
    unknown = unknown_operators(model)
    if unknown:
        raise ModelError(f"PyTorch does not compute {', '.join(sorted(unknown))}")
    feeds = {name: tensor.numpy() for name, tensor in drawn(inputs).items()}
    session = open_model(model)
    wanted = session.run(session.named(feeds))
    if session.batch_size is not None:
        # Exporters write the batch of their example into shapes, where any would do.
        loose = TorchNetwork(
            OnnxModule(model, layers, loosened=session.batch_size), inputs, outputs=outputs
        )
        if _is_by_image(loose, feeds):
            _compare(wanted, loose.run(feeds))
            return loose
    module = OnnxModule(model, layers)
    module.batch = session.batch_size
    network = TorchNetwork(module, inputs, outputs=outputs)
    _compare(wanted, network.run(feeds))
    return network


def _compare(wanted: Arrays, found: Arrays) -> None:
    """Check that PyTorch gives what ONNX Runtime gives.

    Raises:
        ModelError: it does not.
    """
    for (name, theirs), ours in zip(wanted.items(), found.values(), strict=True):
        if theirs.shape != ours.shape:
            raise ModelError(f"PyTorch gives {name} in another shape than ONNX Runtime")
        if theirs.dtype.kind != "f" or not theirs.size:
            continue
        both = [torch.from_numpy(np.nan_to_num(each.astype(np.float64))) for each in (theirs, ours)]
        if relative_rms(*both) > _MAX_DIFFERENCE:
            raise ModelError(f"PyTorch gives {name} otherwise than ONNX Runtime")


def _is_by_image(network: TorchNetwork, feeds: Arrays) -> bool:
    """Whether a network whose file names one batch size computes others as well."""
    twice = {name: np.concatenate([array, array[::-1]]) for name, array in feeds.items()}
    turned = {name: array[::-1].copy() for name, array in feeds.items()}
    try:
        both, first, second = (network.run(each) for each in (twice, feeds, turned))
    except TrpexportError:
        return False
    return all(
        first[name].shape[:1] == (network.inputs.batch,)
        and both[name].shape == (2 * len(first[name]), *first[name].shape[1:])
        and np.allclose(
            both[name], np.concatenate([first[name], second[name]]), rtol=1e-3, atol=1e-5
        )
        for name in both
    )


def names_of(network: TorchNetwork) -> Mapping[str, str]:
    """Return the names of the modules of a graph's layers, by layer."""
    module: nn.Module = network.model
    assert isinstance(module, OnnxModule)
    return module.names
