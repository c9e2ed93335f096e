"""A network that is an ONNX graph, as the mathematics sees it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn

from trpexport.compare import FLOAT32, Tolerance
from trpexport.cost import Cost, macs
from trpexport.errors import DeviceError, ModelError, PlanError
from trpexport.inputs import Inputs, InputsLike
from trpexport.lowrank.chain import Chain
from trpexport.networks.base import NO_CHAINS, WATCH_BYTES, Watch
from trpexport.networks.onnx.drift import first_difference
from trpexport.networks.onnx.heads import heads
from trpexport.networks.onnx.inputs import inputs_of, open_axes, taken
from trpexport.networks.onnx.layers import OnnxLayer, linear_layers
from trpexport.networks.onnx.ort_watch import OrtWatch
from trpexport.networks.onnx.reading import OnnxSource
from trpexport.networks.onnx.rewrite import Factors, rewrite
from trpexport.networks.onnx.saving import open_model, save, skeleton
from trpexport.networks.onnx.shaping import shaped, values_of
from trpexport.networks.onnx.watch import OnnxWatch, in_torch, names_of
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.samples import Samples
from trpexport.networks.torch.chain_check import LayerCheck, check_chain, relative_rms
from trpexport.networks.torch.network import TorchNetwork
from trpexport.onnxfile.counting import count_graph
from trpexport.onnxfile.graph import Graph
from trpexport.ops import LinearOp
from trpexport.plan import Plan
from trpexport.runtime.session import Session, run_in_batches
from trpexport.tensors import Arrays, Shapes

# What is stored in half precision rounds at 5e-4, each factor and each product for itself.
_HALF = Tolerance.of(0.1)
_PROCESSOR = torch.device("cpu")
_LOW_PRECISION = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


class OnnxNetwork:
    """A network that is an ONNX graph; nothing of the file that it comes from is changed.

    Args:
        source: the file.
        inputs: what it takes.
        chains: what stands in for layers of the file, by name.
        is_dense: whether products of the chains stand there instead.
        outputs: globs of the names of the outputs whose errors count; all where there are none.
        device: where PyTorch computes with it, if it does; ONNX Runtime stays on the processor.
    """

    module = None
    passes = ("export", "annotate")

    def __init__(
        self,
        source: OnnxSource,
        inputs: Inputs,
        chains: Mapping[str, Chain] = NO_CHAINS,
        *,
        is_dense: bool = False,
        outputs: Sequence[str] = (),
        device: torch.device = _PROCESSOR,
    ) -> None:
        self.source = source
        self.inputs = inputs
        self.chains = chains
        self.outputs = tuple(outputs)
        self._is_dense = is_dense
        self._device = device

    def __getstate__(self) -> dict[str, Any]:
        """Be pickled without what was computed of it: sessions can't be."""
        own = ("source", "inputs", "outputs", "_is_dense", "_device")
        return {**{name: vars(self)[name] for name in own}, "chains": dict(self.chains)}

    @classmethod
    def open(
        cls, source: OnnxSource, inputs: InputsLike | None = None, outputs: Sequence[str] = ()
    ) -> OnnxNetwork:
        """Return the network of a file.

        Args:
            source: the file.
            inputs: shapes of its inputs; a name may be left out where there is one. A first
                dimension that the file leaves open is 1 without them, others must be given.
            outputs: globs of the names of the outputs whose errors count; all without them.

        Raises:
            ModelError: the file does not say how large an input is, and nobody else does.
            DataError: its inputs have different numbers of images.
        """
        return cls(source, inputs_of(source, inputs), outputs=outputs)

    @cached_property
    def model(self) -> ir.Model:
        """The graph."""
        if not self.chains:
            return self.source.model
        # A batch norm behind a dense twin stays, so that its folding is verified as well.
        return self.with_factors(self._factors, fold=not self._is_dense)[0]

    def with_factors(
        self, factors: Mapping[str, Factors], *, fold: bool = True
    ) -> tuple[ir.Model, dict[str, tuple[str, ...]]]:
        """Return the file's graph with factors in the place of layers, and the nodes that they are.

        Args:
            factors: by layer of the file.
            fold: multiply batch norms that follow into the last factors.
        """
        model = self.source.model.clone()
        layers = linear_layers(model, self._source_graph, batch=self._batch)
        return model, rewrite(model, layers, factors, fold=fold)

    @property
    def ops(self) -> dict[str, LinearOp]:
        """What each of its layers computes, by name."""
        return {layer.name: layer.op for layer in self.layers}

    @cached_property
    def layers(self) -> tuple[OnnxLayer, ...]:
        """Its linear layers, in the order of the file."""
        return linear_layers(self.model, self._graph, batch=self._batch)

    @property
    def stem(self) -> str | None:
        """Name of the layer that runs first, or None."""
        return next((layer.name for layer in self.layers if layer.calls), None)

    @cached_property
    def heads(self) -> tuple[str, ...]:
        """Names of the layers whose outputs leave it without passing another one."""
        return heads(self.model, self.layers)

    @cached_property
    def cost(self) -> Cost:
        """What all of it costs for one input of its shape."""
        return count_graph(self._graph)

    @property
    def other_macs(self) -> int:
        """MACs for one image of all that :attr:`layers` do not account for."""
        accounted = sum(macs((layer.op,), layer.calls) for layer in self.layers)
        return max(0, self.cost.macs // self._batch - accounted)

    @property
    def parameters(self) -> int:
        """Number of its parameters; those that are shared count once."""
        return self.cost.parameters

    @property
    def dtype(self) -> str:
        """Numpy's name of the type of the floats that it takes."""
        floats = (info.dtype for info in taken(self.source.model) if info.dtype.kind == "f")
        return str(next(floats, "float32"))

    @property
    def tolerance(self) -> Tolerance:
        """How far rounding may carry its outputs."""
        types = {layer.weight.dtype for layer in self.layers if layer.weight is not None}
        return _HALF if types & _LOW_PRECISION else FLOAT32

    @property
    def dynamic(self) -> dict[str, dict[int, str]]:
        """By input, the axes besides the batch that the file leaves open, under their names."""
        return open_axes(self.source.model)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is done otherwise than a user may expect."""
        if self.tolerance is FLOAT32:
            return ()
        return ("the network is in half precision: so are the factors, and the verification",)

    @property
    def device(self) -> torch.device:
        """Where PyTorch computes with it: the processor, where ONNX Runtime does instead."""
        if self._device == _PROCESSOR or isinstance(self._in_torch, TorchNetwork):
            return self._device
        return _PROCESSOR

    def on(self, device: torch.device) -> OnnxNetwork:
        """Return the network that PyTorch computes with on a device, if it does at all."""
        return self if device.type == self._device.type else self._with(self.chains, device)

    def as_module(self) -> nn.Module:
        """Refuse: it is no network of PyTorch.

        Raises:
            PlanError: always.
        """
        raise PlanError("a decomposed ONNX file is no module of PyTorch: export it, and run that")

    def weights(self, name: str) -> tuple[Tensor, Tensor | None]:
        """Return kernel and bias of a layer, in float32 at least."""
        layer = self._layer(name)
        kernel, bias = _tensor(layer.kernel), layer.bias
        return kernel.to(self.device), None if bias is None else _tensor(bias).to(self.device)

    def rewritten(self, chains: Mapping[str, Chain]) -> OnnxNetwork:
        """Return the network with chains in the place of layers, by name.

        Raises:
            PlanError: a chain is for another network.
        """
        ops = {layer.name: layer for layer in self._source_layers}
        for name, chain in chains.items():
            layer = ops.get(name)
            if layer is None:
                raise PlanError(f"the plan is for another network: it has no layer {name}")
            if layer.fixed is not None:
                raise PlanError(f"{name} can't be rewritten: it {layer.fixed}")
            if layer.op != chain.op:
                raise PlanError(
                    f"the plan is for another network: {name} is {chain.op} in it and {layer.op} "
                    "in the network"
                )
        return self._with({**self.chains, **chains}, self._device)

    def dense(self) -> OnnxNetwork:
        """Return the network that this one stands for, by the products of its chains."""
        return OnnxNetwork(
            self.source, self.inputs, self.chains, is_dense=True, outputs=self.outputs
        )

    def run(self, feeds: Arrays) -> Arrays:
        """Return its outputs by name for inputs by name.

        Raises:
            ModelError: it can't run these inputs.
        """
        return run_in_batches(self._session, self._session.named(feeds))

    def rounding(self, feeds: Arrays) -> dict[str, float]:
        """Return how far outputs are from those without optimizations, RMS relative to these.

        ONNX Runtime runs no graph in float64 that is none: two ways to round stand for it.
        """
        named = self._session.named(feeds)
        plain = open_model(self.model, graph_optimization="disable")
        exact, rounded = run_in_batches(plain, named), run_in_batches(self._session, named)
        return {
            name: relative_rms(_tensor(exact[name]), _tensor(rounded[name]))
            for name in exact
            if exact[name].dtype.kind == "f"
        }

    def check_layers(
        self, original: OnnxNetwork, plan: Plan, feeds: Arrays
    ) -> tuple[LayerCheck, ...]:
        """Compare each chain in it with its plan, on what the layer gets in ``original``.

        Raises:
            PlanError: a layer that the plan rewrites is no chain.
        """
        names = [layer.name for layer in plan.rewritten]
        missing = next((name for name in names if name not in self.chains), None)
        if missing is not None:
            raise PlanError(f"the plan is for another network: {missing} is no chain of factors")
        inputs = original._layer_inputs(names, feeds)
        return tuple(
            check_chain(layer, self.chains[layer.name], *original.weights(layer.name), x)
            for layer, x in zip(plan.rewritten, inputs, strict=True)
        )

    def first_drift(
        self, other: OnnxNetwork, plan: Plan, feeds: Arrays, limit: float
    ) -> str | None:
        """Return the first layer behind which another network of this file differs, or None."""
        return first_difference(self.model, other.model, self._source_layers, feeds, limit)

    def first_drift_in(self, path: Path, feeds: Arrays, limit: float) -> str | None:
        """Return the first layer behind which a file made of this network differs, or None."""
        return first_difference(self.model, ir.load(path), self._source_layers, feeds, limit)

    def write_onnx(self, path: Path, settings: OnnxSettings) -> str | None:
        """Write it as an ONNX file, of the operator set that it came in."""
        save(self.model, path)
        return None

    def written_as(self, settings: OnnxSettings) -> dict[str, Any]:
        """Return how it is written, for a manifest."""
        return {
            "exporter": "onnx-ir",
            "opset": self.model.graph.opset_imports.get("", 0),
            "dynamic_batch": any(
                info.shape[:1] and isinstance(info.shape[0], str)
                for info in taken(self.source.model)
            ),
        }

    def watch(self, samples: Samples, *, memory: int = WATCH_BYTES) -> Watch:
        """Return all that calibration may ask of it: in PyTorch, or else of ONNX Runtime.

        A network that takes one batch size alone gets so many of the samples at a time.
        """
        if isinstance(self._in_torch, TorchNetwork):
            self.__dict__.pop("_session", None)  # it would be kept beside PyTorch's copy
            watch = self._in_torch.watch(samples, memory=memory)
            return OnnxWatch(watch, names_of(self._in_torch))
        if self._session.batch_size is not None:
            samples = samples.whole_batches(self._session.batch_size)
        return OrtWatch(self, samples, self.rewritten, str(self._in_torch), memory)

    def identity(self) -> str:
        """Return what tells it from others, for caches: its graph and its weights."""
        digest = hashlib.sha256(skeleton(self.model).SerializeToString(deterministic=True))
        digest.update(repr(self.inputs).encode())
        for name, value in sorted(self.model.graph.initializers.items()):
            if value.const_value is not None:
                digest.update(name.encode())
                digest.update(value.const_value.tobytes())
        return digest.hexdigest()

    @property
    def _factors(self) -> dict[str, Factors]:
        """What the graph holds for each chain: chains of the same kernels share one array."""
        arrays: dict[Any, Any] = {}
        found = {}
        for name, chain in self.chains.items():
            ops, tensors = chain.ops, chain.kernels
            if self._is_dense:
                ops = (replace(chain.op, bias=chain.bias is not None),)
            keys = [tuple(map(id, tensors))] if self._is_dense else [id(each) for each in tensors]
            for index, key in enumerate(keys):
                if key not in arrays:
                    kernel = chain.product if self._is_dense else tensors[index]
                    arrays[key] = kernel.detach().cpu().double().numpy()
            bias = None if chain.bias is None else chain.bias.detach().cpu().double().numpy()
            found[name] = Factors(ops, tuple(arrays[key] for key in keys), bias)
        return found

    @cached_property
    def _in_torch(self) -> TorchNetwork | ModelError | DeviceError:
        """The graph as a network of PyTorch, or why it is none."""
        try:
            found = in_torch(self.model, self.layers, self.inputs, self.outputs)
            return found.on(self._device)
        except (ModelError, DeviceError) as error:
            return error

    def _with(self, chains: Mapping[str, Chain], device: torch.device) -> OnnxNetwork:
        return OnnxNetwork(self.source, self.inputs, chains, outputs=self.outputs, device=device)

    @cached_property
    def _session(self) -> Session:
        return open_model(self.model)

    @property
    def _batch(self) -> int:
        return self.inputs.batch

    @property
    def _shapes(self) -> Shapes:
        return {name: one.shape for name, one in self.inputs.items()}

    @cached_property
    def _source_graph(self) -> Graph:
        return shaped(self.source.model, self.source.path, self._shapes)

    @cached_property
    def _graph(self) -> Graph:
        if not self.chains:
            return self._source_graph
        return shaped(self.model, self.source.path, self._shapes)

    @cached_property
    def _source_layers(self) -> tuple[OnnxLayer, ...]:
        return linear_layers(self.source.model, self._source_graph, batch=self._batch)

    def _source_layer(self, name: str) -> OnnxLayer:
        return next(layer for layer in self._source_layers if layer.name == name)

    def _layer(self, name: str) -> OnnxLayer:
        return next(layer for layer in self.layers if layer.name == name)

    def _layer_inputs(self, names: Sequence[str], feeds: Arrays) -> list[Tensor]:
        """Return what layers of the file get."""
        values = {value.name: value for value in values_of(self.model)}
        wanted = [values[self._source_layer(name).data.name] for name in names]
        session = open_model(self.model, [each for each in wanted if each.producer() is not None])
        named = session.named(feeds)
        found = {**named, **run_in_batches(session, named)}
        return [_tensor(found[each.name or ""]) for each in wanted]


def _tensor(array: Any) -> Tensor:
    values = np.array(array)
    return torch.from_numpy(values if values.dtype == np.float64 else values.astype(np.float32))
