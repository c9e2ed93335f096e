"""What a factorization scheme is, and the part that those of one unfolded matrix share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from trpexport.cost import macs
from trpexport.lowrank.spectrum import svd
from trpexport.plan import ConvSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Scheme(ABC):
    """One way to write a convolution as a chain of cheaper ones, at a rank R.

    Kernels are (out_channels, in_channels / groups, *kernel_size). Every method is a pure function
    of its arguments.
    """

    name: ClassVar[str]
    # Whether a factor has more groups than the convolution: such run slowly for their MACs.
    regroups: ClassVar[bool] = False

    def unsupported_reason(self, conv: ConvSpec) -> str | None:
        """Say why the scheme can't take ``conv``, or None if it can."""
        return None

    @abstractmethod
    def factor_specs(self, conv: ConvSpec, rank: int) -> tuple[ConvSpec, ...]:
        """Return the chain of convolutions that stands in for ``conv`` at ``rank``.

        The last one carries the bias: a bias before padding would leak into the border. A higher
        rank costs more.
        """

    @abstractmethod
    def full_rank(self, conv: ConvSpec) -> int:
        """Return the rank at which the factors reproduce any kernel of this shape."""

    @abstractmethod
    def spectrum(self, weight: Tensor, conv: ConvSpec) -> Tensor:
        """Return what each rank adds: (batch, full rank), in float64.

        The sum of the squares behind R is the squared error of a truncation to rank R.

        Raises:
            PlanError: the kernel holds NaN or infinity.
        """

    @abstractmethod
    def truncate(self, weight: Tensor, conv: ConvSpec, rank: int) -> tuple[Tensor, ...]:
        """Return the kernels of the factors that approximate a kernel at ``rank``, in float64.

        Raises:
            PlanError: the kernel holds NaN or infinity.
        """

    @abstractmethod
    def product(self, weights: Sequence[Tensor], conv: ConvSpec) -> Tensor:
        """Return the dense kernel that the factors with these kernels stand for."""

    def break_even_rank(self, conv: ConvSpec, input_size: Sequence[int]) -> int:
        """Return the largest rank at which the factors need fewer MACs than ``conv``; 0 if none."""

        def cost(rank: int) -> int:
            return macs(self.factor_specs(conv, rank), input_size)

        ranks = range(1, self.full_rank(conv) + 1)
        return bisect_left(ranks, macs((conv,), input_size), key=cost)


class MatrixScheme(Scheme):
    """A scheme that unfolds the kernel into a batch of matrices, (batch, rows, columns).

    Each matrix is truncated to the same rank R, ``left @ right`` with left (batch, rows, R) and
    right (batch, R, columns), and the two are folded into the weights of the factors. The batch is
    what is factorized on its own: the groups of a grouped convolution, or the output filters of
    network decoupling. The cost of the factors is proportional to the rank.
    """

    @abstractmethod
    def matrix_shape(self, conv: ConvSpec) -> tuple[int, int, int]:
        """Return (batch, rows, columns) of the unfolded kernel."""

    def unfold(self, weight: Tensor, conv: ConvSpec) -> Tensor:
        """Turn a kernel into matrices of :meth:`matrix_shape`: its elements in their own order."""
        return weight.reshape(self.matrix_shape(conv))

    def fold(self, matrices: Tensor, conv: ConvSpec) -> Tensor:
        """Turn matrices of :meth:`matrix_shape` back into a kernel: undo :meth:`unfold`."""
        return matrices.reshape(
            conv.out_channels, conv.in_channels // conv.groups, *conv.kernel_size
        )

    @abstractmethod
    def factor_weights(self, left: Tensor, right: Tensor, conv: ConvSpec) -> tuple[Tensor, ...]:
        """Fold left (batch, rows, R) and right (batch, R, columns) into the factors' kernels."""

    @abstractmethod
    def matrices_of(self, weights: Sequence[Tensor], conv: ConvSpec) -> tuple[Tensor, Tensor]:
        """Undo :meth:`factor_weights`: return (left, right)."""

    def product(self, weights: Sequence[Tensor], conv: ConvSpec) -> Tensor:
        """Return the dense kernel that the factors with these kernels stand for."""
        left, right = self.matrices_of(weights, conv)
        return self.fold(left @ right, conv)

    def full_rank(self, conv: ConvSpec) -> int:
        """Return the smaller dimension of a matrix."""
        _, rows, columns = self.matrix_shape(conv)
        return min(rows, columns)

    def spectrum(self, weight: Tensor, conv: ConvSpec) -> Tensor:
        """Return the singular values of each matrix, largest first."""
        return svd(self.unfold(weight, conv)).values

    def truncate(self, weight: Tensor, conv: ConvSpec, rank: int) -> tuple[Tensor, ...]:
        """Return the factors of the truncated SVD: there are no closer ones."""
        return self.factor_weights(*svd(self.unfold(weight, conv)).factors(rank), conv)


def restrict(conv: ConvSpec, kept: Sequence[bool]) -> ConvSpec:
    """Return ``conv`` with its geometry in the dimensions that are ``kept``, and none elsewhere.

    In the other dimensions the kernel and the stride are 1 and nothing is padded: they pass
    through untouched.
    """
    padding: tuple[int, ...] | Literal["same"] = "same"
    if conv.padding != "same":
        padding = tuple(p if keep else 0 for p, keep in zip(conv.padding, kept, strict=True))
    pads = any(kept) if padding == "same" else any(padding)
    return replace(
        conv,
        kernel_size=_where(kept, conv.kernel_size),
        stride=_where(kept, conv.stride),
        dilation=_where(kept, conv.dilation),
        padding=padding if pads else (0,) * conv.ndim,
        padding_mode=conv.padding_mode if pads else "zeros",
    )


def _where(kept: Sequence[bool], values: Sequence[int]) -> tuple[int, ...]:
    return tuple(value if keep else 1 for value, keep in zip(values, kept, strict=True))
