"""Running a network up to one layer after the other, without starting over each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trpexport.errors import DataError, ModelError
from trpexport.networks.base import Observation
from trpexport.networks.samples import Samples
from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.cuts import Cuts
from trpexport.networks.torch.modules import LAYERS, LinearLayer, by_channel, op_of
from trpexport.networks.torch.observation import observe
from trpexport.networks.torch.outputs import named_tensors, picked
from trpexport.networks.torch.resuming import Cut, Output, input_at, outputs_at, resumed
from trpexport.networks.torch.running import arguments_for, evaluating, tensor_leaves


class Replay:
    """Runs a network on batches of samples, each time from the last cut before a layer.

    What comes out of the cut is kept for as many samples as a bound on memory allows; the others
    start at the input. The network's layers up to the cut must no longer change.

    Args:
        model: the network; in eval mode while it runs.
        cuts: the cuts of the network, or of the one that it was made from.
        samples: what it runs on.
        memory: bytes that may be kept.
        outputs: globs of the names of those outputs that count; all where there are none.
        is_final: whether no layer behind the cut changes either: layers up to the next cut are
            then observed together, and what they will be asked for is kept as well, with what comes
            out of that cut.
    """

    def __init__(
        self,
        model: nn.Module,
        cuts: Cuts,
        samples: Samples,
        memory: int,
        *,
        outputs: Sequence[str] = (),
        is_final: bool = False,
    ) -> None:
        self.model = model
        self._cuts = cuts
        self._samples = samples
        self._memory = memory
        self._outputs = outputs
        self._is_final = is_final
        self._cut: Cut | None = None
        self._kept: dict[int, dict[str, Output]] = {}
        self._ahead: dict[int, dict[str, Output]] = {}  # what comes out of the next cut
        self._next: Cut | None = None
        self._seen: dict[tuple[str, int], Observation] = {}
        self._zeros: dict[tuple[int, ...], Tensor] = {}

    def batch(self, index: int) -> Arguments:
        """Return a batch of the samples as the network takes it."""
        return self._cuts.laid_out(batch_of(self.model, self._samples, index))

    def advance(self, name: str) -> None:
        """Move to the last cut before the layer ``name``."""
        cut = self._cuts.before(name)
        if cut == self._cut:
            return
        ahead = self._ahead if cut == self._next else {}
        self._seen, self._ahead, self._next = {}, {}, None
        if cut is None or (self._cut is not None and cut.end < self._cut.end):
            self._cut, self._kept = None, {}
        if cut is None:
            return
        kept, used = {}, 0
        for index in range(self._samples.batches):
            if index in ahead:
                outputs = ahead.pop(index)
            else:
                with self._resumed(index):
                    outputs = outputs_at(self.model, cut.names, self.batch(index))
            self._kept.pop(index, None)
            used += _bytes(outputs)
            if used > self._memory:
                break
            kept[index] = outputs
        self._cut, self._kept = cut, kept

    def outputs(self, index: int) -> dict[str, Tensor]:
        """Return what the network gives for a batch: by output (samples, elements), float64.

        Raises:
            DataError: it gives no tensors, or a glob matches none.
        """
        with self._resumed(index):
            return counted_outputs(self.model, self.batch(index), self._outputs)

    def observe(self, name: str, index: int) -> Observation:
        """Return what the layer ``name`` does to a batch."""
        seen = self._seen.pop((name, index), None)
        if seen is not None:
            return seen
        names, last = [name], None
        if self._is_final and self._used < self._memory:
            together = self._cuts.layers_after(self._cut)
            names = together[together.index(name) :]
            last = self._next = self._cuts.behind(self._cut)
        batch = self.batch(index)
        calls = {each: self._cuts.calls(each, batch.images) for each in names}
        layers = {each: self._layer(each) for each in names}
        behind = () if last is None else last.names
        modules = {each: self.model.get_submodule(each) for each in behind}
        with evaluating(self.model), self._resumed(index):
            found, outputs = observe(lambda: batch.call(self.model), layers, calls, modules)
        self._seen |= {(each, index): found[each] for each in names[1:]}
        if last is not None:
            self._ahead[index] = outputs
        return found[name]

    def inputs(self, name: str, index: int) -> list[Tensor]:
        """Return what the layer ``name`` gets of a batch, by call; if possible, it does not run."""
        batch = self.batch(index)
        if self._cuts.calls(name, batch.images) > 1:
            return self.observe(name, index).inputs
        with self._resumed(index):
            found = input_at(self.model, name, batch)
        return [by_channel(op_of(self._layer(name)), found)]

    def _layer(self, name: str) -> LinearLayer:
        module = self.model.get_submodule(name)
        assert isinstance(module, LAYERS)
        return module

    @property
    def _used(self) -> int:
        """Bytes that are kept."""
        return _bytes([self._kept, self._ahead, [vars(seen) for seen in self._seen.values()]])

    def _resumed(self, index: int) -> AbstractContextManager[None]:
        """Let the network begin at the cut within the block, if its output is kept."""
        outputs = self._kept.get(index)
        if self._cut is None or outputs is None:
            return nullcontext()
        any_tensor = tensor_leaves(outputs)[0]

        def zeros(shape: tuple[int, ...]) -> Tensor:
            # The same for all modules and calls: nothing that counts reads it.
            if shape not in self._zeros:
                self._zeros[shape] = _untouched_zeros(shape, any_tensor)
            return self._zeros[shape]

        return resumed(self.model, self._cut, outputs, zeros)


def _untouched_zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return zeros that take memory only as far as they are read: of NumPy they come untouched."""
    if like.device.type != "cpu" or not like.is_floating_point():
        return like.new_zeros(shape)
    return torch.from_numpy(np.zeros(shape, np.float32)).to(like.dtype)


def _bytes(values: Any) -> int:
    """Return what the tensors in some values take."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensor_leaves(values))


def batch_of(model: nn.Module, samples: Samples, index: int) -> Arguments:
    """Return a batch of samples on the device and in the dtype of a network."""
    batch = samples.batch(index)
    return arguments_for(model, {name: torch.from_numpy(array) for name, array in batch.items()})


def counted_outputs(
    model: nn.Module, batch: Arguments, outputs: Sequence[str]
) -> dict[str, Tensor]:
    """Return what a network gives for a batch: by output (samples, elements), in float64.

    Args:
        model: the network.
        batch: its inputs.
        outputs: globs of the names of those outputs that count; all where there are none.

    Raises:
        DataError: it gives no tensors, or a glob matches none.
    """
    with evaluating(model):
        found = batch.call(model)
    try:
        named = picked(named_tensors(found, batch.tensors), outputs)
    except ModelError as error:
        raise DataError(str(error)) from error
    return by_sample(named, batch.images)


def by_sample(outputs: Mapping[str, Tensor], samples: int) -> dict[str, Tensor]:
    """Return outputs that can be compared, as one row a sample, in float64.

    Whole numbers are left out beside others: what is chosen by the largest of some numbers
    follows from these.
    """
    numbers = {name: output for name, output in outputs.items() if output.is_floating_point()}
    return {name: _rows(output, samples) for name, output in (numbers or outputs).items()}


def _rows(output: Tensor, samples: int) -> Tensor:
    """Return an output as one row a sample; one that does not count samples is the same for all."""
    count = samples if output.ndim and len(output) and len(output) % samples == 0 else 1
    return output.double().reshape(count, output.numel() // count).expand(samples, -1)
