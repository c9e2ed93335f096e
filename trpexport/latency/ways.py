"""Ways to write a layer, as far as its time goes: a scheme and a rank, and no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trpexport.lowrank.fit.base import with_bias
from trpexport.lowrank.schemes import SCHEMES
from trpexport.ops import LinearOp

Ways = Mapping[str, "Way"]
"""A way for each layer that is rewritten, by name."""


@dataclass(frozen=True, order=True)
class Way:
    """A chain in the place of a layer.

    Attributes:
        scheme: name of the scheme.
        rank: the rank.
    """

    scheme: str
    rank: int

    def ops(self, op: LinearOp) -> tuple[LinearOp, ...]:
        """Return the operators of the chain; the last has a bias, as calibrated ones do."""
        return with_bias(SCHEMES[self.scheme].factor_ops(op, self.rank))

    def __str__(self) -> str:
        return f"{self.scheme} {self.rank}"
