"""Which layers may be rewritten under a scheme and fitted to images, and which ranks are tried."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trpexport.choose.alignment import Alignment
from trpexport.choose.base import Price
from trpexport.choose.selection import Selection
from trpexport.lowrank.fit.base import with_bias
from trpexport.lowrank.fit.narrowing import is_fitted
from trpexport.lowrank.schemes import SCHEMES, Scheme
from trpexport.networks.base import Network
from trpexport.ops import Layer

# Ranks that are tried of each layer and scheme.
_MAX_RANKS = 12


def candidate_ranks(scheme: Scheme, layer: Layer, alignment: Alignment) -> list[int]:
    """Return the ranks to try: spread over the multiples that save MACs, the largest included.

    Where the least multiple saves none, those of its half, its quarter, ..., as ranks are aligned;
    none where that multiple was asked for.
    """
    largest, multiple = scheme.break_even_rank(layer.op, layer.calls), alignment.multiple
    while multiple > max(1, largest) and not alignment.is_asked:
        multiple //= 2
    ranks = range(multiple, largest + 1, multiple)
    if len(ranks) <= _MAX_RANKS:
        return [*ranks]
    # Closer together at small ranks, where the error falls fastest.
    places = np.geomspace(1, len(ranks), _MAX_RANKS).round().astype(int)
    spread = np.linspace(1, len(ranks), _MAX_RANKS).round().astype(int)
    return [ranks[place - 1] for place in np.unique((places + spread) // 2)]


def least(
    network: Network,
    price: Price,
    schemes: Sequence[str],
    selection: Selection,
    alignment: Alignment,
) -> float:
    """Return the smallest share of a resource that candidate ranks leave, whatever is lost.

    Args:
        network: the network.
        price: of the resource.
        schemes: names of those that may be taken.
        selection: the layers that may be rewritten.
        alignment: what ranks are multiples of.
    """
    whole = price.whole(network)
    free = free_layers(network, schemes, selection)
    saved = 0.0
    for layer in network.layers:
        dense = price.of(layer, (layer.op,))
        lowest = [
            price.of(layer, with_bias(SCHEMES[name].factor_ops(layer.op, rank)))
            for name, names in free.items()
            if layer.name in names
            for rank in candidate_ranks(SCHEMES[name], layer, alignment)[:1]
        ]
        saved += max(0.0, dense - min(lowest, default=dense))
    return 1 - saved / whole if whole else 1.0


def free_layers(
    network: Network, schemes: Sequence[str], selection: Selection
) -> dict[str, frozenset[str]]:
    """Return the names of the layers that each scheme may rewrite, and that can be fitted."""
    shared = {layer.shares for layer in network.layers if layer.shares}
    fitted = {
        layer.name
        for layer in network.layers
        if layer.shares is None and layer.name not in shared and is_fitted(layer.op)
    }
    reasons = {name: selection.reasons_to_stay(network, SCHEMES[name]) for name in schemes}
    return {
        name: frozenset(layer for layer in fitted if of[layer] is None)
        for name, of in reasons.items()
    }
