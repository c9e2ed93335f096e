"""Linear layers of PyTorch as linear operators, and operators as modules.

PyTorch keeps the kernel of a transposed convolution as (in, out / groups, *kernel); here kernels
are (out, in / groups, *kernel), and those of a matrix product (out, in): see :func:`kernel_of`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import skip_init

from trpexport.lowrank.chain import Chain
from trpexport.lowrank.schemes import SCHEMES
from trpexport.ops import LinearOp, Window

Conv = nn.Conv1d | nn.Conv2d | nn.Conv3d
ConvTranspose = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
LinearLayer = Conv | ConvTranspose | nn.Linear
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)


class _UnevenConv(nn.modules.conv._ConvNd):
    """A convolution that pads by itself: not the same on both sides.

    Attributes:
        pads: pixels added (before, after), one pair an axis.
    """

    pads: tuple[tuple[int, int], ...]

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - forwards call it by this name
        """Return what it makes of an input (batch, in_channels, *size)."""
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        padded = functional.pad(input, _flat(self.pads), mode=mode)
        run: Any = (functional.conv1d, functional.conv2d, functional.conv3d)[len(self.pads) - 1]
        output: Tensor = run(
            padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups
        )
        return output


class UnevenConv1d(_UnevenConv, nn.Conv1d):
    """A 1-D convolution with any padding."""


class UnevenConv2d(_UnevenConv, nn.Conv2d):
    """A 2-D convolution with any padding."""


class UnevenConv3d(_UnevenConv, nn.Conv3d):
    """A 3-D convolution with any padding."""


class _UnevenConvTranspose(nn.modules.conv._ConvTransposeNd):
    """A transposed convolution that crops and extends its full output by itself.

    Attributes:
        pads: pixels cut off the full output (before, after), one pair an axis.
        extra: pixels added after that, one an axis.
    """

    pads: tuple[tuple[int, int], ...]
    extra: tuple[int, ...]

    def forward(
        self,
        input: Tensor,  # noqa: A002 - forwards call it by this name
        output_size: list[int] | None = None,
    ) -> Tensor:
        """Return what it makes of an input (batch, in_channels, *size)."""
        assert output_size is None
        run: Any = (
            functional.conv_transpose1d,
            functional.conv_transpose2d,
            functional.conv_transpose3d,
        )[len(self.pads) - 1]
        full = run(input, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        change = [(-b, more - a) for (b, a), more in zip(self.pads, self.extra, strict=True)]
        output = functional.pad(full, _flat(change))
        if self.bias is None:
            return output
        return output + self.bias.reshape(-1, *[1] * len(self.pads))


class UnevenConvTranspose1d(_UnevenConvTranspose, nn.ConvTranspose1d):
    """A 1-D transposed convolution with any padding."""


class UnevenConvTranspose2d(_UnevenConvTranspose, nn.ConvTranspose2d):
    """A 2-D transposed convolution with any padding."""


class UnevenConvTranspose3d(_UnevenConvTranspose, nn.ConvTranspose3d):
    """A 3-D transposed convolution with any padding."""


_UNEVEN = (UnevenConv1d, UnevenConv2d, UnevenConv3d)
_UNEVEN_TRANSPOSED = (UnevenConvTranspose1d, UnevenConvTranspose2d, UnevenConvTranspose3d)
# Classes whose instances compute what :func:`op_of` says.
PLAIN_KINDS = (*LAYERS, *_UNEVEN, *_UNEVEN_TRANSPOSED)


def op_of(module: LinearLayer) -> LinearOp:
    """Return a layer as the operator that its attributes tell."""
    has_bias = module.bias is not None
    if isinstance(module, nn.Linear):
        return LinearOp(module.in_features, module.out_features, bias=has_bias)
    kernel, dilation = tuple(module.kernel_size), tuple(module.dilation)
    if isinstance(module, _UnevenConv | _UnevenConvTranspose):
        pads = module.pads
    elif module.padding == "same":
        pads = _same(kernel, dilation)
    elif module.padding == "valid":
        pads = ((0, 0),) * len(kernel)
    else:
        pads = tuple((int(p), int(p)) for p in module.padding)
    is_transposed = isinstance(module, TRANSPOSED)
    output_pads = tuple(module.output_padding) if is_transposed else ()
    if isinstance(module, _UnevenConvTranspose):
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


def _flat(pads: Sequence[tuple[int, int]]) -> list[int]:
    """Return pads as :func:`torch.nn.functional.pad` takes them: the last axis first."""
    return [amount for pair in reversed(pads) for amount in pair]


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
