"""What tests of fits share: the moments of pixels that are given."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor

from trpexport.lowrank.fit.moments import Moments, MomentSums
from trpexport.lowrank.fit.patches import Pixels


def every_pixel(y: Tensor, step: int = 1) -> Pixels:
    """Return every ``step``-th pixel of outputs (batch, channels, *size)."""
    index = torch.arange(0, len(y) * prod(y.shape[2:]), step)
    return Pixels(index // prod(y.shape[2:]), index % prod(y.shape[2:]))


def moments_of(p: Tensor, y: Tensor, pieces: int = 1) -> Moments:
    """Return the moments of patches (groups, pixels, K) and targets (groups, pixels, O)."""
    sums = MomentSums(len(p), p.shape[2], y.shape[2], p.device)
    for ps, ys in zip(p.chunk(pieces, 1), y.chunk(pieces, 1), strict=True):
        sums.add(ps, ys)
    return sums.moments()
