"""What convolutions get and give, and what a shortcut adds to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from trpexport.networks.torch.network_error import tensor_leaves


@dataclass
class Observation:
    """One forward pass, as a convolution saw it.

    Attributes:
        inputs: input of each call (batch, in_channels, *size).
        outputs: output of each call.
        shortcut: what is added to the output, directly or behind a batch norm; None where nothing
            of the same shape is, or where the convolution is called more than once.
        scale: what the batch norm multiplies each channel with on the way there; None for 1.
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    shortcut: Tensor | None = None
    scale: Tensor | None = None


class _SeenError(Exception):
    """Ends a forward pass of which enough has been seen."""


def observe(
    run: Callable[[], Any], convs: Mapping[str, nn.Module], calls: Mapping[str, int]
) -> dict[str, Observation]:
    """Run a network until all is known of some of its convolutions, and no further.

    Args:
        run: runs the network.
        convs: the convolutions, by name.
        calls: how often a forward pass calls each of them.
    """
    observer = _Observer(convs, calls)
    with observer.watching(), torch.no_grad():
        try:
            with observer:
                run()
        except _SeenError:
            pass
    return observer.seen


class _Observer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the outputs of convolutions through a batch norm to an addition.

    Below the level of modules, so that it sees additions wherever they are written.
    """

    def __init__(self, convs: Mapping[str, nn.Module], calls: Mapping[str, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._convs = convs
        self._calls = calls
        self._followed: dict[str, Tensor] = {}
        self._unseen = set(convs)
        self.seen = {name: Observation() for name in convs}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what goes into the convolutions and comes out of them."""
        handles = [
            conv.register_forward_hook(partial(self._note, name))
            for name, conv in self._convs.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        arguments = {id(tensor) for tensor in tensor_leaves(args)} if self._followed else ()
        used = [name for name, followed in self._followed.items() if id(followed) in arguments]
        operation = func.overloadpacket.__name__ if used else ""
        if used and operation != "native_batch_norm":
            for name in used:
                self._look(name, operation, args)
            self._finish(used)
        output = func(*args, **(kwargs or {}))
        if operation == "native_batch_norm":
            _, weight, _, _, variance, _, _, epsilon = args
            scale = (variance + epsilon).rsqrt()
            for name in used:
                self.seen[name].scale = scale if weight is None else scale * weight
                self._followed[name] = output[0]
        return output

    def _note(self, name: str, _: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        seen = self.seen[name]
        # Detached from what may be overwritten in place later on.
        seen.inputs.append(inputs[0].clone())
        seen.outputs.append(output.clone())
        if len(seen.outputs) == self._calls[name] == 1:
            self._followed[name] = output
        elif len(seen.outputs) >= self._calls[name]:
            self._finish([name])

    def _look(self, name: str, operation: str, args: Sequence[Any]) -> None:
        """Look at the first operation that is no batch norm, before it may work in place."""
        followed = self._followed.pop(name)
        if operation in ("add", "add_"):
            first, second = args[:2]
            other = second if first is followed else first
            if isinstance(other, Tensor) and other.shape == followed.shape:
                self.seen[name].shortcut = other.clone()

    def _finish(self, names: Iterable[str]) -> None:
        self._unseen.difference_update(names)
        if not self._unseen:
            raise _SeenError
