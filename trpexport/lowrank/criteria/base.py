"""What a rank criterion is, and the part that those with one threshold share."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from trpexport.errors import TrpexportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Criterion(ABC):
    """Chooses how many singular values of a matrix to keep.

    ``str()`` gives the text that :func:`~trpexport.lowrank.criteria.parse_criterion` reads.
    """

    name: ClassVar[str]
    # Settings worth showing to somebody who does not know yet which one to type.
    suggestions: ClassVar[tuple[float | None, ...]] = (None,)

    @classmethod
    @abstractmethod
    def parse(cls, value: str | None) -> Self:
        """Build the criterion from the text after the colon, None where there is no colon.

        Raises:
            TrpexportError: the value is missing, not wanted, no number, or out of range.
        """

    @abstractmethod
    def rank(self, singular_values: NDArray[np.float64], shape: Sequence[int] | None) -> int:
        """Return how many of a matrix's singular values to keep, at least 1.

        Args:
            singular_values: all min(rows, columns) of them, largest first.
            shape: (rows, columns) of the matrix; None where the values come of several matrices
                that are cut together, and say what each rank adds.

        Raises:
            PlanError: the criterion needs one matrix, and there are several.
        """


@dataclass(frozen=True)
class Threshold(Criterion):
    """A criterion with one number, from ``low`` to ``high``."""

    value: float
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0
    low_included: ClassVar[bool] = False

    @classmethod
    def parse(cls, value: str | None) -> Self:
        """Build the criterion from a number."""
        example = f"{cls.name}:{cls.suggestions[0]:g}"
        if not value:
            raise TrpexportError(f"the criterion {cls.name} needs a number, as in {example}")
        try:
            number = float(value)
        except ValueError:
            raise TrpexportError(
                f"the criterion {cls.name}:{value} is not a number, write it like {example}"
            ) from None
        above = number >= cls.low if cls.low_included else number > cls.low
        if not (above and number <= cls.high and math.isfinite(number)):
            bounds = f"{'at least' if cls.low_included else 'above'} {cls.low:g}"
            if math.isfinite(cls.high):
                bounds += f" and at most {cls.high:g}"
            raise TrpexportError(
                f"the criterion {cls.name}:{value} is out of range: it must be {bounds}, "
                f"as in {example}"
            )
        return cls(number)

    def __str__(self) -> str:
        return f"{self.name}:{self.value:g}"
