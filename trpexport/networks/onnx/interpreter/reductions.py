"""Sums, maxima and the like along axes; orders; softmax."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, prod

import torch
from torch import Tensor

from trpexport.networks.onnx.interpreter.registry import Use, axes_of, integers, operator

Reduction = Callable[[Tensor, list[int], bool], Tensor]


def _maximum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, -1)


def _minimum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return _extreme(x, axes, keep, 1)


def _extreme(x: Tensor, axes: list[int], keep: bool, sign: int) -> Tensor:
    """Return the maximum, or with sign 1 the minimum: of nothing the least or largest number."""
    if x.dtype == torch.bool:
        return _extreme(x.to(torch.uint8), axes, keep, sign).bool()
    if not x.numel():
        shape = x.sum(axes, keepdim=keep).shape
        info = None if x.is_floating_point() else torch.iinfo(x.dtype)
        value = sign * inf if info is None else (info.min if sign < 0 else info.max)
        return x.new_full(shape, value)
    return x.amax(axes, keep) if sign < 0 else x.amin(axes, keep)


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep, dtype=x.dtype)
    return x


def _total(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    return x.sum(axes, keepdim=keep, dtype=x.dtype)


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    count = prod(x.shape[axis] for axis in axes)
    return torch.div(_total(x, axes, keep), count, rounding_mode="trunc")


def _norm(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        norm: Tensor = torch.linalg.vector_norm(x, dim=axes, keepdim=keep)
        return norm
    return _total(x * x, axes, keep).double().sqrt().to(x.dtype)


_REDUCTIONS: dict[str, tuple[Reduction, int]] = {
    "ReduceL1": (lambda x, axes, keep: _total(x.abs(), axes, keep), 18),
    "ReduceL2": (_norm, 18),
    "ReduceLogSum": (lambda x, axes, keep: _total(x, axes, keep).log(), 18),
    "ReduceLogSumExp": (torch.logsumexp, 18),
    "ReduceMax": (_maximum, 18),
    "ReduceMean": (_mean, 18),
    "ReduceMin": (_minimum, 18),
    "ReduceProd": (_product, 18),
    "ReduceSum": (_total, 13),
    "ReduceSumSquare": (lambda x, axes, keep: _total(x * x, axes, keep), 18),
}


def _register(name: str, reduction: Reduction, since: int) -> None:
    @operator(name, numbers=(1,))
    def run(use: Use, x: Tensor, given: Tensor | None = None) -> Tensor:
        axes = axes_of(use, given, since) or []
        if not axes:
            if use.get("noop_with_empty_axes", 0):
                return reduction(x[None], [0], False)  # what is done to each element is done
            axes = list(range(x.ndim))
        if not axes:
            return reduction(x[None], [0], False)
        return reduction(x, axes, bool(use.get("keepdims", 1)))


for _name, (_reduction, _since) in _REDUCTIONS.items():
    _register(_name, _reduction, _since)


def _first_of(use: Use, x: Tensor, *, largest: bool) -> Tensor:
    axis, keep = use.get("axis", 0), bool(use.get("keepdims", 1))
    is_last = bool(use.get("select_last_index", 0))
    if is_last:
        x = x.flip(axis)
    # The first of several: argmax of PyTorch promises none of them.
    best = x.amax(axis, keepdim=True) if largest else x.amin(axis, keepdim=True)
    found = (x == best).to(torch.uint8).argmax(axis, keepdim=keep)
    return x.shape[axis] - 1 - found if is_last else found


@operator("ArgMax")
def _arg_max(use: Use, x: Tensor) -> Tensor:
    return _first_of(use, x, largest=True)


@operator("ArgMin")
def _arg_min(use: Use, x: Tensor) -> Tensor:
    return _first_of(use, x, largest=False)


@operator("TopK", numbers=(1,))
def _top_k(use: Use, x: Tensor, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
    count = use.get("k") if given is None else integers(given)[0]
    axis = use.get("axis", -1)
    # Of equal ones the first: a stable order.
    values, indices = x.sort(dim=axis, descending=bool(use.get("largest", 1)), stable=True)
    return values.narrow(axis, 0, count), indices.narrow(axis, 0, count)


def _accumulated(
    use: Use, x: Tensor, axis: int, function: Callable[..., Tensor], first: int
) -> Tensor:
    if use.get("reverse", 0):
        x = x.flip(axis)
    found = function(x, axis).to(x.dtype)
    if use.get("exclusive", 0):
        before = torch.full_like(found.narrow(axis, 0, 1), first)
        found = torch.cat([before, found.narrow(axis, 0, x.shape[axis] - 1)], axis)
    return found.flip(axis) if use.get("reverse", 0) else found


@operator("CumSum", numbers=(1,))
def _cum_sum(use: Use, x: Tensor, axis: Tensor) -> Tensor:
    return _accumulated(use, x, int(axis), torch.cumsum, 0)


@operator("CumProd", numbers=(1,))
def _cum_prod(use: Use, x: Tensor, axis: Tensor) -> Tensor:
    return _accumulated(use, x, int(axis), torch.cumprod, 1)


def _along(use: Use, x: Tensor, function: Callable[[Tensor, int], Tensor]) -> Tensor:
    """Apply a function along an axis: before opset 13 along all from the axis on, together."""
    if use.opset >= 13:
        return function(x, use.get("axis", -1))
    axis = use.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return function(x.reshape(prod(x.shape[:axis]), -1), 1).reshape(x.shape)


@operator("Softmax")
def _softmax(use: Use, x: Tensor) -> Tensor:
    return _along(use, x, torch.softmax)


@operator("LogSoftmax")
def _log_softmax(use: Use, x: Tensor) -> Tensor:
    return _along(use, x, torch.log_softmax)


@operator("Hardmax")
def _hardmax(use: Use, x: Tensor) -> Tensor:
    def one(x: Tensor, axis: int) -> Tensor:
        first = (x == x.amax(axis, keepdim=True)).to(torch.uint8).argmax(axis, keepdim=True)
        return torch.zeros_like(x).scatter(axis, first, 1)

    return _along(use, x, one)


@operator("Unique")
def _unique(use: Use, x: Tensor) -> tuple[Tensor, ...]:
    axis = use.get("axis")
    flat = x.reshape(-1) if axis is None else x
    axis = 0 if axis is None else axis
    values, inverse, counts = torch.unique(
        flat, sorted=True, return_inverse=True, return_counts=True, dim=axis
    )
    places = torch.arange(len(inverse), device=x.device)
    first = torch.full_like(counts, len(inverse)).scatter_reduce(0, inverse, places, "amin")
    if not use.get("sorted", 1):
        order = first.argsort()
        values, first, counts = values.index_select(axis, order), first[order], counts[order]
        inverse = order.argsort()[inverse]
    return (values, first, inverse, counts)[: use.outputs]
