"""Matrix products that see fewer rows than they have input channels: the rows themselves are kept.

Behind a flatten a layer may have 25,088 input channels and see one row an image. A covariance of
those would take 5 GB, and hold nothing that the rows do not. All that a fit needs of them are their
products with each other, and with the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

# Elements of rows and kernels that are doubled at once.
_PART_ELEMENTS = 1 << 23


@dataclass(frozen=True)
class Rows:
    """What a matrix product gets and what it should give, row by row.

    Attributes:
        p: inputs (rows, K), in their own type.
        y: targets (rows, O), in float64.
    """

    p: Tensor
    y: Tensor

    @property
    def count(self) -> int:
        """Number of rows."""
        return len(self.p)

    @property
    def is_finite(self) -> bool:
        """Whether no value is NaN or infinite."""
        return bool(torch.isfinite(self.p).all() and torch.isfinite(self.y).all())

    @classmethod
    def joined(cls, several: Sequence[Rows]) -> Self:
        """Return rows after others."""
        return cls(torch.cat([some.p for some in several]), torch.cat([some.y for some in several]))

    def power(self, metric: Tensor | None) -> float:
        """Return the mean square of the targets of a row, summed over channels."""
        return mean_square(self.y, metric)


@dataclass(frozen=True)
class LayerRows:
    """What the images say of one matrix product.

    Attributes:
        fit: rows of most images.
        held_out: those of the others.
        metric: what counts as error, (O, O), positive definite; the identity if None.
    """

    fit: Rows
    held_out: Rows
    metric: Tensor | None


@dataclass(frozen=True)
class Products:
    """Products of rows with each other and with a kernel W (O, K), in float64.

    Attributes:
        pp: of the rows with each other, (rows, rows), their mean subtracted.
        wp: what the kernel makes of them, (rows, O), likewise.
        ww: W Wᵀ, (O, O).
        kernel: W, in its own type.
        p: the rows, (rows, K).
    """

    pp: Tensor
    wp: Tensor
    ww: Tensor
    kernel: Tensor
    p: Tensor

    @classmethod
    def of(cls, p: Tensor, kernel: Tensor) -> Self:
        """Multiply rows (rows, K) and a kernel (O, K), some columns after others."""
        rows, outputs = len(p), len(kernel)
        pp, wp, ww = (
            torch.zeros(*shape, dtype=torch.float64, device=kernel.device)
            for shape in ((rows, rows), (rows, outputs), (outputs, outputs))
        )
        for some, w in _parts(p, kernel):
            centred = some - some.mean(0)
            pp.addmm_(centred, centred.mT)
            wp.addmm_(centred, w.mT)
            ww.addmm_(w, w.mT)
        return cls(pp, wp, ww, kernel, p)

    @cached_property
    def mean(self) -> Tensor:
        """Mean row, (K,)."""
        return self.p.mean(0, dtype=torch.float64)

    def combined(self, by_kernel: Tensor, by_rows: Tensor) -> Tensor:
        """Return combinations of the rows of the kernel and of the centred rows, (n, K).

        Args:
            by_kernel: (n, O).
            by_rows: (n, rows).
        """
        found = [
            (by_kernel @ w).addmm_(by_rows, some - some.mean(0))
            for some, w in _parts(self.p, self.kernel)
        ]
        return torch.cat(found, dim=1)


def mean_square(y: Tensor, metric: Tensor | None) -> float:
    """Return the mean square of rows (rows, O) as a metric (O, O) counts them."""
    weighted = y if metric is None else y @ metric
    return max(0.0, float((weighted * y).sum()) / max(1, len(y)))


def shrinkage(pp: Tensor, channels: int) -> tuple[float, float]:
    """Return how far a covariance of few rows is to be drawn to a multiple of the identity.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices"
    (2004): of all ``(1 - s) S + s m I`` the one that is nearest to the covariance behind the rows,
    as far as these tell. It takes no more than the rows' products.

    Args:
        pp: products of centred rows, (rows, rows).
        channels: how many values a row has.

    Returns:
        s between 0 and 1, and m, the mean variance of a value; 1 and 1 where nothing varies.
    """
    rows = max(1, len(pp))
    lengths = torch.diagonal(pp)
    mean = float(lengths.sum()) / (rows * channels)
    if not mean > 0:
        return 1.0, 1.0
    square = float((pp / rows).square().sum())
    distance = square - channels * mean**2
    noise = float((lengths.square().sum() / rows - square) / rows)
    return (min(1.0, max(0.0, noise / distance)) if distance > 0 else 1.0), mean


def _parts(p: Tensor, kernel: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the same columns of rows and of a kernel, some after others, in float64."""
    step = max(1, _PART_ELEMENTS // (len(p) + len(kernel)))
    for some, w in zip(torch.split(p, step, dim=1), torch.split(kernel, step, dim=1), strict=True):
        yield some.to(torch.float64), w.to(torch.float64)
