"""Keep as many singular values as hold a share of the energy."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from trpexport.lowrank.criteria import CRITERIA
from trpexport.lowrank.criteria.base import Threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Energy(Threshold):
    """Keep the fewest singular values with at least ``value`` of the sum of squares.

    The criterion of the TRP step (Xu et al., arXiv 2004.14566, equation 6 with ``value`` = 1 - e).
    """

    name = "energy"
    suggestions = (0.95, 0.9, 0.8)
    power: ClassVar[int] = 2

    def rank(self, singular_values: NDArray[np.float64], shape: Sequence[int] | None) -> int:
        """Return the smallest rank that holds ``value`` of the energy; 1 for a zero matrix."""
        energy = np.cumsum(singular_values**self.power)
        if energy[-1] == 0.0:
            return 1
        # Rounding may leave the share of all of them a hair below 1.
        enough = np.flatnonzero(energy >= self.value * energy[-1])
        return int(enough[0]) + 1


class Energy1(Energy):
    """Keep the fewest singular values with at least ``value`` of their plain sum."""

    name = "energy1"
    power = 1


CRITERIA.register(Energy.name, Energy)
CRITERIA.register(Energy1.name, Energy1)
