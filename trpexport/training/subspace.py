"""Leading singular values and vectors of a large matrix that was low-rank a moment ago."""

from __future__ import annotations

import torch
from torch import Tensor

from trpexport.lowrank.spectrum import Svd

# What is vouched for is this error of the truncation, relative to the matrix ...
TOLERANCE = 3e-5
# ... and no rank that hangs on less than this share of the energy, which float32 can't see.
NEAR_TIE = 2e-6
ITERATIONS = 4


def leading(matrices: Tensor, previous: Tensor, rank: int, energy: float) -> Svd | None:
    """Return the leading part of an SVD, as far as ``energy`` reaches, by subspace iteration.

    Block power iteration with Rayleigh-Ritz steps (Halko, Martinsson and Tropp, arXiv 0909.4061;
    Saad, "Numerical Methods for Large Eigenvalue Problems", chapter 5), begun where the last
    projection ended: after a few optimizer steps the leading subspace has hardly turned. Some
    random directions are added, which find what has grown outside of it.

    Args:
        matrices: (batch, rows, columns), in the type to multiply in.
        previous: U V^T of the last projection, of the same shape.
        rank: its rank.
        energy: the share of the sum of squares that the part sought for holds.

    Returns:
        None where this would take too long or is not sure: the rank has grown, hangs on a
        rounding error, or belongs to a spectrum without a gap.
    """
    transposed = matrices.shape[1] > matrices.shape[2]
    wide, before = (matrices.mT, previous.mT) if transposed else (matrices, previous)
    spare = max(16, rank // 8)
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(wide.shape[1], rank, generator=generator, dtype=wide.dtype)
    more = torch.randn(wide.shape[2], spare, generator=generator, dtype=wide.dtype)
    begin = before.mT @ first.to(wide.device)
    outside = more.to(wide.device).expand(len(wide), -1, -1)
    block = wide @ torch.cat([begin, outside], dim=2)
    total = wide.square().sum(dim=(1, 2), dtype=torch.float64)
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(block).Q
        projected = basis.mT @ wide
        theta, turn = torch.linalg.eigh((projected @ projected.mT).to(torch.float64))
        theta, turn = theta.flip(1).clamp_min(0), turn.flip(2).to(wide.dtype)
        basis, projected = basis @ turn, turn.mT @ projected
        block = wide @ projected.mT
        shares = theta.cumsum(dim=1) / total[:, None]
        place = int((shares.amin(dim=0) < energy).sum()) + 1
        if place > rank + spare // 4 or (shares - energy).abs().min() < NEAR_TIE:
            return None
        residual = (block - basis * theta.to(wide.dtype)[:, None, :])[:, :, :place].norm(dim=1)
        gap = theta[:, :place] - theta[:, rank + spare // 2, None]
        turned = (residual / gap).to(torch.float64).square()
        error = (turned * theta[:, :place]).sum(dim=1) / total
        # A Ritz value is too small by no more than this: does the rank below still not reach?
        missing = (turned * gap).sum(dim=1) / total
        reached = place > 1 and bool((shares.amin(dim=0)[place - 2] + missing >= energy).any())
        if not reached and bool((gap > 0).all()) and bool((error < TOLERANCE**2).all()):
            values = theta.sqrt()
            if transposed:
                return Svd(projected.mT, basis.mT, values, left_is_basis=False)
            return Svd(basis, projected, values, left_is_basis=True)
    return None
