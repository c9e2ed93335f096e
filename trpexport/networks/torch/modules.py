"""Linear layers of PyTorch as linear operators, and operators as modules.

PyTorch keeps the kernel of a transposed convolution as (in, out / groups, *kernel); here kernels
are (out, in / groups, *kernel), and those of a matrix product (out, in): see :func:`kernel_of`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, cast

from torch import Tensor, nn
from torch.nn.utils import skip_init

from trpexport.lowrank.chain import Chain
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.torch.uneven import (
    UnevenBase,
    UnevenConv1d,
    UnevenConv2d,
    UnevenConv3d,
    UnevenConvTranspose1d,
    UnevenConvTranspose2d,
    UnevenConvTranspose3d,
    UnevenTransposedBase,
)
from trpexport.ops import LinearOp, Window

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
ConvTranspose = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
LinearLayer = Conv | ConvTranspose | nn.Linear
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)


_UNEVEN = (UnevenConv1d, UnevenConv2d, UnevenConv3d)
_UNEVEN_TRANSPOSED = (UnevenConvTranspose1d, UnevenConvTranspose2d, UnevenConvTranspose3d)
# Classes whose instances compute what :func:`op_of` says.
PLAIN_KINDS: tuple[type[LinearLayer], ...] = (*LAYERS, *_UNEVEN, *_UNEVEN_TRANSPOSED)


# What a subclass of a layer computes otherwise by; one that only fixes arguments has none.
_COMPUTING = {
    *("forward", "_conv_forward", "__call__", "_call_impl", "_wrapped_call_impl"),
    *("__getattr__", "__getattribute__", "weight", "bias", "stride", "padding", "dilation"),
    *("groups", "padding_mode", "_reversed_padding_repeated_twice"),
    *("output_padding", "_output_padding", "in_features", "out_features"),
}
# Where a layer keeps what it was found to compute.
_LEARNED = "_trpexport_op"


def base_kind(kind: type) -> type[LinearLayer]:
    """Return the class of PyTorch that a class of layers is made from, or is."""
    return next(each for each in kind.__mro__ if each in PLAIN_KINDS)


def computes_otherwise(module: LinearLayer) -> bool:
    """Whether a layer's class may compute something else than the class that it is made from."""
    kind = type(module)
    base = base_kind(kind)
    above = (each for each in kind.__mro__ if not issubclass(base, each))
    return any(_COMPUTING & vars(each).keys() for each in above)


def learn_op(module: LinearLayer, op: LinearOp) -> None:
    """Keep in a layer what it was found to compute."""
    vars(module)[_LEARNED] = op


def is_learned(module: nn.Module) -> bool:
    """Whether a layer keeps what it was found to compute."""
    return _LEARNED in vars(module)


def forget_ops(model: nn.Module, but: Collection[nn.Module] = ()) -> None:
    """Take out of a network's layers, ``but`` for some, what they were found to compute."""
    kept = set(but)
    for module in model.modules():
        if module not in kept:
            vars(module).pop(_LEARNED, None)


def op_of(module: LinearLayer) -> LinearOp:
    """Return a layer as an operator: as it was found to compute, or else as its attributes tell."""
    found: LinearOp | None = vars(module).get(_LEARNED)
    return found or bare_op_of(module)


def bare_op_of(module: LinearLayer) -> LinearOp:
    """Return a layer as the operator that its attributes tell."""
    has_bias = module.bias is not None
    if isinstance(module, nn.Linear):
        return LinearOp(module.in_features, module.out_features, bias=has_bias)
    kernel, dilation = tuple(module.kernel_size), tuple(module.dilation)
    if isinstance(module, UnevenBase | UnevenTransposedBase):
        pads = module.pads
    elif module.padding == "same":
        pads = _same(kernel, dilation)
    elif module.padding == "valid":
        pads = ((0, 0),) * len(kernel)
    else:
        pads = tuple((int(p), int(p)) for p in module.padding)
    is_transposed = isinstance(module, TRANSPOSED)
    output_pads = tuple(module.output_padding) if is_transposed else ()
    if isinstance(module, UnevenTransposedBase):
        output_pads = module.extra
    return LinearOp(
        in_channels=module.in_channels,
        out_channels=module.out_channels,
        groups=module.groups,
        bias=has_bias,
        window=Window(
            kernel=kernel,
            stride=tuple(module.stride),
            pads=pads,
            dilation=dilation,
            pad_mode=module.padding_mode,
            transposed=is_transposed,
            output_pads=output_pads,
        ),
    )


def make_layer(op: LinearOp) -> LinearLayer:
    """Return a module that computes ``op``; its weights are yet to be set: :func:`set_kernel`."""
    if op.ndim == 0:
        assert op.groups == 1
        return cast(
            "nn.Linear", _skipping(nn.Linear, op.in_channels, op.out_channels, bias=op.bias)
        )
    window = op.window
    arguments: dict[str, Any] = {
        "stride": window.stride,
        "dilation": window.dilation,
        "groups": op.groups,
        "bias": op.bias,
        "padding_mode": window.pad_mode,
    }
    is_even = all(before == after for before, after in window.pads)
    padding: tuple[int, ...] | str = tuple(before for before, _ in window.pads)
    kinds: tuple[type[nn.Module], ...] = TRANSPOSED if window.transposed else CONVOLUTIONS
    attributes: dict[str, Any] = {}
    if window.transposed:
        # PyTorch knows no more output padding than this.
        within = zip(window.output_pads, window.stride, window.dilation, strict=True)
        if is_even and all(more < max(s, d) for more, s, d in within):
            arguments["output_padding"] = window.output_pads
        else:
            kinds, padding = _UNEVEN_TRANSPOSED, (0,) * op.ndim
            attributes = {"pads": window.pads, "extra": window.output_pads}
    elif (
        not is_even
        and max(window.stride) == 1
        and window.pads == _same(window.kernel, window.dilation)
    ):
        padding = "same"  # PyTorch knows it without strides alone
    elif not is_even:
        kinds, padding, attributes = _UNEVEN, (0,) * op.ndim, {"pads": window.pads}
    module = _skipping(
        *(kinds[op.ndim - 1], op.in_channels, op.out_channels, window.kernel),
        padding=padding,
        **arguments,
    )
    for name, value in attributes.items():
        setattr(module, name, value)
    return cast("LinearLayer", module)


def _skipping(kind: type[nn.Module], *args: Any, **keywords: Any) -> nn.Module:
    """Return a module without drawing weights, which would move the caller's random numbers."""
    module: nn.Module = skip_init(kind, *args, **keywords)  # type: ignore[no-untyped-call]
    return module


def kernel_of(module: LinearLayer) -> Tensor:
    """Return the kernel of a layer, (out_channels, in_channels / groups, *kernel)."""
    weight = module.weight
    return _swapped(weight, module.groups) if isinstance(module, TRANSPOSED) else weight


def set_kernel(module: LinearLayer, kernel: Tensor) -> None:
    """Copy a kernel, (out_channels, in_channels / groups, *kernel), into a layer's weight."""
    module.weight.data.copy_(weight_of(kernel, op_of(module)))


def by_channel(op: LinearOp, x: Tensor) -> Tensor:
    """Return the input or output of a layer as (rows, channels, *size).

    Of a matrix product all leading positions are rows; where the batch is missing it is added.
    """
    if op.ndim == 0:
        return x.reshape(-1, x.shape[-1])
    return x if x.ndim == op.ndim + 2 else x[None]


def weight_of(kernel: Tensor, op: LinearOp) -> Tensor:
    """Return the weight that PyTorch has for a kernel: the way back from :func:`kernel_of`."""
    return _swapped(kernel, op.groups) if op.window.transposed else kernel


def _swapped(weight: Tensor, groups: int) -> Tensor:
    """Swap a weight's outputs and inputs, of each group for itself."""
    split = weight.reshape(groups, -1, *weight.shape[1:])
    return split.transpose(1, 2).flatten(0, 1)


class FactorChain(nn.Sequential):
    """The factors that stand in for a layer, under its name.

    It answers as the layer did: a forward may read ``self.conv.weight.dtype`` or
    ``self.conv.stride``, or call ``self.conv(input=x)``.

    Args:
        op: the layer that the factors stand for.
        scheme: name of the scheme that multiplies them out.
        factors: the layers, in the order in which they run.

    Attributes:
        is_truncation: whether they are the layer's kernel, cut; not where they were fitted
            to outputs, or loaded, since they may have been trained.
        is_multiplying_out: whether somebody asks for :attr:`weight` just now.
    """

    def __init__(self, op: LinearOp, scheme: str, *factors: LinearLayer) -> None:
        super().__init__(*factors)
        self.op = op
        self.scheme = scheme
        self.is_truncation = False
        self.is_multiplying_out = False

    @classmethod
    def of(cls, chain: Chain, like: LinearLayer) -> FactorChain:
        """Return a chain as modules on the device, in the dtype and mode of a layer.

        Its factors are trainable where the layer is.
        """
        found = cls.empty(chain.op, chain.scheme, chain.ops, like)
        for factor, kernel in zip(found.factors, chain.kernels, strict=True):
            set_kernel(factor, kernel)
        if chain.bias is not None:
            found[-1].get_parameter("bias").data.copy_(chain.bias)
        found.is_truncation = chain.is_truncation
        return found

    @classmethod
    def empty(
        cls, op: LinearOp, scheme: str, factors: tuple[LinearOp, ...], like: LinearLayer
    ) -> FactorChain:
        """Return the modules of a chain whose weights are yet to be loaded."""
        modules = [make_layer(factor).to(like.weight) for factor in factors]
        found = cls(op, scheme, *modules).train(like.training)
        return found.requires_grad_(like.weight.requires_grad)

    @property
    def factors(self) -> list[LinearLayer]:
        """The factors, in the order in which they run."""
        return [factor for factor in self if isinstance(factor, LAYERS)]

    @property
    def chain(self) -> Chain:
        """The factors as they are now."""
        factors = self.factors
        return Chain(
            op=self.op,
            scheme=self.scheme,
            ops=tuple(map(op_of, factors)),
            kernels=tuple(kernel_of(factor).detach() for factor in factors),
            bias=None if factors[-1].bias is None else factors[-1].bias.detach(),
            is_truncation=self.is_truncation,
        )

    @property
    def weight(self) -> Tensor:
        """The weight that the factors stand for, in their dtype, as PyTorch has it."""
        kernels = [kernel_of(factor) for factor in self.factors]
        self.is_multiplying_out = True
        try:
            return weight_of(SCHEMES[self.scheme].product(kernels, self.op), self.op)
        finally:
            self.is_multiplying_out = False

    @property
    def bias(self) -> Tensor | None:
        """The bias, which the last factor carries."""
        found = self[-1].bias
        return found if isinstance(found, Tensor) else None

    @property
    def in_features(self) -> int:
        """Channels of the input, in the word of a matrix product."""
        return self.op.in_channels

    @property
    def out_features(self) -> int:
        """Channels of the output, in the word of a matrix product."""
        return self.op.out_channels

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
        """Groups of the layer."""
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
    def output_padding(self) -> tuple[int, ...]:
        """Pixels that a transposed convolution adds to its output."""
        return self.op.window.output_pads

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
