"""Keep the singular values of at least a given size."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trpexport.lowrank.criteria import CRITERIA
from trpexport.lowrank.criteria.base import Threshold

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Value(Threshold):
    """Keep every singular value >= ``value``: the paper's choice for a TRP-trained network.

    Xu et al., arXiv 2004.14566, section 4: after training with projection, what is left of the
    spectrum beyond the rank is numerical noise, and any small threshold separates the two.
    """

    name = "value"
    suggestions = (0.05, 0.5, 1.0)
    high = math.inf
    low_included = True

    def rank(self, singular_values: NDArray[np.float64], shape: Sequence[int] | None) -> int:
        """Return the number of singular values of at least ``value``, at least 1."""
        return max(1, int((singular_values >= self.value).sum()))


CRITERIA.register(Value.name, Value)
