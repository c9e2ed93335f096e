"""Convolution modules of PyTorch as linear operators, and operators as modules."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import skip_init

from trpexport.lowrank.chain import Chain
from trpexport.lowrank.schemes import SCHEMES
from trpexport.ops import LinearOp, Window

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def op_of(module: Conv) -> LinearOp:
    """Return a convolution module as the operator that its attributes tell."""
    kernel, dilation = tuple(module.kernel_size), tuple(module.dilation)
    if module.padding == "same":
        pads = _same(kernel, dilation)
    elif module.padding == "valid":
        pads = ((0, 0),) * len(kernel)
    else:
        pads = tuple((int(p), int(p)) for p in module.padding)
    return LinearOp(
        in_channels=module.in_channels,
        out_channels=module.out_channels,
        groups=module.groups,
        bias=module.bias is not None,
        window=Window(
            kernel=kernel,
            stride=tuple(module.stride),
            pads=pads,
            dilation=dilation,
            pad_mode=module.padding_mode,
        ),
    )


def make_conv(op: LinearOp) -> Conv:
    """Return a convolution module that computes ``op``; its weights are yet to be set.

    Padding that is not the same on both sides is that of ``"same"``: a module knows no other.
    """
    window = op.window
    is_even = all(before == after for before, after in window.pads)
    assert is_even or window.pads == _same(window.kernel, window.dilation)
    make: Any = CONVOLUTIONS[op.ndim - 1]
    # Weights are set by the caller: drawing them would move the caller's random numbers.
    module: Conv = skip_init(  # type: ignore[no-untyped-call]
        make,
        op.in_channels,
        op.out_channels,
        window.kernel,
        stride=window.stride,
        padding=tuple(before for before, _ in window.pads) if is_even else "same",
        dilation=window.dilation,
        groups=op.groups,
        bias=op.bias,
        padding_mode=window.pad_mode,
    )
    return module


class FactorChain(nn.Sequential):
    """The factors that stand in for a convolution, under its name.

    It answers as the convolution did: a forward may read ``self.conv.weight.dtype`` or
    ``self.conv.stride``, or call ``self.conv(input=x)``.

    Args:
        op: the convolution that the factors stand for.
        scheme: name of the scheme that multiplies them out.
        factors: the convolutions, in the order in which they run.

    Attributes:
        is_truncation: whether they are the convolution's kernel, cut; not where they were fitted
            to outputs, or loaded, since they may have been trained.
        is_multiplying_out: whether somebody asks for :attr:`weight` just now.
    """

    def __init__(self, op: LinearOp, scheme: str, *factors: Conv) -> None:
        super().__init__(*factors)
        self.op = op
        self.scheme = scheme
        self.is_truncation = False
        self.is_multiplying_out = False

    @classmethod
    def of(cls, chain: Chain, like: Conv) -> FactorChain:
        """Return a chain as modules on the device, in the dtype and mode of a convolution.

        Its factors are trainable where the convolution is.
        """
        found = cls.empty(chain.op, chain.scheme, chain.ops, like)
        for factor, kernel in zip(found, chain.kernels, strict=True):
            factor.get_parameter("weight").data.copy_(kernel)
        if chain.bias is not None:
            found[-1].get_parameter("bias").data.copy_(chain.bias)
        found.is_truncation = chain.is_truncation
        return found

    @classmethod
    def empty(
        cls, op: LinearOp, scheme: str, factors: tuple[LinearOp, ...], like: Conv
    ) -> FactorChain:
        """Return the modules of a chain whose weights are yet to be loaded."""
        modules = [make_conv(factor).to(like.weight) for factor in factors]
        found = cls(op, scheme, *modules).train(like.training)
        return found.requires_grad_(like.weight.requires_grad)

    @property
    def chain(self) -> Chain:
        """The factors as they are now."""
        factors = [factor for factor in self if isinstance(factor, CONVOLUTIONS)]
        return Chain(
            op=self.op,
            scheme=self.scheme,
            ops=tuple(map(op_of, factors)),
            kernels=tuple(factor.weight.detach() for factor in factors),
            bias=None if factors[-1].bias is None else factors[-1].bias.detach(),
            is_truncation=self.is_truncation,
        )

    @property
    def weight(self) -> Tensor:
        """The kernel that the factors stand for, in their dtype."""
        kernels = [factor.get_parameter("weight") for factor in self]
        self.is_multiplying_out = True
        try:
            return SCHEMES[self.scheme].product(kernels, self.op)
        finally:
            self.is_multiplying_out = False

    @property
    def bias(self) -> Tensor | None:
        """The bias, which the last factor carries."""
        found = self[-1].bias
        return found if isinstance(found, Tensor) else None

    @property
    def in_channels(self) -> int:
        """Channels of the input."""
        return self.op.in_channels

    @property
    def out_channels(self) -> int:
        """Channels of the output."""
        return self.op.out_channels

    @property
    def groups(self) -> int:
        """Groups of the convolution."""
        return self.op.groups

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Size of the kernel."""
        return self.op.kernel

    @property
    def stride(self) -> tuple[int, ...]:
        """Pixels from one place to the next."""
        return self.op.window.stride

    @property
    def padding(self) -> tuple[int, ...] | str:
        """Pixels added on both sides, or ``"same"``."""
        pads = self.op.window.pads
        is_even = all(before == after for before, after in pads)
        return tuple(before for before, _ in pads) if is_even else "same"

    @property
    def dilation(self) -> tuple[int, ...]:
        """Pixels from one tap to the next."""
        return self.op.window.dilation

    @property
    def padding_mode(self) -> str:
        """What the added pixels are."""
        return self.op.window.pad_mode


def _same(kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Return the padding that keeps the size: the odd pixel after, as PyTorch does."""
    totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    return tuple((total // 2, total - total // 2) for total in totals)
