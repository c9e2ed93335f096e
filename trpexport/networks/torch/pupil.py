"""A network that learns from another one: its chains are trained towards what they replace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trpexport.lowrank.chain import Chain
from trpexport.networks.samples import Samples
from trpexport.networks.torch.copying import copied
from trpexport.networks.torch.modules import FactorChain
from trpexport.networks.torch.replay import batch_of, counted_outputs
from trpexport.networks.torch.rewrite import rewrite


@dataclass(frozen=True)
class Pupil:
    """A network of PyTorch, and a copy of it whose chains can be trained, and nothing else of it.

    Both are in evaluation mode: batch norms keep their statistics, nothing is dropped.

    Attributes:
        teacher: the network as it was.
        student: the copy, chains in the place of layers.
        modules: names of the modules that were replaced, by layer.
        outputs: globs of the names of those outputs that count; all where there are none.
    """

    teacher: nn.Module
    student: nn.Module
    modules: Mapping[str, str]
    outputs: Sequence[str]

    @classmethod
    def of(cls, model: nn.Module, chains: Mapping[str, Chain], outputs: Sequence[str]) -> Pupil:
        """Return what learns from ``model``, which is left as it is.

        Args:
            model: the network.
            chains: what the student begins with, by module.
            outputs: globs of the names of those outputs that count.

        Raises:
            PlanError: a chain is for another network, or the network can't be copied.
        """
        found = cls(
            copied(model).eval().requires_grad_(False),
            rewrite(model, chains).eval().requires_grad_(False),
            {name: name for name in chains},
            outputs,
        )
        for chain in found.chains.values():
            chain.requires_grad_(True)
        return found

    @property
    def chains(self) -> dict[str, FactorChain]:
        """What stands in the student for each layer, by layer."""
        found = {layer: self.student.get_submodule(name) for layer, name in self.modules.items()}
        return {layer: chain for layer, chain in found.items() if isinstance(chain, FactorChain)}

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The module of each layer in the teacher, by layer."""
        return {layer: self.teacher.get_submodule(name) for layer, name in self.modules.items()}

    @property
    def weights(self) -> list[nn.Parameter]:
        """What is trained: factors and biases, those that are shared once."""
        return [weight for weight in self.student.parameters() if weight.requires_grad]

    def learnt(self) -> dict[str, Chain]:
        """Return the chains as they are now, by layer; those that share kernels go on to do so."""
        kernels: dict[int, Tensor] = {}
        found = {}
        for layer, module in self.chains.items():
            chain = module.chain
            own = tuple(
                kernels.setdefault(
                    id(factor.weight), kernel.clone(memory_format=torch.contiguous_format)
                )
                for factor, kernel in zip(module.factors, chain.kernels, strict=True)
            )
            bias = None if chain.bias is None else chain.bias.clone()
            found[layer] = Chain(chain.op, chain.scheme, chain.ops, own, bias, is_truncation=False)
        return found

    def outputs_of(self, model: nn.Module, samples: Samples, index: int) -> dict[str, Tensor]:
        """Return what a network gives for a batch: by output (samples, elements), in float64.

        Raises:
            DataError: it gives no tensors, or a glob matches none.
        """
        return counted_outputs(model, batch_of(model, samples, index), self.outputs)

    def move(self, device: torch.device) -> None:
        """Put both networks on a device."""
        self.teacher.to(device)
        self.student.to(device)

    def lay_out(self, layout: torch.memory_format) -> None:
        """Put the channels of all kernels of images first or last."""
        for model in (self.teacher, self.student):
            model.to(memory_format=layout)  # type: ignore[call-overload]
