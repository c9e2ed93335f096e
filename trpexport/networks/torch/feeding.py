"""Which layers' outputs leave a network without passing another layer: its heads."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from trpexport.networks.torch.counting import is_product, place
from trpexport.networks.torch.modules import LAYERS
from trpexport.networks.torch.operators import OperatorMode
from trpexport.networks.torch.running import tensor_leaves

_MATRIX = 2
_NONE: frozenset[int] = frozenset()


class Feeding(OperatorMode):
    """Follows from operator to operator which weights each tensor was last multiplied with.

    Args:
        model: the network; every parameter of it with two dimensions or more is a weight.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        weights = (place(p) for p in model.parameters() if p.ndim >= _MATRIX)
        # By place in memory: what is a weight, or made from one alone; what comes from weights.
        self._weights = {weight: frozenset({weight}) for weight in weights}
        self._sources: dict[int, frozenset[int]] = {}
        self._followed: set[int] = set()
        self._parameters = frozenset(self._weights)

    def run(self, operator: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Run an operator, and note what its output comes from."""
        places = [place(tensor) for tensor in tensor_leaves((args, keywords))]
        weights = _NONE.union(*(self._weights.get(one, _NONE) for one in places))
        sources = _NONE.union(*(self._sources.get(one, _NONE) for one in places))
        output = operator(*args, **keywords)
        is_made_of_weights = bool(weights) and not sources and not is_product(operator)
        if weights and is_product(operator):
            self._followed |= sources - weights
            sources = weights
        for tensor in tensor_leaves(output):
            # Memory is used again: what stood there before is forgotten.
            where = place(tensor)
            if where in self._parameters:
                continue
            self._weights.pop(where, None)
            self._sources.pop(where, None)
            if is_made_of_weights:
                self._weights[where] = weights
            else:
                self._sources[where] = sources
        return output

    def heads(self, outputs: Any) -> Collection[int]:
        """Return the places of the weights that ``outputs`` come from, and no other weight."""
        reached: frozenset[int] = _NONE.union(
            *(self._sources.get(place(tensor), _NONE) for tensor in tensor_leaves(outputs))
        )
        return reached - self._followed


def is_head(module: nn.Module, heads: Collection[int]) -> bool:
    """Whether a layer's weight is among the places that :meth:`Feeding.heads` gave."""
    weight = getattr(module, "weight", None)
    return isinstance(module, LAYERS) and isinstance(weight, Tensor) and place(weight) in heads
