"""Leading singular values and vectors of large matrices, in the type that they are multiplied in.

Both ways give up where they can't vouch for the rank and the truncation that an exact SVD gives.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trpexport.lowrank.spectrum import Svd

# What is vouched for is this error of the truncation, relative to the matrix ...
TOLERANCE = 3e-5
# ... and no rank that hangs on less than this share of the energy, which float32 can't see.
NEAR_TIE = 2e-6
ITERATIONS = 4
# That many probes see less than a third of an error once in a million times.
PROBES = 16


def energy_of(matrices: Tensor) -> Tensor:
    """Return the sum of squares of each of (batch, rows, columns), in float64."""
    # Row by row in float32 is exact enough, and several times faster than float64 from the start.
    dtype = torch.promote_types(matrices.dtype, torch.float32)
    rows: Tensor = torch.linalg.vector_norm(matrices, dim=2, dtype=dtype).to(torch.float64)
    return rows.square().sum(dim=1)


def leading(
    matrices: Tensor, previous: Tensor, rank: int, energy: float | None, multiple: int = 1
) -> Svd | None:
    """Return the leading part of an SVD by subspace iteration.

    Block power iteration with Rayleigh-Ritz steps (Halko, Martinsson and Tropp, arXiv 0909.4061;
    Saad, "Numerical Methods for Large Eigenvalue Problems", chapter 5), begun where the last
    projection ended: after a few optimizer steps the leading subspace has hardly turned, and one
    iteration is enough. Some random directions are added, which find what has grown outside of it.

    Args:
        matrices: (batch, rows, columns), in the type to multiply in.
        previous: U V^T of the last projection, of the same shape.
        rank: its rank.
        energy: the share of the sum of squares that the part sought for holds; None for the
            part of the last projection's rank.
        multiple: what the rank of that part is rounded up to a multiple of.

    Returns:
        None where this would take too long or is not sure: the rank has grown, hangs on a
        rounding error, or belongs to a spectrum without a gap.
    """
    transposed = matrices.shape[1] > matrices.shape[2]
    wide, before = (matrices.mT, previous.mT) if transposed else (matrices, previous)
    spare = max(24, rank // 8)
    generator = torch.Generator().manual_seed(0)

    def random(size: int, count: int) -> Tensor:
        found = torch.randn(size, count, generator=generator, dtype=wide.dtype)
        return found.to(wide.device).expand(len(wide), -1, -1)

    total = energy_of(matrices)
    probes = random(wide.shape[1], PROBES)
    begin = [_combined(before, rank, generator), random(wide.shape[2], spare)]
    block = wide @ torch.cat(begin, dim=2)
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(block).Q
        projected = basis.mT @ wide
        theta, turn = torch.linalg.eigh((projected @ projected.mT).to(torch.float64))
        theta, turn = theta.flip(1).clamp_min(0), turn.flip(2).to(wide.dtype)
        place = asked = rank
        shares = theta.cumsum(dim=1) / total[:, None]
        if energy is not None:
            asked = int((shares.amin(dim=0) < energy).sum()) + 1
            place = _rounded(asked, multiple, min(wide.shape[1:]))
            if place > rank + spare // 4 or (shares - energy).abs().min() < NEAR_TIE:
                return None
        kept = turn[:, :, :place].mT @ projected
        # What the matrix would add to the basis in the next iteration, seen by the probes.
        outside = probes - basis @ (basis.mT @ probes)
        residual = (outside.mT @ wide @ kept.mT).norm(dim=1) / PROBES**0.5
        beyond = theta[:, rank + spare // 2, None]
        if _is_sure(
            theta, residual, place=place, asked=asked, beyond=beyond, total=total, energy=energy
        ):
            left, values = basis @ turn[:, :, :place], theta[:, :place].sqrt()
            return _svd(left, kept, values, transposed)
        block = wide @ (turn.mT @ projected).mT
    return None


def _is_sure(
    theta: Tensor,
    residual: Tensor,
    *,
    place: int,
    asked: int,
    beyond: Tensor,
    total: Tensor,
    energy: float | None,
) -> bool:
    """Say whether Ritz values and vectors are near enough to the singular ones.

    Args:
        theta: squares of all Ritz values, (batch, n), largest first.
        residual: of the kept Ritz vectors, (batch, place).
        place: how many are kept.
        asked: how many hold the energy.
        beyond: what the squares outside of the block are at most, (batch, 1).
        total: sum of squares of each matrix, (batch,).
        energy: the share to reach at ``asked`` and not before; None for no such condition.
    """
    kept = theta[:, :place]
    gap = kept - beyond
    if not (gap > 0).all():
        return False
    turned = (residual / gap).to(torch.float64).square()
    error = (turned * kept).sum(dim=1) / total
    error += _mixing(theta, place, theta.mean(dim=1), residual.dtype).square()
    if not (error < TOLERANCE**2).all():
        return False
    if energy is None or asked == 1:
        return True
    # A Ritz value is too small by no more than this: does the rank below still not reach?
    missing = (turned * gap)[:, :asked].sum(dim=1) / total
    below = (kept[:, : asked - 1].sum(dim=1) / total).amin()
    return bool((below + missing < energy).all())


def of_a_whole(matrices: Tensor, energy: float, multiple: int = 1) -> Svd | None:
    """Return the leading part of an SVD by the eigenvectors of the smaller Gram matrix.

    Args:
        matrices: (batch, rows, columns), in the type to multiply in.
        energy: the share of the sum of squares that the part holds.
        multiple: what the rank of the part is rounded up to a multiple of.

    Returns:
        None where the rank or the truncation hangs on a rounding error: where singular values are
        nearly equal, or are small, on both sides of the cut. Or where the eigensolver does not
        converge.
    """
    transposed = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if transposed else matrices
    try:
        theta, basis = torch.linalg.eigh(wide @ wide.mT)
    except RuntimeError:  # torch.linalg.LinAlgError, which has no type
        return None
    theta = theta.flip(1).to(torch.float64)
    shares = theta.cumsum(dim=1) / theta.sum(dim=1, keepdim=True)
    asked = int((shares.amin(dim=0) < energy).sum()) + 1
    place = _rounded(asked, multiple, theta.shape[1])
    near = not (shares - energy).abs().min() >= NEAR_TIE  # also where a zero matrix gives NaN
    if near or not (_mixing(theta, place, theta[:, 0], wide.dtype) < TOLERANCE).all():
        return None
    basis = basis.flip(2)[:, :, :place]
    kept = basis.mT @ wide
    return _svd(basis, kept, kept.norm(dim=2).to(torch.float64), transposed)


def _rounded(rank: int, multiple: int, full: int) -> int:
    return min(-(-rank // multiple) * multiple, full)


def _mixing(theta: Tensor, place: int, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """Estimate the error that rounding makes in a truncation, relative to the matrix: (batch,).

    An error e of each element of the Gram matrix turns the vectors i and j by e / (theta_i -
    theta_j); what moves is of size sqrt(theta_i). Real errors were 0.2 to 4 times the estimate.

    Args:
        theta: eigenvalues (batch, n), largest first.
        place: how many are kept.
        scale: what elements of the Gram matrix are rounded relative to, (batch,).
        dtype: of the Gram matrix.
    """
    kept, lost = theta[:, :place, None], theta[:, None, place:]
    moved = (kept / (kept - lost).square()).sum(dim=(1, 2)) / theta.sum(dim=1)
    return torch.finfo(dtype).eps * scale * moved.sqrt()


def _svd(basis: Tensor, projected: Tensor, values: Tensor, transposed: bool) -> Svd:
    if transposed:
        return Svd(projected.mT, basis.mT, values, left_is_basis=False)
    return Svd(basis, projected, values, left_is_basis=True)


def _combined(before: Tensor, rank: int, generator: torch.Generator) -> Tensor:
    """Return what spans the row space of U V^T: (batch, columns, rank).

    Each vector is a sum of every ``rank``-th row with random signs, which takes no product of
    matrices (Clarkson and Woodruff, arXiv 1207.6365, section 2).
    """
    batch, rows, columns = before.shape
    rows -= rows % rank
    signs = 2 * torch.randint(0, 2, (rows, 1), generator=generator) - 1
    signed = before[:, :rows] * signs.to(before)
    return signed.reshape(batch, -1, rank, columns).sum(dim=1).mT
