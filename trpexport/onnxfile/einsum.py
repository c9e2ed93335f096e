"""What an einsum costs, from its equation and the shapes of its operands."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from trpexport.tensors import Shape

_REST = "..."


def einsum_macs(equation: str, shapes: Sequence[Shape]) -> int | None:
    """Return the MACs of an einsum that multiplies its operands in their order.

    What only one of two operands has and nobody asks for is summed up first, as PyTorch and numpy
    do; a product of which nothing is summed is elementwise, and left out as such.

    Args:
        equation: as ONNX has it, ``"bnd,bmd->bnm"``.
        shapes: those of the operands.

    Returns:
        None where the equation does not fit the shapes.
    """
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        return None
    sizes: dict[str, int] = {}
    operands = []
    for term, shape in zip(terms, shapes, strict=True):
        labels = _labels(term, len(shape))
        if labels is None:
            return None
        for label, size in zip(labels, shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)  # 1 where it is broadcast
        operands.append(set(labels))
    rest = {label for label in sizes if label.isdigit()}
    if arrow:
        wanted = set(right.replace(_REST, "")) | (rest if _REST in right else set())
    else:
        wanted = {label for label in sizes if left.count(label) == 1} | rest
    total, done = 0, operands[0]
    for index, operand in enumerate(operands[1:], start=2):
        later = wanted.union(*operands[index:])
        met = {label for label in done | operand if label in done & operand or label in later}
        done = met & later
        if met != done:
            total += prod(sizes[label] for label in met)
    return total


def _labels(term: str, ndim: int) -> list[str] | None:
    """Return a label for each axis; those that dots stand for are numbered from the last one."""
    before, dots, behind = term.partition(_REST)
    count = ndim - len(before) - len(behind)
    if count < 0 or (count and not dots):
        return None
    return [*before, *(str(place) for place in reversed(range(count))), *behind]
