"""A network of PyTorch, as the mathematics sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.compare import FLOAT32, Tolerance
from trpexport.cost import Cost
from trpexport.errors import DeviceError, ModelError, PlanError
from trpexport.inputs import Inputs, InputsLike
from trpexport.lowrank.chain import Chain
from trpexport.networks.base import WATCH_BYTES
from trpexport.networks.dynamic import Dynamic
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.samples import Samples
from trpexport.networks.torch import rewrite
from trpexport.networks.torch.arguments import Arguments, in_order
from trpexport.networks.torch.chain_check import LayerCheck, relative_rms
from trpexport.networks.torch.copying import copied
from trpexport.networks.torch.cuts import Cuts
from trpexport.networks.torch.dataflow import decides_by_values
from trpexport.networks.torch.drift import first_drifting_conv
from trpexport.networks.torch.equivalence import check_layers, first_drift
from trpexport.networks.torch.folding import fold
from trpexport.networks.torch.identity import identity
from trpexport.networks.torch.modules import LAYERS, FactorChain, forget_ops, kernel_of, op_of
from trpexport.networks.torch.outputs import left_out, named_tensors
from trpexport.networks.torch.probing import advice, check_open_sizes, probe
from trpexport.networks.torch.running import (
    LOW_PRECISION,
    arguments_for,
    example_input,
    failure_of,
    input_like,
    outputs_of,
)
from trpexport.networks.torch.to_onnx import to_onnx
from trpexport.networks.torch.trace import TorchLayer, Trace, trace
from trpexport.networks.torch.watch import TorchWatch, derived_on
from trpexport.ops import LinearOp
from trpexport.plan import Plan
from trpexport.tensors import Arrays


class TorchNetwork:
    """A network of PyTorch; it is a copy, so that nothing done to it is done to its owner's.

    Attributes:
        model: the network that computes, in float32 at least.
        inputs: what it takes.
        outputs: globs of the names of the outputs whose errors count; all where there are none.
        folded: names of layers whose kernels a norm or a mask computed, and are plain now.
        bound: names of layers that pad by the size of their input, and are known at these sizes.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: InputsLike,
        *,
        outputs: Sequence[str] = (),
        dtypes: Mapping[str, torch.dtype] | None = None,
        folded: Sequence[str] = (),
        bound: Sequence[str] = (),
    ) -> None:
        self.model = model
        self.inputs = in_order(model, Inputs.of(inputs))
        self.outputs = tuple(outputs)
        self.folded = tuple(folded)
        self.bound = tuple(bound)
        self._dtypes = dtypes or {}

    @classmethod
    def open(
        cls, model: nn.Module, inputs: InputsLike, outputs: Sequence[str] = ()
    ) -> TorchNetwork:
        """Return the network that a module is.

        One in half precision is computed with in float32, and given back by :meth:`as_module` in
        its own. Weight norms, spectral norms, pruning masks and other parametrizations of
        layers are multiplied into their kernels. Layers with a forward of their own are tried.

        Raises:
            PlanError: the module can't be copied.
        """
        model = copied(model)
        folded = fold(model)
        tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        low = {name: t.dtype for name, t in tensors.items() if t.dtype in LOW_PRECISION}
        if low:
            model = model.float()
            for module in model.modules():
                if isinstance(module, FactorChain):
                    module.is_truncation = False  # but a rounded one
        learned = probe(model, in_order(model, Inputs.of(inputs)))
        bound = [name for name, is_bound in learned.items() if is_bound]
        return cls(model, inputs, outputs=outputs, dtypes=low, folded=folded, bound=bound)

    def as_module(self) -> nn.Module:
        """Return the network as a module of one's own, in the precision that it came in."""
        model = copied(self.model)
        forget_ops(model)
        if self._dtypes:
            for name, module in model.named_modules():
                if not isinstance(module, FactorChain):
                    self._restore(module, name)
        return model

    @property
    def dtype(self) -> str:
        """Numpy's name of the type of its weights, in which it takes floats."""
        weight = input_like(self.model)
        return str(weight.dtype).removeprefix("torch.")

    @property
    def tolerance(self) -> Tolerance:
        """How far rounding may carry its outputs."""
        return FLOAT32

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return input_like(self.model).device

    def on(self, device: torch.device) -> TorchNetwork:
        """Return the network with its weights on a device, itself where they are already.

        Raises:
            DeviceError: it can't run there.
        """
        if device.type == self.device.type:
            return self
        found = self._with(copied(self.model).to(device))
        failure = failure_of(found.model, self.inputs)
        if failure is not None:
            raise DeviceError(f"the network can't run on {device} ({failure}): choose another")
        # Counted where it was: operators are others on each device.
        found.trace = self.trace.of_copy(found.model)
        return found

    @property
    def module(self) -> nn.Module:
        """The module that computes, in float32 at least."""
        return self.model

    @property
    def passes(self) -> tuple[str, ...]:
        """The passes that make its file where nobody asks for others."""
        return ("export", "simplify", "annotate")

    @property
    def dynamic(self) -> Dynamic:
        """No axes: settings say which its file leaves open."""
        return {}

    @property
    def notes(self) -> tuple[str, ...]:
        """What is done otherwise than a user may expect, when it is verified and written."""
        return tuple(self._notes())

    def _notes(self) -> Iterator[str]:
        low = next((str(dtype).removeprefix("torch.") for dtype in self._dtypes.values()), None)
        if low is not None:
            yield f"the network is in {low}: verified and written in float32"
        if self.folded:
            names = f"{', '.join(self.folded[:3])}{' ...' if len(self.folded) > 3 else ''}"
            yield (
                f"the norms, masks or other parametrizations of {names} were multiplied into the "
                "kernels: the same network, but for further training"
            )
        yield from advice(self.model)
        if self.left_out:
            named = ", ".join(f"{name} ({kind})" for name, kind in self.left_out.items())
            yield f"left out of the outputs, as it is no tensor: {named}"

    @cached_property
    def trace(self) -> Trace:
        """What one forward pass runs.

        Raises:
            PlanError: the network can't run inputs of their shapes.
        """
        return trace(self.model, self.inputs)

    @property
    def ops(self) -> dict[str, LinearOp]:
        """What each of its linear layers computes, by name: known without running it."""
        return {
            name: op_of(module)
            for name, module in self.model.named_modules()
            if isinstance(module, LAYERS)
        }

    @property
    def layers(self) -> tuple[TorchLayer, ...]:
        """Its linear layers, in the order in which a forward pass first calls them."""
        return self.trace.layers

    @property
    def stem(self) -> str | None:
        """Name of the layer that runs first, or None."""
        return self.trace.stem

    @property
    def heads(self) -> tuple[str, ...]:
        """Names of the layers whose outputs leave it without passing another with weights."""
        return self.trace.heads

    @property
    def other_macs(self) -> int:
        """MACs for one image of all that :attr:`layers` do not account for."""
        return self.trace.other_macs

    @property
    def cost(self) -> Cost:
        """What all of it costs for its inputs."""
        assert self.trace.cost is not None
        return self.trace.cost

    @cached_property
    def parameters(self) -> int:
        """Number of its parameters; those that are shared count once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def weights(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Return kernel and bias of a layer."""
        module = next(layer.module for layer in self.layers if layer.name == name)
        return kernel_of(module).detach(), None if module.bias is None else module.bias.detach()

    def rewritten(self, chains: Mapping[str, Chain]) -> TorchNetwork:
        """Return the network with chains in the place of layers, by name.

        Raises:
            PlanError: a chain is for another network, or the network can't run with it: the layer
                is named.
        """
        found = self._with(rewrite.rewrite(self.model, chains))
        failure = failure_of(found.model, self.inputs)
        if failure is None:
            return found
        for name, chain in chains.items():
            alone = failure_of(rewrite.rewrite(self.model, {name: chain}), self.inputs)
            if alone is not None:
                raise PlanError(
                    f"the network can't run with {name} rewritten ({alone}): exclude it"
                )
        raise PlanError(f"the network can't run once it is rewritten ({failure})")

    def dense(self) -> TorchNetwork:
        """Return the network that this one stands for, by the products of its chains."""
        return self._with(rewrite.dense(self.model))

    def input_of(self, feeds: Arrays) -> Arguments:
        """Return what its forward takes: copies, since a network may change its inputs in place."""
        return arguments_for(self.model, {name: torch.tensor(feeds[name]) for name in self.inputs})

    def run(self, feeds: Arrays) -> Arrays:
        """Return its outputs by name for inputs by name.

        Raises:
            ModelError: it can't run these inputs, or returns something else than tensors.
        """
        outputs = outputs_of(self.model, self.input_of(feeds))
        named = named_tensors(outputs, self.inputs)  # a parameter may be one of them
        return {name: value.detach().cpu().numpy() for name, value in named.items()}

    def rounding(self, feeds: Arrays) -> dict[str, float]:
        """Return how far outputs are from those in float64, RMS relative to these, by name.

        Raises:
            TrpexportError: it can't be run in float64.
        """
        exact, rounded = self._with(copied(self.model).double()).run(feeds), self.run(feeds)
        return {
            name: relative_rms(torch.from_numpy(exact[name]), torch.from_numpy(rounded[name]))
            for name in exact
            if exact[name].dtype.kind == "f" and exact[name].shape == rounded[name].shape
        }

    def check_layers(
        self, original: TorchNetwork, plan: Plan, feeds: Arrays
    ) -> tuple[LayerCheck, ...]:
        """Compare each chain in it with its plan, on what the layer gets in ``original``.

        Raises:
            PlanError: a layer that the plan rewrites is no chain.
        """
        return check_layers(original.model, self.model, plan, self.input_of(feeds))

    def first_drift(
        self, other: TorchNetwork, plan: Plan, feeds: Arrays, limit: float
    ) -> str | None:
        """Return the first layer of a plan whose output in another network differs, or None."""
        names = [layer.name for layer in plan.rewritten]
        return first_drift(self.model, other.model, names, self.input_of(feeds), limit)

    def first_drift_in(self, path: Path, feeds: Arrays, limit: float) -> str | None:
        """Return the first convolution whose output differs in an ONNX file made of it, or None."""
        return first_drifting_conv(self.model, self.input_of(feeds), path, feeds, limit)

    @cached_property
    def left_out(self) -> dict[str, str]:
        """What it returns that is no tensor, by name: the name of its type.

        Raises:
            ModelError: it can't run its inputs.
        """
        return left_out(outputs_of(self.model, self._example()))

    def write_onnx(self, path: Path, settings: OnnxSettings) -> str | None:
        """Write it as an ONNX file, and return what a user should know of it.

        Raises:
            ModelError: the exporter can't express it, or can't write the opset.
            MissingDependencyError: a package that the exporter needs is not installed.
        """
        if settings.dynamic:
            check_open_sizes(self.model, self.bound, self.inputs)
        to_onnx(self.model, self.inputs, path, settings)
        notes = []
        if settings.is_legacy and not settings.legacy_exporter:
            notes.append(f"opset {settings.opset} was written by the legacy exporter")
        if settings.is_legacy and self.decides_by_values:
            notes.append(
                "the network decides by the values of its input, and the legacy exporter wrote "
                "what it does for one: right only where all inputs decide alike"
            )
        return "; ".join(notes) or None

    def written_as(self, settings: OnnxSettings) -> dict[str, Any]:
        """Return how it is written under some settings, as a manifest tells it."""
        return {
            "exporter": settings.exporter,
            "opset": settings.opset,
            "dynamic_batch": settings.dynamic_batch,
            **({"dynamic": settings.open_axes} if settings.dynamic else {}),
        }

    @cached_property
    def decides_by_values(self) -> bool:
        """Whether Python decides, or computes, by the values of its inputs."""
        return decides_by_values(self.model, self._example())

    def watch(self, samples: Samples, *, memory: int = WATCH_BYTES) -> TorchWatch:
        """Return all that calibration may ask of it, in batches of a size that it takes."""
        if self._takes_any_batch:
            samples = samples.with_outputs_of(self.cost.largest_activation)
        else:
            samples = samples.whole_batches(self.inputs.batch)
        derived = derived_on(self.cost.macs)
        return TorchWatch(self.model, self._cuts, samples, memory, self.outputs, derived=derived)

    def identity(self) -> str:
        """Return what tells it from others, for caches: by its weights and by its behaviour."""
        return identity(self.model, self.inputs, self.outputs)

    def _example(self) -> Arguments:
        return example_input(self.model, self.inputs)

    def _with(self, model: nn.Module) -> TorchNetwork:
        return TorchNetwork(
            model,
            self.inputs,
            outputs=self.outputs,
            dtypes=self._dtypes,
            folded=self.folded,
            bound=self.bound,
        )

    def _restore(self, module: nn.Module, name: str) -> None:
        """Give the tensors of a module, of its own alone, the precision that they came in."""
        prefix = f"{name}." if name else ""
        # A factor has the precision of the layer that it stands in for.
        chain = f"{name.rpartition('.')[0]}.weight"
        tensors: dict[str, Any] = {**module._parameters, **module._buffers}
        for key, tensor in tensors.items():
            dtype = self._dtypes.get(prefix + key, self._dtypes.get(chain))
            if tensor is not None and dtype is not None and tensor.is_floating_point():
                tensor.data = tensor.data.to(dtype)

    @cached_property
    def _takes_any_batch(self) -> bool:
        double = self.inputs.with_batch(2 * self.inputs.batch)
        try:
            outputs_of(self.model, example_input(self.model, double))
        except ModelError:
            return False
        return True

    @cached_property
    def _cuts(self) -> Cuts:
        return Cuts(self.model, self.inputs.with_batch(1) if self._takes_any_batch else self.inputs)
