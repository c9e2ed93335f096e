"""Pools: maxima, means and norms over windows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, prod

import torch
from torch import Tensor
from torch.nn import functional

from trpexport.networks.onnx.interpreter.registry import Use, integers, operator
from trpexport.networks.onnx.interpreter.windows import flattened, pads_of

_MAX: tuple[Callable[..., tuple[Tensor, Tensor]], ...] = (
    functional.max_pool1d_with_indices,
    functional.max_pool2d_with_indices,
    functional.max_pool3d_with_indices,
)


@dataclass(frozen=True)
class _Windows:
    """The windows of a pool, over an input that is padded for them.

    Attributes:
        kernel: size of each.
        stride: from one to the next.
        dilation: from one of its elements to the next.
        pads: what the file adds, (before, after).
        beyond: what the last windows reach beyond that, where the output is rounded up.
    """

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    pads: list[tuple[int, int]]
    beyond: list[int]

    @classmethod
    def of(cls, use: Use, size: Sequence[int]) -> _Windows:
        kernel = use.get("kernel_shape")
        ones = [1] * len(kernel)
        stride, dilation = use.get("strides", ones), use.get("dilations", ones)
        pads = pads_of(use, size, kernel, stride, dilation)
        beyond = []
        for n, k, s, d, (before, after) in zip(size, kernel, stride, dilation, pads, strict=True):
            padded, reach = n + before + after, d * (k - 1) + 1
            steps = (padded - reach) // s
            if use.get("ceil_mode", 0) and use.get("auto_pad", "NOTSET") == "NOTSET":
                steps = -(-(padded - reach) // s)
                if steps * s >= n + before:  # a window starts inside the input or its first pads
                    steps -= 1
            beyond.append(max(0, steps * s + reach - padded))
        return cls(kernel, stride, dilation, pads, beyond)

    def padded(self, x: Tensor, fill: float, *, inside: float | None = None) -> Tensor:
        """Return an input with all that windows reach, filled.

        Args:
            x: the input.
            fill: what stands beyond the input.
            inside: what stands in the file's own pads, where that is something else.
        """
        extra = [(0, more) for more in self.beyond]
        own = functional.pad(x, flattened(self.pads), value=fill if inside is None else inside)
        return functional.pad(own, flattened(extra), value=fill) if any(self.beyond) else own

    def sums(self, x: Tensor) -> Tensor:
        """Return the sum over each window of a padded input (N, C, *size)."""
        # As products with ones: pools of PyTorch know no dilation.
        images = x.reshape(-1, 1, *x.shape[2:])
        ones = x.new_ones(1, 1, *self.kernel)
        run = (functional.conv1d, functional.conv2d, functional.conv3d)[len(self.kernel) - 1]
        found = run(images, ones, None, self.stride, 0, self.dilation)
        return found.reshape(*x.shape[:2], *found.shape[2:])


@operator("MaxPool")
def _max_pool(use: Use, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    kind, size = x.dtype, x.shape[2:]
    windows = _Windows.of(use, size)
    if not x.is_floating_point():
        x = x.double()
    padded = windows.padded(x, -inf)
    run = _MAX[len(size) - 1]
    found, places = run(padded, windows.kernel, windows.stride, 0, windows.dilation)
    found = found.to(kind)
    return found if use.outputs == 1 else (found, _in_input(use, windows, x, padded, places))


def _in_input(use: Use, windows: _Windows, x: Tensor, padded: Tensor, places: Tensor) -> Tensor:
    """Return places in each padded image as places in the whole of the input."""
    coordinates = []
    for axis in range(x.ndim - 1, 1, -1):
        coordinates.append(places % padded.shape[axis] - windows.pads[axis - 2][0])
        places = places // padded.shape[axis]
    sizes = list(x.shape[:1:-1])
    if use.get("storage_order", 0):
        coordinates, sizes = coordinates[::-1], sizes[::-1]
    found, step = torch.zeros_like(places), 1
    for coordinate, size in zip(coordinates, sizes, strict=True):
        found, step = found + coordinate * step, step * size
    images = torch.arange(x.shape[0] * x.shape[1], device=x.device) * step
    return found + images.reshape(*x.shape[:2], *[1] * (x.ndim - 2))


@operator("MaxUnpool", numbers=(2,))
def _max_unpool(use: Use, x: Tensor, places: Tensor, given: Tensor | None = None) -> Tensor:
    kernel = use.get("kernel_shape")
    stride = use.get("strides", [1] * len(kernel))
    pads = pads_of(use, x.shape[2:], kernel, stride, [1] * len(kernel))
    inferred = [
        *x.shape[:2],
        *(
            (n - 1) * s + k - before - after
            for n, s, k, (before, after) in zip(x.shape[2:], stride, kernel, pads, strict=True)
        ),
    ]
    flat = x.new_zeros(prod(inferred)).scatter(0, places.reshape(-1), x.reshape(-1))
    found = flat.reshape(inferred)
    if given is None:
        return found
    sizes = zip(integers(given)[2:], inferred[2:], strict=True)
    return functional.pad(found, flattened([(0, wanted - size) for wanted, size in sizes]))


@operator("AveragePool")
def _average_pool(use: Use, x: Tensor) -> Tensor:
    windows = _Windows.of(use, x.shape[2:])
    counted = float(bool(use.get("count_include_pad", 0)))
    is_plain = not any(windows.beyond) and all(d == 1 for d in windows.dilation)
    if is_plain and all(before == after for before, after in windows.pads):
        before = [pair[0] for pair in windows.pads]
        if all(2 * pad <= k for pad, k in zip(before, windows.kernel, strict=True)):
            run = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[x.ndim - 3]
            return run(x, windows.kernel, windows.stride, before, False, bool(counted))
    ones = windows.padded(torch.ones_like(x[:1, :1]), 0.0, inside=counted)
    return windows.sums(windows.padded(x, 0.0)) / windows.sums(ones)


@operator("LpPool")
def _lp_pool(use: Use, x: Tensor) -> Tensor:
    power = use.get("p", 2)
    windows = _Windows.of(use, x.shape[2:])
    return windows.sums(windows.padded(x.abs() ** power, 0.0)) ** (1 / power)


@operator("GlobalAveragePool")
def _global_average_pool(_: Use, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalMaxPool")
def _global_max_pool(_: Use, x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


@operator("GlobalLpPool")
def _global_lp_pool(use: Use, x: Tensor) -> Tensor:
    power = use.get("p", 2)
    return (x.abs() ** power).sum(tuple(range(2, x.ndim)), keepdim=True) ** (1 / power)
