"""Random numbers that depend on the place in the run alone.

Nothing random carries over from step to step, so a run that is resumed, or shared out among more
workers, draws the same numbers as one that ran through.
"""

from __future__ import annotations

import numpy as np
import torch


def seed_of(*place: int) -> int:
    """Return a seed for a place in a run, as in (seed, epoch, step)."""
    high, low = np.random.SeedSequence(place).generate_state(2)
    return int(high) << 31 | int(low) >> 1


def generator_at(*place: int) -> torch.Generator:
    """Return a generator of random numbers for a place in a run."""
    return torch.Generator().manual_seed(seed_of(*place))


def numpy_generator_at(*place: int) -> np.random.Generator:
    """Return NumPy's generator of random numbers for a place in a run: needs no torch to draw."""
    return np.random.default_rng(place)
