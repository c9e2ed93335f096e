"""What a network is made of, to the mathematics: linear operators, and how a pass calls them.

Neither torch nor onnx: whoever holds a network says in these words what its layers are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class Window:
    """How a kernel moves over the spatial axes: one entry an axis; of no axes for a product.

    Attributes:
        kernel: its size.
        stride: pixels from one place to the next; 1 everywhere where it is left out.
        pads: pixels added (before, after); none where it is left out. ``"same"`` and ``auto_pad``
            are resolved on reading.
        dilation: pixels from one tap to the next; 1 everywhere where it is left out.
        pad_mode: what the added pixels are: ``zeros``, ``reflect``, ``replicate``, ``circular``.
        transposed: whether it is the gradient of such a convolution ("deconvolution").
        output_pads: of a transposed one, pixels added to the output after the last: none where it
            is left out. A plain one has none.
    """

    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    pads: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    pad_mode: str = "zeros"
    transposed: bool = False
    output_pads: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        ones = (1,) * self.ndim
        for name, default in (
            ("stride", ones),
            ("pads", ((0, 0),) * self.ndim),
            ("dilation", ones),
        ):
            object.__setattr__(self, name, getattr(self, name) or default)
        if self.transposed and not self.output_pads:
            object.__setattr__(self, "output_pads", (0,) * self.ndim)

    @property
    def ndim(self) -> int:
        """Number of spatial axes: 2 for an image, 0 for a matrix product."""
        return len(self.kernel)

    @property
    def is_pointwise(self) -> bool:
        """Whether the kernel is 1 along every axis."""
        return all(k == 1 for k in self.kernel)

    @property
    def is_consistent(self) -> bool:
        """Whether the numbers make a window at all: one an axis, sizes at least 1, pads from 0."""
        per_axis = (self.stride, self.pads, self.dilation)
        sizes = (*self.kernel, *self.stride, *self.dilation)
        return (
            all(len(numbers) == self.ndim for numbers in per_axis)
            and all(size >= 1 for size in sizes)
            and all(len(pair) == 2 and min(pair) >= 0 for pair in self.pads)
            and len(self.output_pads) == (self.ndim if self.transposed else 0)
            and min(self.output_pads, default=0) >= 0
            and not (self.transposed and (not self.ndim or self.pad_mode != "zeros"))
        )

    def along(self, kept: Sequence[bool]) -> Self:
        """Return the window along the axes that are ``kept``: the others pass through untouched.

        Where nothing is left of a transposed one, it is a plain one, which computes the same.
        """
        pads = tuple(pair if keep else (0, 0) for pair, keep in zip(self.pads, kept, strict=True))
        transposed = self.transposed and any(kept)
        extra = tuple(n if keep else 0 for n, keep in zip(self.output_pads, kept, strict=False))
        return type(self)(
            kernel=_where(kept, self.kernel),
            stride=_where(kept, self.stride),
            pads=pads,
            dilation=_where(kept, self.dilation),
            pad_mode=self.pad_mode if any(map(any, pads)) else "zeros",
            transposed=transposed,
            output_pads=extra if transposed else (),
        )


@dataclass(frozen=True)
class LinearOp:
    """A convolution, transposed convolution or matrix product.

    Kernels are (out_channels, in_channels / groups, *kernel).
    """

    in_channels: int
    out_channels: int
    groups: int = 1
    bias: bool = False
    window: Window = Window()

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel along the spatial axes."""
        return self.window.kernel

    @property
    def ndim(self) -> int:
        """Number of spatial axes: 2 for an image, 0 for a matrix product."""
        return self.window.ndim

    @property
    def is_pointwise(self) -> bool:
        """Whether the kernel is 1 along every axis."""
        return self.window.is_pointwise

    @property
    def kind(self) -> str:
        """What layers of its kind are called, in the plural."""
        if not self.ndim:
            return "matrix products"
        if self.groups > 1:
            is_depthwise = self.groups == self.in_channels
            return f"{'depthwise' if is_depthwise else 'grouped'} convolutions"
        size = "x".join(map(str, self.kernel)) if self.ndim > 1 else f"{self.kernel[0]}-tap"
        return f"{size} convolutions"

    @property
    def is_consistent(self) -> bool:
        """Whether there can be such an operator."""
        counts = (self.in_channels, self.out_channels, self.groups)
        return (
            min(counts) >= 1
            and (self.ndim > 0 or self.groups == 1)
            and self.in_channels % self.groups == self.out_channels % self.groups == 0
            and self.window.is_consistent
        )

    def __str__(self) -> str:
        text = f"{self.in_channels}->{self.out_channels}"
        window = self.window
        if window.kernel:
            text += " " + "x".join(map(str, window.kernel))
        if any(s != 1 for s in window.stride):
            text += " /" + "x".join(map(str, window.stride))
        if any(d != 1 for d in window.dilation):
            text += " dil " + "x".join(map(str, window.dilation))
        if window.transposed:
            text += " transposed"
        return text + (f" g{self.groups}" if self.groups > 1 else "")


@dataclass(frozen=True)
class Call:
    """One use of a layer in a forward pass.

    Attributes:
        places: leading positions for one image: 1; more where frames, patches or tokens are folded
            into the batch.
        size: spatial size of the input, in pixels.
    """

    places: int
    size: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """A linear operator of a network, as a forward pass uses it.

    Attributes:
        name: what the author of the network would know it by.
        op: what it computes.
        calls: its uses in one forward pass; empty where there are none.
        shares: the layer before it whose weight this one uses as well, or None.
        fixed: why nobody may rewrite it, or None.
    """

    name: str
    op: LinearOp
    calls: tuple[Call, ...]
    shares: str | None = None
    fixed: str | None = None


def _where(kept: Sequence[bool], values: Sequence[int]) -> tuple[int, ...]:
    return tuple(value if keep else 1 for value, keep in zip(values, kept, strict=True))
