"""Which convolutions a PyTorch network runs, in which order, on inputs of which size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor, nn

from trpexport.cost import Cost, macs
from trpexport.networks.torch.counting import count_module
from trpexport.networks.torch.modules import CONVOLUTIONS, Conv, op_of
from trpexport.networks.torch.running import argument, run_example
from trpexport.ops import Call, Layer

_WEIGHTED = (
    *(*CONVOLUTIONS, nn.Linear, nn.Bilinear),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)


@dataclass(frozen=True, kw_only=True)
class TorchLayer(Layer):
    """A layer, and the module that it is.

    Attributes:
        module: the convolution.
    """

    module: Conv


@dataclass(frozen=True)
class Trace:
    """One forward pass of a network.

    Attributes:
        layers: its convolutions in the order in which they first ran, the unused ones last.
        stem: name of the convolution that ran first, or None.
        head: name of the convolution that ran last, if no other layer with weights came after it.
        other_macs: MACs for one image of all that ``layers`` do not account for.
        cost: what all of it costs; None where it was not run.
    """

    layers: tuple[TorchLayer, ...]
    stem: str | None
    head: str | None
    other_macs: int
    cost: Cost | None


def trace(model: nn.Module, input_shape: Sequence[int]) -> Trace:
    """Run ``model`` on an input of ``input_shape`` (batch first) and note its convolutions.

    Raises:
        PlanError: the network can't run such an input.
    """
    found = _declared(model)
    shapes: dict[nn.Module, list[tuple[int, ...]]] = {}
    order: list[nn.Module] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], keywords: Any, _: Tensor) -> None:
        order.append(module)
        shapes.setdefault(module, []).append(tuple(argument(inputs, keywords).shape))

    weighted = [module for module in model.modules() if isinstance(module, _WEIGHTED)]
    run_example(model, input_shape, dict.fromkeys(weighted, note))
    batch = int(input_shape[0])
    ran = sorted((x for x in found if x.module in shapes), key=lambda x: order.index(x.module))
    layers = tuple(
        _with_calls(layer, _calls(shapes.get(layer.module, []), layer.op.ndim, batch))
        for layer in [*ran, *(x for x in found if x.module not in shapes)]
    )
    cost = count_module(model, input_shape)
    last = order[-1] if order else None
    return Trace(
        layers=_tied(layers),
        stem=ran[0].name if ran else None,
        head=next((layer.name for layer in ran if layer.module is last), None),
        other_macs=_others(cost, layers, batch),
        cost=cost,
    )


def declared(model: nn.Module) -> Trace:
    """Note the convolutions of ``model`` in the order in which it declares them, without running.

    That is the order in which most networks run them, and all that can be known without an input.
    Each counts as called once, on an input of unknown size ``()``: it has no MACs.
    """
    found = _declared(model)
    weighted = [name for name, module in model.named_modules() if isinstance(module, _WEIGHTED)]
    layers = tuple(_with_calls(layer, (Call(1, ()),)) for layer in found)
    is_head = bool(layers) and layers[-1].name == weighted[-1]
    return Trace(
        layers=_tied(layers),
        stem=layers[0].name if layers else None,
        head=layers[-1].name if is_head else None,
        other_macs=0,
        cost=None,
    )


def _declared(model: nn.Module) -> list[TorchLayer]:
    return [
        TorchLayer(name=name, op=op_of(module), calls=(), fixed=_fixed(module), module=module)
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS)
    ]


def _with_calls(layer: TorchLayer, calls: tuple[Call, ...]) -> TorchLayer:
    return TorchLayer(**{**vars(layer), "calls": calls})


def _tied(layers: Sequence[TorchLayer]) -> tuple[TorchLayer, ...]:
    """Say of each layer which one before it uses the same weight."""
    first: dict[int, str] = {}
    found = []
    for layer in layers:
        owner = first.setdefault(id(layer.module.weight), layer.name)
        shares = None if owner == layer.name else owner
        found.append(TorchLayer(**{**vars(layer), "shares": shares}))
    return tuple(found)


def _calls(shapes: Sequence[tuple[int, ...]], ndim: int, batch: int) -> tuple[Call, ...]:
    """Return the calls for one image, from input shapes of a batch.

    Where frames, patches or tokens are folded into the batch, each call has so many places; where
    a network goes through its batch image by image, the calls are those for one of them.
    """
    places = [(prod(shape[: -ndim - 1]), shape[-ndim:]) for shape in shapes]
    if all(count % batch == 0 for count, _ in places):
        return tuple(Call(count // batch, size) for count, size in places)
    by_size: dict[tuple[int, ...], int] = {}
    for count, size in places:
        by_size[size] = by_size.get(size, 0) + count
    return tuple(Call(-(-count // batch), size) for size, count in by_size.items())


def _others(cost: Cost, layers: Sequence[Layer], batch: int) -> int:
    accounted = sum(macs((layer.op,), layer.calls) for layer in layers)
    return max(0, cost.macs // batch - accounted)


def _fixed(module: Conv) -> str | None:
    """Say why a convolution computes more than its attributes tell, or None."""
    if type(module) not in CONVOLUTIONS:
        return f"{type(module).__name__} may compute more than its base class"
    if "forward" in vars(module) or "_conv_forward" in vars(module):
        return "has a forward of its own, which a rewrite would lose"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has forward hooks, which a rewrite would lose"
    return None
