"""Which linear layers a PyTorch network runs, in which order, on inputs of which size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils.flop_counter import flop_registry

from trpexport.cost import Cost, macs
from trpexport.errors import PlanError
from trpexport.inputs import Inputs, InputsLike
from trpexport.networks.torch.counting import count_module, place
from trpexport.networks.torch.feeding import Feeding, is_head
from trpexport.networks.torch.modules import (
    LAYERS,
    TRANSPOSED,
    LinearLayer,
    computes_otherwise,
    is_learned,
    kernel_of,
    op_of,
)
from trpexport.networks.torch.operators import OperatorMode
from trpexport.networks.torch.running import LOW_PRECISION, argument, run_example, tensor_leaves
from trpexport.ops import Call, Layer

_WEIGHTED = (*LAYERS, nn.Bilinear, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)


_SIZED = "is told the size of its output at each call, which a chain is not"


@dataclass(frozen=True, kw_only=True)
class TorchLayer(Layer):
    """A layer, and the module that it is.

    Attributes:
        module: the layer.
    """

    module: LinearLayer


@dataclass(frozen=True)
class Trace:
    """One forward pass of a network.

    Attributes:
        layers: its linear layers in the order in which they first ran, the unused ones last.
        stem: name of the layer that ran first, or None.
        heads: names of the layers whose outputs left it without passing another with weights.
        other_macs: MACs for one image of all that ``layers`` do not account for.
        cost: what all of it costs; None where it was not run.
    """

    layers: tuple[TorchLayer, ...]
    stem: str | None
    heads: tuple[str, ...]
    other_macs: int
    cost: Cost | None

    def of_copy(self, model: nn.Module) -> Trace:
        """Return that of a copy of the network."""
        modules = dict(model.named_modules())
        layers = (
            replace(layer, module=cast("LinearLayer", modules[layer.name])) for layer in self.layers
        )
        return replace(self, layers=tuple(layers))


def trace(model: nn.Module, inputs: InputsLike) -> Trace:
    """Run ``model`` on an example of its inputs and note its linear layers.

    Raises:
        PlanError: the network can't run such an input, or computes in less than single precision.
    """
    found = _declared(model)
    shapes: dict[nn.Module, list[tuple[int, ...]]] = {}
    order: list[nn.Module] = []
    sized: set[nn.Module] = set()

    def note(module: nn.Module, given: tuple[Any, ...], keywords: Any, _: Any) -> None:
        order.append(module)
        if not isinstance(module, LAYERS):
            return
        kernels.forget_last(module)
        shapes.setdefault(module, []).append(tuple(argument(given, keywords).shape))
        if isinstance(module, TRANSPOSED) and (len(given) > 1 or keywords.get("output_size")):
            sized.add(module)

    weighted = [module for module in model.modules() if isinstance(module, _WEIGHTED)]
    kernels = _KernelUses([layer.module for layer in found])
    feeding = Feeding(model)
    with kernels, feeding:
        outputs = run_example(model, inputs, dict.fromkeys(weighted, note))
    if kernels.low_precision is not None:
        raise PlanError(
            f"the network computes in {str(kernels.low_precision).removeprefix('torch.')} in its "
            "forward, by autocast or by a cast: take that out, the weights say the precision"
        )
    heads = feeding.heads(outputs)
    for module, uses in kernels.uses.items():
        order.append(module)
        shapes.setdefault(module, []).extend(filter(None, uses))
    found = [
        replace(
            x,
            fixed=x.fixed or kernels.why_fixed(x.module) or (_SIZED if x.module in sized else None),
        )
        for x in found
    ]
    batch = Inputs.of(inputs).batch
    ran = sorted((x for x in found if x.module in shapes), key=lambda x: order.index(x.module))
    layers = tuple(
        replace(layer, calls=_calls(shapes.get(layer.module, []), layer.op.ndim, batch))
        for layer in [*ran, *(x for x in found if x.module not in shapes)]
    )
    cost = count_module(model, inputs)
    return Trace(
        layers=_tied(layers),
        stem=ran[0].name if ran else None,
        heads=tuple(layer.name for layer in ran if is_head(layer.module, heads)),
        other_macs=_others(cost, layers, batch),
        cost=cost,
    )


def declared(model: nn.Module) -> Trace:
    """Note the linear layers of ``model`` in the order in which it declares them, without running.

    That is the order in which most networks run them, and all that can be known without an input.
    Each counts as called once, on an input of unknown size ``()``: it has no MACs.
    """
    found = _declared(model)
    weighted = [name for name, module in model.named_modules() if isinstance(module, _WEIGHTED)]
    layers = tuple(replace(layer, calls=(Call(1, ()),)) for layer in found)
    is_last = bool(layers) and layers[-1].name == weighted[-1]
    return Trace(
        layers=_tied(layers),
        stem=layers[0].name if layers else None,
        heads=(layers[-1].name,) if is_last else (),
        other_macs=0,
        cost=None,
    )


def _declared(model: nn.Module) -> list[TorchLayer]:
    elsewhere = {
        id(parameter): name
        for name, module in model.named_modules()
        if not isinstance(module, LAYERS)
        for parameter in module._parameters.values()
    }

    def fixed(module: LinearLayer) -> str | None:
        other = elsewhere.get(id(module.weight))
        if other is None:
            return _fixed(module)
        return f"its weight is that of {other or 'the network itself'} as well, which is no layer"

    return [
        TorchLayer(name=name, op=op_of(module), calls=(), fixed=fixed(module), module=module)
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
    ]


def _tied(layers: Sequence[TorchLayer]) -> tuple[TorchLayer, ...]:
    """Say of each layer which one before it uses the same weight."""
    first: dict[int, TorchLayer] = {}
    found = []
    for layer in layers:
        owner = first.setdefault(id(layer.module.weight), layer)
        fixed = layer.fixed
        if kernel_of(owner.module).shape != kernel_of(layer.module).shape or (
            owner.op.window.transposed != layer.op.window.transposed
        ):
            fixed = fixed or f"has the weight of {owner.name} for a kernel of another kind"
        found.append(replace(layer, shares=None if owner is layer else owner.name, fixed=fixed))
    return tuple(found)


def _calls(shapes: Sequence[tuple[int, ...]], ndim: int, batch: int) -> tuple[Call, ...]:
    """Return the calls for one image, from input shapes of a batch.

    Where frames, patches or tokens are folded into the batch, each call has so many places; where
    a network goes through its batch image by image, the calls are those for one of them.
    """
    places = [(prod(shape[: -ndim - 1]), shape[len(shape) - ndim :]) for shape in shapes]
    if all(count % batch == 0 for count, _ in places):
        return tuple(Call(count // batch, size) for count, size in places)
    by_size: dict[tuple[int, ...], int] = {}
    for count, size in places:
        by_size[size] = by_size.get(size, 0) + count
    return tuple(Call(-(-count // batch), size) for size, count in by_size.items())


def _others(cost: Cost, layers: Sequence[Layer], batch: int) -> int:
    accounted = sum(macs((layer.op,), layer.calls) for layer in layers)
    return max(0, cost.macs // batch - accounted)


class _KernelUses(OperatorMode):
    """Notes where layers' kernels are multiplied with otherwise than by calling the layer.

    That is by a function, as in ``F.conv2d(x, self.conv.weight)``.

    Args:
        layers: the layers.

    Attributes:
        low_precision: a type of less than single precision that something was computed in, or None.
    """

    def __init__(self, layers: Sequence[LinearLayer]) -> None:
        super().__init__()
        self._owners: dict[int, LinearLayer] = {}
        for layer in layers:
            self._owners.setdefault(place(layer.weight), layer)
        self._seen: dict[LinearLayer, list[tuple[int, ...]]] = {}
        self.low_precision: torch.dtype | None = None

    @property
    def uses(self) -> dict[LinearLayer, list[tuple[int, ...]]]:
        """Shapes of what was multiplied by the layer that owns the kernel; () if reshaped."""
        return {layer: shapes for layer, shapes in self._seen.items() if shapes}

    def run(self, operator: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Run an operator and note whose kernel it multiplies with."""
        if operator.overloadpacket in flop_registry:
            tensors = tensor_leaves(args)
            for index, tensor in enumerate(tensors):
                owner = self._owners.get(place(tensor))
                if owner is not None:
                    shape = _multiplied(tensors, index, owner)
                    self._seen.setdefault(owner, []).append(shape)
        output = operator(*args, **keywords)
        low = (leaf.dtype for leaf in tensor_leaves(output) if leaf.dtype in LOW_PRECISION)
        self.low_precision = self.low_precision or next(low, None)
        return output

    def forget_last(self, module: LinearLayer) -> None:
        """Leave out the last use of a layer's kernel: it was the layer's own."""
        owner = self._owners.get(place(module.weight), module)
        if self._seen.get(owner):
            self._seen[owner].pop()

    def why_fixed(self, module: LinearLayer) -> str | None:
        """Say why nobody may rewrite a layer whose kernel is used elsewhere, or None."""
        if self._owners.get(place(module.weight)) not in self.uses:
            return None
        return "its kernel is used by a function as well, which a rewrite would not make cheaper"


def _multiplied(tensors: Sequence[Tensor], index: int, owner: LinearLayer) -> tuple[int, ...]:
    """Return the shape of what an operator multiplies with the kernel at ``index``; () if unknown.

    Matrix products take (rows, in) and the weight (out, in) the other way round, behind it.
    """
    kernel = tensors[index].shape
    if not isinstance(owner, nn.Linear):
        return tuple(tensors[0].shape) if kernel == owner.weight.shape else ()
    is_product = index > 0 and kernel == owner.weight.shape[::-1]
    return tuple(tensors[index - 1].shape) if is_product else ()


def _fixed(module: LinearLayer) -> str | None:
    """Say why a layer computes more than its attributes tell, or None."""
    if parametrize.is_parametrized(module):
        return (
            "is parametrized by what changes from pass to pass: "
            "torch.nn.utils.parametrize.remove_parametrizations makes it plain"
        )
    if not module.weight.is_floating_point():
        return f"its weight is {str(module.weight.dtype).removeprefix('torch.')}"
    if computes_otherwise(module) and not is_learned(module):
        return f"{type(module).__name__} may compute more than its base class"
    if any(True for _ in module.children()) and not is_learned(module):
        return "holds other modules, which a rewrite would lose"
    if "forward" in vars(module) or "_conv_forward" in vars(module):
        return "has a forward of its own, which a rewrite would lose"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has forward hooks, which a rewrite would lose"
    return None
