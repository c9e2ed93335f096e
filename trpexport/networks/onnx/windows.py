"""The windows of ONNX's convolutions, ``auto_pad`` and ``output_shape`` resolved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from trpexport.ops import Window
from trpexport.tensors import Shape

_SAME = frozenset({"SAME_UPPER", "SAME_LOWER"})
_OPEN_SIZE = "its padding depends on the size of its input, which is not known"


def keeps_size(node: ir.Node) -> bool:
    """Whether a convolution pads so that its output is as large as its input over the stride."""
    return _auto_pad(node) in _SAME


def convolution_window(
    node: ir.Node, kernel: Shape, size: Shape | None
) -> tuple[Window, str | None]:
    """Return the window of a Conv, and why it can't be told, or None.

    Args:
        node: the node.
        kernel: size of its kernel.
        size: spatial size of its input; None where it is not known.
    """
    stride, dilation = _steps(node, kernel)
    pads, fixed = _pads(node, kernel), None
    if keeps_size(node):
        if size is None and any(step != 1 for step in stride):
            fixed = _OPEN_SIZE
        sizes = size or (1,) * len(kernel)
        totals = [
            max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            for n, s, d, k in zip(sizes, stride, dilation, kernel, strict=True)
        ]
        pads = _shared(totals, is_after=_auto_pad(node) == "SAME_UPPER")
    return Window(kernel, stride, pads, dilation), fixed or _unreadable(node, kernel)


def transposed_window(
    node: ir.Node, kernel: Shape, size: Shape | None
) -> tuple[Window, str | None]:
    """Return the window of a ConvTranspose, and why it can't be told, or None.

    Its pads are what is cut off the full output.
    """
    stride, dilation = _steps(node, kernel)
    output_pads = tuple(_numbers(node, "output_padding", (0,) * len(kernel)))
    pads, fixed = _pads(node, kernel), _unreadable(node, kernel)
    wanted = _numbers(node, "output_shape", ())[-len(kernel) :]
    is_same = keeps_size(node)
    if wanted or is_same:
        if size is None and wanted:
            return Window(kernel, stride, (), dilation, transposed=True), _OPEN_SIZE
        sizes = size or (1,) * len(kernel)
        targets = wanted or [n * s for n, s in zip(sizes, stride, strict=True)]
        totals = [
            s * (n - 1) + extra + d * (k - 1) + 1 - target
            for n, s, d, k, extra, target in zip(
                sizes, stride, dilation, kernel, output_pads, targets, strict=True
            )
        ]
        pads = _shared(totals, is_after=_auto_pad(node) == "SAME_UPPER")
        if min(totals, default=0) < 0:
            fixed = "its output is larger than what it computes"
            pads = ()
    window = Window(
        kernel, stride, pads, dilation, transposed=True,
        output_pads=output_pads if any(output_pads) else (),
    )  # fmt: skip
    return window, fixed


def _steps(node: ir.Node, kernel: Shape) -> tuple[Shape, Shape]:
    ones = (1,) * len(kernel)
    return _numbers(node, "strides", ones), _numbers(node, "dilations", ones)


def _pads(node: ir.Node, kernel: Shape) -> tuple[tuple[int, int], ...]:
    if _auto_pad(node) == "VALID":
        return ()
    ndim = len(kernel)
    found = _numbers(node, "pads", (0,) * (2 * ndim))
    return tuple(zip(found[:ndim], found[ndim:], strict=False))


def _shared(totals: Sequence[int], *, is_after: bool) -> tuple[tuple[int, int], ...]:
    """Share out padding between both sides; the odd pixel goes after, or before."""
    halves = [total // 2 for total in totals]
    if is_after:
        return tuple((half, total - half) for half, total in zip(halves, totals, strict=True))
    return tuple((total - half, half) for half, total in zip(halves, totals, strict=True))


def _unreadable(node: ir.Node, kernel: Shape) -> str | None:
    """Say what of the attributes does not fit the weight, or None."""
    if _numbers(node, "kernel_shape", kernel) != kernel:
        return "its kernel_shape is not that of its weight"
    if len(kernel) > 3:
        return f"it has {len(kernel)} spatial axes: those of up to 3 are rewritten"
    return None


def _auto_pad(node: ir.Node) -> str:
    found = node.attributes.get("auto_pad")
    return "NOTSET" if found is None else str(found.value)


def _numbers(node: ir.Node, name: str, default: Shape) -> Shape:
    found: Any = node.attributes.get(name)
    return default if found is None or found.is_ref() else tuple(int(n) for n in found.value)
