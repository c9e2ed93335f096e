"""What a factorization scheme is, and the part that those of one unfolded matrix share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

from trpexport.cost import macs
from trpexport.lowrank.spectrum import Basis
from trpexport.ops import Call, LinearOp

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Scheme(ABC):
    """One way to write a linear operator as a chain of cheaper ones, at a rank R.

    Kernels are (out_channels, in_channels / groups, *kernel_size). Every method is a pure function
    of its arguments.
    """

    name: ClassVar[str]
    # Whether a factor has more groups than the operator: such run slowly for their MACs.
    regroups: ClassVar[bool] = False

    def unsupported_reason(self, op: LinearOp) -> str | None:
        """Say why the scheme can't take ``op``, or None if it can."""
        return None

    def form(self, op: LinearOp) -> Scheme:
        """Return the scheme that ``op`` is written by: not this one where its axes ask for more."""
        return self

    @abstractmethod
    def factor_ops(self, op: LinearOp, rank: int) -> tuple[LinearOp, ...]:
        """Return the chain of operators that stands in for ``op`` at ``rank``.

        The last one carries the bias: a bias before padding would leak into the border. A higher
        rank costs more.
        """

    @abstractmethod
    def full_rank(self, op: LinearOp) -> int:
        """Return the rank at which the factors reproduce any kernel of this shape."""

    @abstractmethod
    def spectrum(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Return what each rank adds: (batch, full rank), in float64.

        The sum of the squares behind R is the squared error of a truncation to rank R.

        Raises:
            PlanError: the kernel holds NaN or infinity.
        """

    @abstractmethod
    def truncate(self, weight: Tensor, op: LinearOp, rank: int) -> tuple[Tensor, ...]:
        """Return the kernels of the factors that approximate a kernel at ``rank``, in float64.

        Raises:
            PlanError: the kernel holds NaN or infinity.
        """

    @abstractmethod
    def product(self, weights: Sequence[Tensor], op: LinearOp) -> Tensor:
        """Return the dense kernel that the factors with these kernels stand for."""

    def break_even_rank(self, op: LinearOp, calls: Sequence[Call]) -> int:
        """Return the largest rank at which the factors need fewer MACs than ``op``; 0 if none."""

        def cost(rank: int) -> int:
            return macs(self.factor_ops(op, rank), calls)

        ranks = range(1, self.full_rank(op) + 1)
        return bisect_left(ranks, macs((op,), calls), key=cost)


class MatrixScheme(Scheme):
    """A scheme that unfolds the kernel into a batch of matrices, (batch, rows, columns).

    Each matrix is truncated to the same rank R, ``left @ right`` with left (batch, rows, R) and
    right (batch, R, columns), and the two are folded into the weights of the factors. The batch is
    what is factorized on its own: the groups of a grouped convolution, or the output filters of
    network decoupling. The cost of the factors is proportional to the rank.
    """

    @abstractmethod
    def matrix_shape(self, op: LinearOp) -> tuple[int, int, int]:
        """Return (batch, rows, columns) of the unfolded kernel."""

    def unfold(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Turn a kernel into matrices of :meth:`matrix_shape`: its elements in their own order."""
        return weight.reshape(self.matrix_shape(op))

    def fold(self, matrices: Tensor, op: LinearOp) -> Tensor:
        """Turn matrices of :meth:`matrix_shape` back into a kernel: undo :meth:`unfold`."""
        return matrices.reshape(op.out_channels, op.in_channels // op.groups, *op.kernel)

    @abstractmethod
    def factor_weights(self, left: Tensor, right: Tensor, op: LinearOp) -> tuple[Tensor, ...]:
        """Fold left (batch, rows, R) and right (batch, R, columns) into the factors' kernels."""

    @abstractmethod
    def matrices_of(self, weights: Sequence[Tensor], op: LinearOp) -> tuple[Tensor, Tensor]:
        """Undo :meth:`factor_weights`: return (left, right)."""

    def product(self, weights: Sequence[Tensor], op: LinearOp) -> Tensor:
        """Return the dense kernel that the factors with these kernels stand for."""
        left, right = self.matrices_of(weights, op)
        return self.fold(left @ right, op)

    def full_rank(self, op: LinearOp) -> int:
        """Return the smaller dimension of a matrix."""
        _, rows, columns = self.matrix_shape(op)
        return min(rows, columns)

    def spectrum(self, weight: Tensor, op: LinearOp) -> Tensor:
        """Return the singular values of each matrix, largest first."""
        return self.basis(weight, op).values

    def truncate(self, weight: Tensor, op: LinearOp, rank: int) -> tuple[Tensor, ...]:
        """Return the factors of the truncated SVD: there are no closer ones."""
        return self.truncate_by(self.basis(weight, op), weight, op, rank)

    def basis(self, weight: Tensor, op: LinearOp) -> Basis:
        """Return what the spectrum and all truncations of a kernel follow from.

        Raises:
            PlanError: the kernel holds NaN or infinity.
        """
        return Basis.of(self.unfold(weight, op))

    def truncate_by(
        self, basis: Basis, weight: Tensor, op: LinearOp, rank: int
    ) -> tuple[Tensor, ...]:
        """Return what :meth:`truncate` does, of a kernel whose basis is known."""
        found = basis.truncated(self.unfold(weight, op), rank)
        return self.factor_weights(*found.factors(rank), op)


def restrict(op: LinearOp, kept: Sequence[bool]) -> LinearOp:
    """Return ``op`` with its window along the axes that are ``kept``, and none along the others."""
    return replace(op, window=op.window.along(kept))
