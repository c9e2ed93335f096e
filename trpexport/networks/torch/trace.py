"""Which convolutions a network runs, in which order, on inputs of which size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trpexport.cost import macs
from trpexport.errors import PlanError
from trpexport.plan import ConvSpec

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# The modules whose MACs are known.
COUNTED = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)


@dataclass(frozen=True)
class TracedConv:
    """A convolution of a network as one forward pass used it.

    Attributes:
        name: the module's dotted name; the first one, where a module stands in several places.
        module: the module itself.
        conv: its attributes.
        input_sizes: spatial input size of each call, in pixels; empty if it was never called.
        untouchable: why nobody may rewrite this module, or None.
    """

    name: str
    module: Conv
    conv: ConvSpec
    input_sizes: tuple[tuple[int, ...], ...]
    untouchable: str | None


@dataclass(frozen=True)
class Trace:
    """One forward pass of a network.

    Attributes:
        layers: its convolutions in the order in which they first ran, the unused ones last.
        stem: name of the convolution that ran first, or None.
        head: name of the convolution that ran last, if no linear layer came after it.
        other_macs: MACs for one image of linear layers and transposed convolutions.
    """

    layers: tuple[TracedConv, ...]
    stem: str | None
    head: str | None
    other_macs: int


def conv_spec(module: Conv) -> ConvSpec:
    """Return the attributes of a convolution module."""
    padding: tuple[int, ...] | Literal["same"] = "same"
    if module.padding == "valid":
        padding = (0,) * len(module.kernel_size)
    elif module.padding != "same":
        padding = tuple(map(int, module.padding))
    return ConvSpec(
        in_channels=module.in_channels,
        out_channels=module.out_channels,
        kernel_size=tuple(module.kernel_size),
        stride=tuple(module.stride),
        padding=padding,
        dilation=tuple(module.dilation),
        groups=module.groups,
        bias=module.bias is not None,
        padding_mode=module.padding_mode,
    )


def module_macs(module: nn.Module, x: Tensor, output: Tensor) -> int:
    """Return the MACs of one call of a convolution or a linear layer, for the whole batch."""
    if isinstance(module, CONVOLUTIONS):
        return len(x) * macs((conv_spec(module),), x.shape[2:])
    if isinstance(module, TRANSPOSED):
        return x.numel() * module.out_channels // module.groups * prod(module.kernel_size)
    assert isinstance(module, nn.Linear)
    return output.numel() * module.in_features


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Put networks into evaluation mode without gradients, and give every module its mode back."""
    training = [module for model in models for module in model.modules() if module.training]
    try:
        # Most are already: a deep network has hundreds of modules to set.
        if training:
            for model in models:
                model.eval()
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def example_input(model: nn.Module, shape: Sequence[int], seed: int = 0) -> Tensor:
    """Return standard normal input of ``shape`` on the device and in the dtype of the weights."""
    generator = torch.Generator().manual_seed(seed)
    weight = next(model.parameters(), torch.empty(0))
    return torch.randn(*shape, generator=generator).to(weight)


def run_example(
    model: nn.Module, input_shape: Sequence[int], hooks: Mapping[nn.Module, Callable[..., None]]
) -> None:
    """Run ``model`` once on an example input, calling ``hooks`` as forward hooks.

    Raises:
        PlanError: the network can't run an input of ``input_shape``.
    """
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        with evaluating(model):
            model(example_input(model, input_shape))
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        shape = "x".join(map(str, input_shape))
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise PlanError(
            f"the network can't run an input of shape {shape} ({reason}): "
            "give the right one with --input-shape"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def trace(model: nn.Module, input_shape: Sequence[int]) -> Trace:
    """Run ``model`` once on an input of ``input_shape`` (batch first) and note its convolutions.

    Raises:
        PlanError: the network can't run such an input.
    """
    names = {module: name for name, module in model.named_modules()}
    untouchable = {m: _untouchable(m) for m in names if isinstance(m, CONVOLUTIONS)}
    sizes: dict[Conv, list[tuple[int, ...]]] = {}
    order: list[nn.Module] = []
    other_macs = 0

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal other_macs
        order.append(module)
        if isinstance(module, CONVOLUTIONS):
            spatial = inputs[0].shape[-len(module.kernel_size) :]
            sizes.setdefault(module, []).append(tuple(spatial))
        else:
            other_macs += module_macs(module, inputs[0], output) // int(input_shape[0])

    run_example(model, input_shape, {m: note for m in names if isinstance(m, COUNTED)})
    used = sorted(sizes, key=order.index)
    unused = [module for module in untouchable if module not in sizes]
    layers = tuple(
        TracedConv(
            name=names[module],
            module=module,
            conv=conv_spec(module),
            input_sizes=tuple(sizes.get(module, ())),
            untouchable=untouchable[module],
        )
        for module in [*used, *unused]
    )
    last = order[-1] if order else None
    return Trace(
        layers=layers,
        stem=names[used[0]] if used else None,
        head=names[last] if isinstance(last, CONVOLUTIONS) else None,
        other_macs=other_macs,
    )


def declared(model: nn.Module) -> Trace:
    """Note the convolutions of ``model`` in the order in which it declares them, without running.

    That is the order in which most networks run them, and all that can be known without an input.
    Each counts as called once, on an input of unknown size ``()``: it has no MACs.
    """
    counted = [(name, m) for name, m in model.named_modules() if isinstance(m, COUNTED)]
    layers = tuple(
        TracedConv(name, module, conv_spec(module), ((),), _untouchable(module))
        for name, module in counted
        if isinstance(module, CONVOLUTIONS)
    )
    last_is_conv = bool(layers) and counted[-1][0] == layers[-1].name
    return Trace(
        layers=layers,
        stem=layers[0].name if layers else None,
        head=layers[-1].name if last_is_conv else None,
        other_macs=0,
    )


def _untouchable(module: Conv) -> str | None:
    """Say why a convolution computes more than its attributes tell, or None."""
    if type(module) not in CONVOLUTIONS:
        return f"{type(module).__name__} may compute more than its base class"
    if module._forward_hooks or module._forward_pre_hooks:
        return "has forward hooks, which a rewrite would lose"
    return None
