"""Singular values and low-rank factors of a batch of matrices, in float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trpexport.errors import PlanError
from trpexport.lowrank.products import add_square

# Elements of a matrix that are doubled at once: a whole one of 25088 x 4096 takes 800 MB.
_PART_ELEMENTS = 1 << 24
# Eigenvalues of a Gram matrix, relative to the largest, down to which they are exact enough.
_SMALL = 1e-3


@dataclass(frozen=True)
class Svd:
    """A thin SVD of matrices (batch, rows, columns), n = min(rows, columns), in float64.

    The side with the smaller dimension is stored as an orthonormal basis, the other one as the
    projection of the matrices onto it, which holds the singular values: nothing is divided by a
    small number until factors are asked for.

    Attributes:
        left: (batch, rows, n).
        right: (batch, n, columns).
        values: (batch, n), largest first. ``left @ right`` is the matrix itself.
        left_is_basis: whether ``left`` is the orthonormal side.
    """

    left: Tensor
    right: Tensor
    values: Tensor
    left_is_basis: bool

    def factors(self, rank: int) -> tuple[Tensor, Tensor]:
        """Return (batch, rows, rank) and (batch, rank, columns), whose product is the truncation.

        There is no closer product of that rank: Eckart and Young, "The approximation of one matrix
        by another of lower rank" (1936). Both carry the square root of each singular value, so that
        neither is badly scaled in float32 or when it is trained further.
        """
        values = self.values[:, :rank]
        # A singular value of zero has no scale to share: its basis vector stays as it is.
        negligible = values <= torch.finfo(torch.float64).eps * self.values[:, :1]
        root = torch.where(negligible, torch.ones_like(values), values.sqrt())
        if not self.left_is_basis:
            root = 1.0 / root
        return self.left[:, :, :rank] * root[:, None, :], self.right[:, :rank] / root[:, :, None]


@dataclass(frozen=True)
class Basis:
    """What is slow of an SVD of matrices (batch, rows, columns): half of it, in float64.

    Attributes:
        vectors: singular vectors of the shorter side, (batch, n, n), n = min(rows, columns).
        values: singular values, (batch, n), largest first.
    """

    vectors: Tensor
    values: Tensor

    @classmethod
    def of(cls, matrices: Tensor) -> Self:
        """Decompose matrices by the eigenvectors of the smaller Gram matrix.

        No copy of the matrices is made. The values are the norms of the projected matrices, as for
        :func:`svd`; where they are not small, the roots of the eigenvalues are the same up to 1e-12
        of them.

        Raises:
            PlanError: the matrices hold NaN or infinity.
        """
        wide = _wide(_finite(matrices))
        batch, rows, _ = wide.shape
        gram = torch.zeros(batch, rows, rows, dtype=torch.float64, device=wide.device)
        for part in _parts(wide):
            add_square(gram, part)
        try:
            squares, vectors = torch.linalg.eigh(gram, UPLO="U")
        except RuntimeError:  # torch.linalg.LinAlgError, which has no type
            vectors = _robust_basis(wide.to(torch.float64))
            squares = torch.zeros_like(vectors[:, 0])
        del gram
        count = int((squares <= _SMALL * squares[:, -1:]).sum(1).max())
        small = vectors[:, :, :count].mT
        squares[:, :count] = 0
        for part in _parts(wide):
            squares[:, :count] += (small @ part).square().sum(2)
        values, order = squares.sqrt().sort(dim=1, descending=True)
        return cls(torch.take_along_dim(vectors, order[:, None, :], dim=2), values)

    def truncated(self, matrices: Tensor, rank: int) -> Svd:
        """Return the leading part of the SVD of the same matrices, of ``rank`` values."""
        matrices, vectors = matrices.detach(), self.vectors[:, :, :rank]
        wide = _wide(matrices)
        projected = torch.cat([vectors.mT @ part for part in _parts(wide)], dim=2)
        return _assembled(vectors, projected, projected.norm(dim=2), wide is not matrices)


def relative_error(values: NDArray[np.float64], rank: int) -> float:
    """Return the Frobenius error of keeping ``rank`` singular values, relative to the matrices.

    Args:
        values: singular values (batch, n), largest first.
        rank: how many of each matrix are kept.
    """
    total = float(np.square(values).sum())
    dropped = float(np.square(values[:, rank:]).sum())
    return (dropped / total) ** 0.5 if total else 0.0


def svd(matrices: Tensor) -> Svd:
    """Decompose matrices (batch, rows, columns) by the eigenvectors of the smaller Gram matrix.

    Always in float64, where this is as accurate as a float32 SVD needs and many times faster
    than a full one. Taking the singular values as the norms of the projected matrix, not as the
    roots of the eigenvalues, keeps the small ones accurate and makes them the exact errors of
    the truncations that are really made. Where the eigensolver does not converge, LAPACK's
    QR-based SVD takes over, which always has.

    Raises:
        PlanError: the matrices hold NaN or infinity.
    """
    matrices = _finite(matrices).to(torch.float64)
    wide = _wide(matrices)
    try:
        _, basis = torch.linalg.eigh(wide @ wide.mT)
    except RuntimeError:  # torch.linalg.LinAlgError, which has no type
        basis = _robust_basis(wide)
    projected = basis.mT @ wide
    values, order = projected.norm(dim=2).sort(dim=1, descending=True)
    basis = torch.take_along_dim(basis, order[:, None, :], dim=2)
    projected = torch.take_along_dim(projected, order[:, :, None], dim=1)
    return _assembled(basis, projected, values, wide is not matrices)


def _finite(matrices: Tensor) -> Tensor:
    if not torch.isfinite(matrices).all():
        raise PlanError("a weight holds NaN or infinity: it has no singular values")
    return matrices.detach()


def _wide(matrices: Tensor) -> Tensor:
    """Return matrices with no more rows than columns: the same, or transposed."""
    return matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices


def _parts(wide: Tensor) -> Iterator[Tensor]:
    """Yield some columns of matrices after others, in float64."""
    batch, rows, _ = wide.shape
    for part in torch.split(wide, max(1, _PART_ELEMENTS // (batch * rows)), dim=2):
        yield part.to(torch.float64)


def _assembled(basis: Tensor, projected: Tensor, values: Tensor, transposed: bool) -> Svd:
    if transposed:
        return Svd(projected.mT, basis.mT, values, left_is_basis=False)
    return Svd(basis, projected, values, left_is_basis=True)


def _robust_basis(wide: Tensor) -> Tensor:
    """Return left singular vectors (batch, rows, rows) by LAPACK's gesvd, matrix by matrix."""
    from scipy.linalg import svd as lapack_svd

    return torch.stack(
        [
            torch.from_numpy(
                lapack_svd(matrix.numpy(), full_matrices=False, lapack_driver="gesvd")[0]
            )
            for matrix in wide.cpu()
        ]
    ).to(wide.device)
