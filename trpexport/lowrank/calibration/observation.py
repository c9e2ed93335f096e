"""What one convolution gets and gives, and what a shortcut adds to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


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


def observe(run: Callable[[], Any], conv: nn.Module, calls: int) -> Observation:
    """Run a network until all is known of one of its convolutions, and no further.

    Args:
        run: runs the network.
        conv: the convolution.
        calls: how often a forward pass calls it.
    """
    observer = _Observer(conv, calls)
    with observer.watching(), torch.no_grad():
        try:
            with observer:
                run()
        except _SeenError:
            pass
    return observer.seen


class _Observer(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows a convolution's output through a batch norm to an addition.

    Below the level of modules, so that it sees additions wherever they are written.
    """

    def __init__(self, conv: nn.Module, calls: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._conv = conv
        self._calls = calls
        self._followed: Tensor | None = None
        self.seen = Observation()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what goes into the convolution and comes out of it."""

        def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            # Detached from what may be overwritten in place later on.
            self.seen.inputs.append(inputs[0].clone())
            self.seen.outputs.append(output.clone())
            if len(self.seen.outputs) < self._calls:
                return
            if self._calls > 1:
                raise _SeenError
            self._followed = output

        handle = self._conv.register_forward_hook(note)
        try:
            yield
        finally:
            handle.remove()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        followed = self._followed
        uses = followed is not None and any(argument is followed for argument in args)
        name = func.overloadpacket.__name__ if uses else ""
        if uses and name != "native_batch_norm":
            self._finish(name, args)
        output = func(*args, **(kwargs or {}))
        if uses:
            _, weight, _, _, variance, _, _, epsilon = args
            scale = (variance + epsilon).rsqrt()
            self.seen.scale = scale if weight is None else scale * weight
            self._followed = output[0]
        return output

    def _finish(self, name: str, args: Sequence[Any]) -> None:
        """Look at the first operation that is no batch norm, before it may work in place."""
        if name in ("add", "add_"):
            first, second = args[:2]
            other = second if first is self._followed else first
            assert self._followed is not None
            if isinstance(other, Tensor) and other.shape == self._followed.shape:
                self.seen.shortcut = other.clone()
        raise _SeenError
