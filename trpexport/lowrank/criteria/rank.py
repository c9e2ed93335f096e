"""Keep a given number of singular values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from trpexport.errors import TrpexportError
from trpexport.lowrank.criteria import CRITERIA
from trpexport.lowrank.criteria.base import Criterion

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Rank(Criterion):
    """Keep ``count`` singular values of every matrix.

    A layer whose full rank is smaller is left as it is by the planner, which sees a rank above
    the full one.
    """

    count: int
    name = "rank"
    suggestions = (16, 8)

    @classmethod
    def parse(cls, value: str | None) -> Self:
        """Build the criterion from a whole number."""
        if value is None or not value.isascii() or not value.isdigit() or int(value) < 1:
            raise TrpexportError(
                f"the criterion rank:{value or ''} needs a whole number from 1 up, as in rank:16"
            )
        return cls(int(value))

    def rank(self, singular_values: NDArray[np.float64], shape: Sequence[int] | None) -> int:
        """Return ``count``, whatever the spectrum."""
        return self.count

    def __str__(self) -> str:
        return f"{self.name}:{self.count}"


CRITERIA.register(Rank.name, Rank)
