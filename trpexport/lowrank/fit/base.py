"""What a fit of one layer's chains is, whatever is known of its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from trpexport.lowrank.chain import Chain
from trpexport.ops import LinearOp


class LayerFit(ABC):
    """Chains of one layer under one scheme, at any rank, fitted to what images say of it."""

    @property
    @abstractmethod
    def variance(self) -> float:
        """What :meth:`errors` are relative to."""

    @abstractmethod
    def is_seen(self, rank: int) -> bool:
        """Say whether the error of factors of this rank is known."""

    @abstractmethod
    def can_take(self, rank: int) -> bool:
        """Say whether there is a chain of this rank."""

    @abstractmethod
    def errors(self, ranks: Sequence[int]) -> list[float]:
        """Return the mean squared error of the outputs at a pixel, at each rank."""

    @abstractmethod
    def best_ridge(self, rank: int) -> float:
        """Return the ridge with which the factors do best on images they were not fitted to."""

    @abstractmethod
    def chain(self, rank: int, ridge: float | None = None) -> Chain:
        """Return the fitted chain; the last factor has a bias, which corrects the mean error.

        That costs nothing in the exported file, where a batch norm becomes a bias anyway.

        Args:
            rank: of the factors.
            ridge: weight of the original kernel, relative to an input's variance; a typical one
                where it is None.
        """

    @abstractmethod
    def relative_error(self, chain: Chain, bias: Tensor | None) -> float:
        """Return the RMS error of what a chain gives, relative to what the layer should give.

        Args:
            chain: of any rank.
            bias: of its last factor, (out_channels,).
        """


def with_bias(ops: Sequence[LinearOp]) -> tuple[LinearOp, ...]:
    """Return factors of which the last has a bias."""
    *first, last = ops
    return (*first, replace(last, bias=True))


def fitted_chain(
    op: LinearOp, scheme: str, ops: Sequence[LinearOp], kernels: Sequence[Tensor], bias: Tensor
) -> Chain:
    """Return a chain of fitted factors, whose kernels may come in any shape, with a bias."""
    ops = with_bias(ops)
    return Chain(
        op=op,
        scheme=scheme,
        ops=ops,
        kernels=tuple(
            kernel.reshape(op.out_channels, op.in_channels // op.groups, *op.kernel)
            for kernel, op in zip(kernels, ops, strict=True)
        ),
        bias=bias.reshape(-1),
        is_truncation=False,
    )


def relative(square: float, power: float) -> float:
    """Return the root of a square relative to a power; 1 for any square where there is none."""
    return (square / power) ** 0.5 if power else float(square > 0)
