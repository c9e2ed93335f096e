"""Spatial-wise decomposition: a convolution along one axis after the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from trpexport.lowrank.schemes import SCHEMES
from trpexport.lowrank.schemes.base import MatrixScheme, Scheme, restrict
from trpexport.lowrank.schemes.three_factors import ThreeFactors
from trpexport.ops import LinearOp

if TYPE_CHECKING:
    from torch import Tensor


class _AxesPair(MatrixScheme):
    """The kernel as a matrix of (in · taps along some axes) x (out · taps along the others).

    Either factor has the original's stride, padding and dilation along its own axes. Padding acts
    on each axis independently in every padding mode, so that each factor pads its own.
    """

    @abstractmethod
    def behind(self, op: LinearOp) -> tuple[bool, ...]:
        """Say of each axis whether it is the second factor's."""

    def matrix_shape(self, op: LinearOp) -> tuple[int, int, int]:
        """Return (groups, in / groups · taps, out / groups · taps)."""
        first, second = (restrict(op, kept) for kept in self._kept(op))
        rows = op.in_channels // op.groups * prod(first.kernel)
        return op.groups, rows, op.out_channels // op.groups * prod(second.kernel)

    def unfold(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Turn a kernel into one matrix a group: rows (in, taps), columns (out, taps)."""
        split = weight.reshape(op.groups, -1, *weight.shape[1:])
        return split.permute(self._order(op)).reshape(self.matrix_shape(op))

    def fold(self, matrices: Tensor, op: LinearOp) -> Tensor:
        """Turn the matrices back into a kernel."""
        g, order = op.groups, self._order(op)
        sizes = (g, op.out_channels // g, op.in_channels // g, *op.kernel)
        split = matrices.reshape([sizes[axis] for axis in order])
        back = sorted(range(len(order)), key=order.__getitem__)
        return split.permute(back).reshape(op.out_channels, -1, *op.kernel)

    def factor_ops(self, op: LinearOp, rank: int) -> tuple[LinearOp, ...]:
        """Return in -> R·groups along the first axes, then R·groups -> out along the others."""
        first, second = (restrict(op, kept) for kept in self._kept(op))
        middle = rank * op.groups
        return (
            replace(first, out_channels=middle, bias=False),
            replace(second, in_channels=middle),
        )

    def factor_weights(self, left: Tensor, right: Tensor, op: LinearOp) -> tuple[Tensor, ...]:
        """Fold left and right into filters along the first axes, and along the others."""
        g, rank = op.groups, right.shape[1]
        first, second = (restrict(op, kept).kernel for kept in self._kept(op))
        split = right.reshape(g, rank, op.out_channels // g, -1).transpose(1, 2)
        return (
            left.mT.reshape(g * rank, op.in_channels // g, *first),
            split.reshape(op.out_channels, rank, *second),
        )

    def matrices_of(self, weights: Sequence[Tensor], op: LinearOp) -> tuple[Tensor, Tensor]:
        """Return (left, right), one pair a group."""
        first, second = weights
        g, rows, columns = self.matrix_shape(op)
        split = second.reshape(g, op.out_channels // g, second.shape[1], -1).transpose(1, 2)
        return first.reshape(g, -1, rows).mT, split.reshape(g, -1, columns)

    def _kept(self, op: LinearOp) -> tuple[list[bool], list[bool]]:
        """Return which axes each factor has."""
        behind = self.behind(op)
        return [not second for second in behind], list(behind)

    def _order(self, op: LinearOp) -> list[int]:
        """Return the axes of (groups, out, in, *kernel) as (groups, in, taps, out, taps)."""
        first, second = (
            [3 + axis for axis, kept in enumerate(some) if kept] for some in self._kept(op)
        )
        return [0, 2, *first, 1, *second]


class _Depth(_AxesPair):
    """A convolution along the first axis, then one along the others."""

    name = "spatial"

    def behind(self, op: LinearOp) -> tuple[bool, ...]:
        """All axes but the first."""
        return (False, *[True] * (op.ndim - 1))


class LastAxis(_AxesPair):
    """A convolution along all axes but the last, then one along that.

    The last is the last one along which the kernel has more than one tap; where that is the first
    axis, or none, the second factor is 1x1, at fewer MACs than if it had a stride of its own.
    """

    name = "spatial"

    def behind(self, op: LinearOp) -> tuple[bool, ...]:
        """The last axis with taps, unless it is the first."""
        last = max((axis for axis, taps in enumerate(op.kernel) if taps > 1), default=0)
        return tuple(axis == last > 0 for axis in range(op.ndim))


class _ThreeAxes(ThreeFactors):
    """One convolution an axis: kd x 1 x 1, then 1 x kh x 1, then 1 x 1 x kw.

    The kernel as a train of three tensors (Oseledets, "Tensor-Train Decomposition", 2011), with one
    rank for both bonds: a core of kh matrices between a basis of (in · kd) and one of (out · kw).
    """

    name = "spatial"
    front = _Depth()
    behind = LastAxis()

    def split(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Return a kernel as (groups, out / groups · kw, in / groups · kd, kh)."""
        split = weight.reshape(op.groups, -1, *weight.shape[1:])
        return split.permute(0, 1, 5, 2, 3, 4).reshape(op.groups, *self.sides(op))

    def sides(self, op: LinearOp) -> tuple[int, int, int]:
        """Return (out / groups · kw, in / groups · kd, kh)."""
        kd, kh, kw = op.kernel
        return op.out_channels // op.groups * kw, op.in_channels // op.groups * kd, kh

    def op_behind(self, op: LinearOp, inner: int) -> LinearOp:
        """Return the layer along the last two axes, with ``inner`` input channels a group."""
        return replace(restrict(op, (False, True, True)), in_channels=inner * op.groups)

    def pair_behind(self, core: Tensor, outputs: Tensor, op: LinearOp) -> tuple[Tensor, ...]:
        """Fold the core into 1 x kh x 1 filters, and the basis into 1 x 1 x kw filters."""
        rows = core.permute(0, 2, 3, 1).flatten(1, 2)
        return self.behind.factor_weights(rows, outputs.mT, op)


class Spatial(LastAxis):
    """The kernel as an (in·kh) x (out·kw) matrix: ``W = V H`` (TRP, arXiv 2004.14566, section 3.1).

    Jaderberg et al., "Speeding up Convolutional Neural Networks with Low Rank Expansions"
    (arXiv 1405.3866), scheme 2. V becomes R filters kh x 1 with the vertical stride, padding and
    dilation; H becomes filters 1 x kw with the horizontal ones. A kernel with taps along three axes
    becomes three factors, one an axis; what has taps along one, or none, as a matrix product, the
    plain pair.
    """

    def form(self, op: LinearOp) -> Scheme:
        """Return the scheme of three factors where there are taps along three axes."""
        return _THREE if op.ndim == _AXES and min(op.kernel) > 1 else self

    def factor_ops(self, op: LinearOp, rank: int) -> tuple[LinearOp, ...]:
        """Return one factor an axis that has taps, two at least."""
        form = self.form(op)
        return super().factor_ops(op, rank) if form is self else form.factor_ops(op, rank)

    def full_rank(self, op: LinearOp) -> int:
        """Return the rank at which the factors reproduce any kernel of this shape."""
        form = self.form(op)
        return super().full_rank(op) if form is self else form.full_rank(op)

    def spectrum(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Return what each rank adds: (batch, full rank), in float64."""
        form = self.form(op)
        return super().spectrum(weight, op) if form is self else form.spectrum(weight, op)

    def truncate(self, weight: Tensor, op: LinearOp, rank: int) -> tuple[Tensor, ...]:
        """Return the kernels of the factors that approximate a kernel at ``rank``, in float64."""
        form = self.form(op)
        return (
            super().truncate(weight, op, rank) if form is self else form.truncate(weight, op, rank)
        )

    def product(self, weights: Sequence[Tensor], op: LinearOp) -> Tensor:
        """Return the dense kernel that the factors with these kernels stand for."""
        form = self.form(op)
        return super().product(weights, op) if form is self else form.product(weights, op)


_AXES = 3
_THREE = _ThreeAxes()
SCHEMES.register(Spatial.name, Spatial())
