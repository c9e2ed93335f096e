"""Singular values and low-rank factors of a batch of matrices, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trpexport.errors import PlanError


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
    matrices = matrices.detach().to(torch.float64)
    if not torch.isfinite(matrices).all():
        raise PlanError("a weight holds NaN or infinity: it has no singular values")
    transposed = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if transposed else matrices
    try:
        _, basis = torch.linalg.eigh(wide @ wide.mT)
    except RuntimeError:  # torch.linalg.LinAlgError, which has no type
        basis = _robust_basis(wide)
    projected = basis.mT @ wide
    values, order = projected.norm(dim=2).sort(dim=1, descending=True)
    basis = torch.take_along_dim(basis, order[:, None, :], dim=2)
    projected = torch.take_along_dim(projected, order[:, :, None], dim=1)
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
