"""How far kernels reach beyond an input: pads of convolutions and of pools."""

from __future__ import annotations

from collections.abc import Sequence

from trpexport.networks.onnx.interpreter.registry import Use

Pads = list[tuple[int, int]]


def pads_of(
    use: Use,
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> Pads:
    """Return what is added (before, after) along each axis of an input."""
    auto = use.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [(0, 0)] * len(kernel)
    if auto == "NOTSET":
        given = use.get("pads", [0] * (2 * len(kernel)))
        return list(zip(given[: len(kernel)], given[len(kernel) :], strict=True))
    totals = (
        max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
    )
    return [halves(total, odd_first=auto == "SAME_LOWER") for total in totals]


def halves(total: int, *, odd_first: bool) -> tuple[int, int]:
    """Return the two halves of a number; the odd one goes to the first or to the second."""
    small = total // 2
    return (total - small, small) if odd_first else (small, total - small)


def flattened(pads: Pads) -> list[int]:
    """Return pads as PyTorch's ``pad`` takes them: from the last axis on."""
    return [number for pair in reversed(pads) for number in pair]
