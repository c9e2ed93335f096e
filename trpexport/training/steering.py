"""Steering by a goal: the ranks at which the network costs what it shall cost."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from trpexport.choose.alignment import aligned
from trpexport.cost import macs
from trpexport.errors import TrainingError
from trpexport.lowrank.criteria.value import Value
from trpexport.lowrank.schemes import MatrixScheme
from trpexport.networks.torch.trace import Trace
from trpexport.ops import Layer, LinearOp
from trpexport.training.projection import Spectrum

# The threshold at which a TRP-trained network is decomposed (arXiv 2004.14566, section 4).
VALUE = Value(0.05)


@dataclass(frozen=True)
class LayerPrice:
    """MACs for one image of a convolution, as it is and rewritten.

    Attributes:
        dense: as it is.
        per_rank: of its factors, for each unit of rank: their cost is proportional to it.
    """

    dense: int
    per_rank: int

    def at(self, rank: int) -> int:
        """Return the MACs at ``rank``: the planner keeps the convolution where that is cheaper."""
        return min(self.dense, rank * self.per_rank)

    @property
    def break_even_rank(self) -> int:
        """The largest rank that is cheaper than the layer as it is; 0 if none."""
        return (self.dense - 1) // self.per_rank


@dataclass(frozen=True)
class Prices:
    """MACs for one image of a network under one scheme.

    Attributes:
        layers: the convolutions that may be rewritten, by name.
        fixed: all the rest.
        multiple: ranks are rounded up to multiples of it, as the planner does.
    """

    layers: Mapping[str, LayerPrice]
    fixed: int
    multiple: int = 1

    def aligned(self, name: str, rank: int) -> int:
        """Return the rank to which the planner rounds that of a layer up."""
        return aligned(rank, self.multiple, self.layers[name].break_even_rank)

    def step(self, name: str) -> int:
        """Return the distance of the ranks of a layer: the multiple, or a part that is cheaper."""
        return self.aligned(name, 1)

    @property
    def least(self) -> float:
        """MACs after / before with the lowest rank in every layer."""
        return self.ratio({name: self.step(name) for name in self.layers})

    def ratio(self, ranks: Mapping[str, int]) -> float:
        """Return MACs after / before a decomposition at ``ranks``, as the planner's guard has it.

        Args:
            ranks: one a layer.
        """
        before = self.fixed + sum(price.dense for price in self.layers.values())
        after = self.fixed + sum(self.layers[name].at(rank) for name, rank in ranks.items())
        return after / before

    def stays_dense(self, name: str, rank: int) -> bool:
        """Say whether the guard keeps a layer as it is at ``rank``."""
        price = self.layers[name]
        return rank * price.per_rank >= price.dense


def prices(
    traced: Trace, scheme: MatrixScheme, chosen: Collection[str], multiple: int = 1
) -> Prices:
    """Return what the layers of a network cost.

    Args:
        traced: the network, run on an input.
        scheme: what would rewrite it.
        chosen: names of the layers that may be rewritten.
        multiple: ranks are rounded up to multiples of it.
    """

    def cost(layer: Layer, ops: Sequence[LinearOp]) -> int:
        return macs(ops, layer.calls)

    return Prices(
        {
            layer.name: LayerPrice(
                cost(layer, (layer.op,)), cost(layer, scheme.factor_ops(layer.op, 1))
            )
            for layer in traced.layers
            if layer.name in chosen
        },
        traced.other_macs + sum(cost(x, (x.op,)) for x in traced.layers if x.name not in chosen),
        multiple,
    )


@dataclass(frozen=True)
class Schedule:
    """The MAC ratio to meet at each step: 1 at first, ``target`` from half of the run on.

    The cubic of Zhu and Gupta, "To prune, or not to prune" (arXiv 1710.01878), equation 1: fast
    while much can be cut, slow towards the end. The second half trains at the target.

    Attributes:
        target: MACs after / before.
        total_steps: optimizer steps of the whole run.
    """

    target: float
    total_steps: int

    def __call__(self, step: int) -> float:
        """Return the ratio to meet at ``step``, counted from 0."""
        left = max(0.0, 1.0 - 2.0 * step / self.total_steps)
        return self.target + (1.0 - self.target) * left**3


@dataclass(frozen=True)
class Steered:
    """The ranks at which a network meets a MAC ratio.

    Attributes:
        energy: the least share of its energy that a layer keeps.
        ranks: of each layer.
        needed: how many ranks of each layer must be known for ``ranks`` to be right.
    """

    energy: float
    ranks: dict[str, int]
    needed: dict[str, int]


def steer(spectra: Mapping[str, Spectrum], prices: Prices, ratio: float) -> Steered:
    """Cut what holds the least energy for its MACs, until the network meets ``ratio``.

    A rank stays where the share of its layer's energy that it holds is worth its MACs: at the
    optimum, the last rank of every layer is worth the same (Lagrange). One energy for all layers,
    asked again and again, would not do: a layer that was cut has lost its tail and looks complete,
    a layer that is dense still keeps its own, so that the first would be cut ever deeper.

    The rank of a layer is at most that of the value threshold: the decomposition at that threshold
    then cuts nothing more. Ranks of a layer go up and down by its step, and those of one step are
    worth their mean.

    Args:
        spectra: what each layer holds at each rank.
        prices: what each layer costs at each rank.
        ratio: MACs after / before, at most.
    """
    steps = {name: prices.step(name) for name in spectra}
    worths = {
        name: _means(found.gains, steps[name]) / prices.layers[name].per_rank
        for name, found in spectra.items()
    }
    most = {
        name: -(-found.value_rank(VALUE.value) // steps[name]) for name, found in spectra.items()
    }

    def ranks(least: float) -> dict[str, int]:
        return {
            name: min(
                len(spectra[name].values),
                steps[name] * min(most[name], max(1, int((worth >= least).sum()))),
            )
            for name, worth in worths.items()
        }

    # Ranks fall as more is asked of them, and change at these values alone.
    levels = [0.0, *sorted({level for worth in worths.values() for level in worth.tolist()})]
    levels.append(math.inf)
    place = bisect_left(
        range(len(levels)), True, key=lambda i: prices.ratio(ranks(levels[i])) <= ratio
    )
    chosen = ranks(levels[min(place, len(levels) - 1)])
    kept = min(float(found.shares[chosen[name] - 1]) for name, found in spectra.items())
    # A rank that is not known is worth less than it seems: it can't be among those that stay if
    # it is not yet at the level below. There it could be what keeps the ratio from being met.
    return Steered(kept, chosen, needed=ranks(levels[max(0, place - 1)]))


def _means(gains: Tensor, step: int) -> Tensor:
    """Return the mean of every ``step`` gains, the last of what is left."""
    return torch.stack([block.mean() for block in torch.split(gains, step)])


def reaching(prices: Prices, target: float, *, may_halve: bool = False) -> Prices:
    """Return prices whose ranks can meet a target.

    Args:
        prices: the prices.
        target: MACs after / before.
        may_halve: take half of their multiple, a quarter, ... where that is too coarse.

    Raises:
        TrainingError: the lowest rank in every layer costs more.
    """
    while may_halve and prices.multiple > 1 and prices.least > target:
        prices = replace(prices, multiple=prices.multiple // 2)
    if prices.least <= target:
        return prices
    if prices.multiple == 1:
        raise TrainingError(
            f"no ranks reach {target:g} of the MACs: rank 1 in every layer that may be rewritten "
            f"leaves {prices.least:.3f}; ask for more, or include more layers"
        )
    raise TrainingError(
        f"no multiples of {prices.multiple} reach {target:g} of the MACs: the lowest leave "
        f"{prices.least:.3f}; ask for more, or for multiples of a smaller number",
        parameters=("target_macs", "rank_multiple"),
    )
