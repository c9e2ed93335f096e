"""How little of a resource can remain of a network at all, and what stands in the way of less."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from trpexport.choose.alignment import UNALIGNED, AlignedSelection
from trpexport.choose.base import Price
from trpexport.choose.candidates import least
from trpexport.choose.knapsack import ROUNDING
from trpexport.errors import NothingToDoError
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.ops import Layer

# What changes the best by less is no obstacle, and smaller shares of a network are not named.
_MIN_GAIN = 0.002
_MIN_SHARE = 0.01


def names_of(scheme: str) -> list[str]:
    """Return the schemes that a name stands for: all of them for ``auto``."""
    return list(SCHEMES) if scheme == "auto" else [scheme]


def check_reach(
    network: Network,
    price: Price,
    limit: float,
    scheme: str,
    selection: AlignedSelection,
) -> None:
    """Refuse a share of a resource that no ranks can meet, and say what stands in the way.

    Args:
        network: the network.
        price: of the resource.
        limit: what may remain.
        scheme: name of the scheme; ``auto`` for all of them.
        selection: the layers that may be rewritten, and what their ranks are multiples of.

    Raises:
        NothingToDoError: not even the lowest ranks meet it; the message has the best, with and
            without each obstacle.
    """
    schemes = names_of(scheme)

    def reached(others: Sequence[str], selected: AlignedSelection) -> float:
        return least(network, price, others, selected, selected.alignment)

    best = reached(schemes, selection)
    if best <= limit * (1 + ROUNDING):
        return
    obstacles = []
    for parameter, text, others, selected in _ways(network, schemes, selection):
        found = reached(others, selected)
        if found < best - _MIN_GAIN:
            obstacles.append((parameter, f"{found:.3f} {text}"))
    parts = [
        f"the target of {limit:g} of the {price.resource} can't be met: the best is {best:.3f}, "
        "every layer at its lowest rank"
    ]
    if obstacles:
        parts.append(f"it would be {', '.join(text for _, text in obstacles)}")
    if shares := _out_of_reach(network, price, schemes):
        parts.append(f"out of reach are {shares}")
    parameters = dict.fromkeys(parameter for parameter, _ in obstacles)
    raise NothingToDoError("; ".join(parts), parameters=parameters)


def _ways(
    network: Network, schemes: Sequence[str], selection: AlignedSelection
) -> Iterator[tuple[str, str, Sequence[str], AlignedSelection]]:
    """Yield what else could be asked for, one thing at a time.

    The parameter that would say it, the same in words, and the schemes and layers then.
    """

    def changed(**how: Any) -> tuple[Sequence[str], AlignedSelection]:
        return schemes, replace(selection, **how)

    if selection.exclude:
        yield "exclude", "with nothing excluded", *changed(exclude=())
    if selection.include:
        yield "include", "with all layers", *changed(include=())
    else:
        names = [layer.name for layer in network.layers]
        for text, left in (("the heads", {network.stem}), ("the stem", {*network.heads})):
            included = tuple(glob.escape(name) for name in names if name not in left)
            yield "include", f"with {text} included", *changed(include=included)
    if selection.stride_1_only:
        yield "stride_1_only", "with strided layers", *changed(stride_1_only=False)
    multiple = selection.alignment.multiple
    if multiple > 1:
        text = f"with ranks that are no multiple of {multiple}"
        yield "rank_multiple", text, *changed(rank_multiple=UNALIGNED)
    if len(schemes) < len(SCHEMES):
        yield "scheme", "with any scheme", list(SCHEMES), selection


def _out_of_reach(network: Network, price: Price, schemes: Sequence[str]) -> str:
    """Say which shares of a resource are in layers that no rank makes cheaper, by their kind."""
    whole = price.whole(network)
    rest, found = whole, dict[str, float]()
    for layer in network.layers:
        cost = price.of(layer, (layer.op,))
        rest -= cost
        if kind := _kind(layer, schemes):
            found[kind] = found.get(kind, 0.0) + cost
    found["what is no layer"] = rest
    return ", ".join(
        f"{cost / whole:.1%} in {kind}" for kind, cost in found.items() if cost > _MIN_SHARE * whole
    )


def _kind(layer: Layer, schemes: Sequence[str]) -> str | None:
    """Return what kind of layer one is that no rank of the schemes makes cheaper, or None."""
    if layer.fixed:
        return "layers that can't be rewritten"
    if any(
        SCHEMES[name].unsupported_reason(layer.op) is None
        and SCHEMES[name].break_even_rank(layer.op, layer.calls)
        for name in schemes
    ):
        return None
    if layer.op.groups > 1 and layer.op.groups == layer.op.in_channels:
        return "depthwise convolutions"
    if layer.op.groups > 1:
        return "grouped convolutions"
    return "layers that no rank makes cheaper"
