"""What linear layers get and give, and what a shortcut adds to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.networks.base import Observation
from trpexport.networks.torch.modules import LinearLayer, by_channel, op_of
from trpexport.networks.torch.operators import OperatorMode
from trpexport.networks.torch.resuming import Output, cloned
from trpexport.networks.torch.running import StoppedPass, argument, noting, tensor_leaves

# How an addition weighs its operands: (first, second), by the second's factor.
_ADDITIONS: Mapping[str, Callable[[float], tuple[float, float]]] = {
    "add": lambda alpha: (1.0, alpha),
    "sub": lambda alpha: (1.0, -alpha),
    "rsub": lambda alpha: (-alpha, 1.0),
}


def observe(
    run: Callable[[], Any],
    layers: Mapping[str, LinearLayer],
    calls: Mapping[str, int],
    last: Mapping[str, nn.Module] = MappingProxyType({}),
) -> tuple[dict[str, Observation], dict[str, Output]]:
    """Run a network until all is known of some of its layers, and no further.

    Args:
        run: runs the network.
        layers: the layers, by name.
        calls: how often a forward pass calls each of them.
        last: modules that are called once and give tensors, up to which it runs as well.

    Returns:
        What each layer does, and what each of ``last`` gives.
    """
    observer = _Observer(layers, calls, last)
    with observer.watching(), torch.no_grad():
        try:
            with observer:
                run()
        except StoppedPass:
            pass
    return observer.seen, observer.outputs


class _Observer(OperatorMode):
    """Follows the outputs of layers through what scales their channels to an addition.

    Below the level of modules, so that it sees additions wherever they are written.
    """

    def __init__(
        self,
        layers: Mapping[str, LinearLayer],
        calls: Mapping[str, int],
        last: Mapping[str, nn.Module] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self._layers = layers
        self._last = last
        self.outputs: dict[str, Output] = {}
        self._ops = {name: op_of(layer) for name, layer in layers.items()}
        self._calls = calls
        self._followed: dict[str, Tensor] = {}
        self._unseen = set(layers)
        self.seen = {name: Observation() for name in layers}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what goes into the layers and comes out of them."""
        notes = {layer: partial(self._note, name) for name, layer in self._layers.items()}
        # Around those: it may be one of the layers.
        around = {module: partial(self._keep, name) for name, module in self._last.items()}
        with noting(notes), noting(around):
            yield

    def run(self, operator: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Run an operator and follow what it does to outputs."""
        arguments = {id(tensor) for tensor in tensor_leaves(args)} if self._followed else ()
        used = [name for name, followed in self._followed.items() if id(followed) in arguments]
        if not used:
            return operator(*args, **keywords)
        operation = _named(operator)
        factors = {name: self._factor(name, operator, args) for name in used}
        passed = [name for name in used if factors[name] is not None]
        for name in used:
            if name not in passed:
                self._look(name, operation, args, keywords.get("alpha", 1))
        self._finish(name for name in used if name not in passed)
        # Before the operation, which may work in place; behind it they are followed further.
        output = operator(*args, **keywords)
        for name in passed:
            scale, factor = self.seen[name].scale, factors[name]
            assert factor is not None
            self.seen[name].scale = factor if scale is None else scale * factor
            self._followed[name] = tensor_leaves(output)[0]
        return output

    def _factor(self, name: str, operator: Any, args: Sequence[Any]) -> Tensor | None:
        """Return what an operator multiplies each channel of a followed output with, (channels,).

        None where it does something else.
        """
        followed = self._followed[name]
        channels = self._ops[name].out_channels
        # Of a matrix product the channels come last, of a convolution behind the batch.
        behind = followed.ndim - 2 if self._ops[name].ndim else 0
        operation = _named(operator)
        if "batch_norm" in operation:
            # The second axis is tokens, perhaps.
            return _norm_scale(operator, args) if behind == followed.ndim - 2 else None
        if operation not in ("mul", "div"):
            return None
        first, second = args[:2]
        if operation == "div" and first is not followed:
            return None
        other = second if first is followed else first
        factor = other if isinstance(other, Tensor) else followed.new_tensor(other)
        # A number, or one a channel: (channels, 1, ...) or (1, channels, 1, ...).
        ends_in = (channels, *[1] * behind)
        if factor.numel() != 1 and (factor.numel(), factor.shape[-1 - behind :]) != (
            channels,
            ends_in,
        ):
            return None
        factor = factor.reshape(-1).expand(channels)
        return 1.0 / factor if operation == "div" else factor

    def _note(
        self, name: str, _: LinearLayer, inputs: tuple[Any, ...], keywords: Any, output: Tensor
    ) -> None:
        seen, op = self.seen[name], self._ops[name]
        # Detached from what may be overwritten in place later on.
        for kept, tensor in ((seen.inputs, argument(inputs, keywords)), (seen.outputs, output)):
            kept.append(by_channel(op, tensor).clone())
        is_batched = output.ndim == op.ndim + 2 or op.ndim == 0
        if len(seen.outputs) == self._calls[name] == 1 and is_batched:
            self._followed[name] = output
        elif len(seen.outputs) >= self._calls[name]:
            self._finish([name])

    def _look(self, name: str, operation: str, args: Sequence[Any], alpha: float) -> None:
        """Look at the first operation that does not only scale, before it may work in place."""
        followed = self._followed.pop(name)
        if operation not in _ADDITIONS:
            return
        first, second = args[:2]
        own, others = _ADDITIONS[operation](alpha)
        if second is followed:
            own, others = others, own
        other = second if first is followed else first
        if not isinstance(other, Tensor) or other.shape != followed.shape or first is second:
            return
        seen = self.seen[name]
        other = by_channel(self._ops[name], other)
        seen.shortcut = other.clone() if others == 1 else other * others
        if own != 1:
            scale = (
                followed.new_ones(self._ops[name].out_channels)
                if seen.scale is None
                else seen.scale
            )
            seen.scale = scale * own

    def _keep(self, name: str, _: nn.Module, __: Any, ___: Any, output: Output) -> None:
        self.outputs[name] = cloned(output)
        self._finish([])

    def _finish(self, names: Iterable[str]) -> None:
        self._unseen.difference_update(names)
        if not self._unseen and len(self.outputs) == len(self._last):
            raise StoppedPass


def _named(operator: Any) -> str:
    """Return the name of an operator, the same where it works in place."""
    name: str = operator.overloadpacket.__name__
    return name.removesuffix("_")


def _norm_scale(operator: Any, args: Sequence[Any]) -> Tensor | None:
    """Return what a batch norm multiplies each channel with, None where that is told by the batch.

    The processor, each make of GPU and each way to run it have an operator of their own, whose
    arguments are in different places.
    """
    names = [argument.name for argument in operator._schema.arguments]
    given = dict(zip(names, args, strict=False))
    variance, weight = given.get("running_var"), given["weight"]
    if variance is None or given.get("training"):
        return None
    epsilon = given.get("eps", given.get("epsilon"))
    scale: Tensor = (variance + epsilon).rsqrt()
    return scale if weight is None else scale * weight
