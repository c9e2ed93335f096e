"""Keep a fixed share of the full rank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trpexport.lowrank.criteria import CRITERIA
from trpexport.lowrank.criteria.base import Threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Fraction(Threshold):
    """Keep ``value`` of the full rank, rounded down, at least 1."""

    name = "fraction"
    suggestions = (0.5, 0.33, 0.25)

    def rank(self, singular_values: NDArray[np.float64], shape: Sequence[int] | None) -> int:
        """Return floor(``value`` x full rank), at least 1."""
        # 0.29 x 100 is 28.999... in binary; the slack keeps it at 29.
        return max(1, math.floor(self.value * len(singular_values) + 1e-9))


CRITERIA.register(Fraction.name, Fraction)
