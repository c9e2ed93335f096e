"""Keep the singular values of at least a share of the largest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trpexport.lowrank.criteria import CRITERIA
from trpexport.lowrank.criteria.base import Threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Relative(Threshold):
    """Keep every singular value >= ``value`` times the largest: independent of the scale."""

    name = "relative"
    suggestions = (0.01, 0.1, 0.2)
    low_included = True

    def rank(self, singular_values: NDArray[np.float64], shape: Sequence[int] | None) -> int:
        """Return the number of singular values of at least ``value`` x the largest."""
        if singular_values[0] == 0.0:
            return 1
        return max(1, int((singular_values >= self.value * singular_values[0]).sum()))


CRITERIA.register(Relative.name, Relative)
