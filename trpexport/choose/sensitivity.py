"""Which layer costs what: the table that calibration keeps, layer by layer, worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trpexport.choose.allotment import allot, reasons_left_out
from trpexport.choose.base import CalibrationImages, gathered
from trpexport.choose.by_budget import ByBudget
from trpexport.choose.prices import Macs, check_known
from trpexport.choose.reach import check_reach
from trpexport.choose.table import LayerOptions, Option, sensitivity_table
from trpexport.cost import macs
from trpexport.errors import PlanError
from trpexport.networks.base import Network
from trpexport.ops import Layer
from trpexport.shown import Shown
from trpexport.stages import Stages

RATIOS = (0.75, 0.5, 0.25)
"""Shares of a layer's MACs at which its loss is told, where nobody asks for others."""

_MACS = Macs.resource


@dataclass(frozen=True)
class Cut:
    """One way to write a layer.

    Attributes:
        scheme: name of the scheme.
        rank: the rank.
        macs: what it needs.
        error: output error of the network if this layer alone is written so, RMS relative to the
            variation of the output.
    """

    scheme: str
    rank: int
    macs: float
    error: float


@dataclass(frozen=True)
class Won:
    """What the network wins back if a layer is left as it is, all others being cut as planned.

    Attributes:
        error: by how much the output error falls, if layers do not interact.
        macs: how many more are needed.
    """

    error: float
    macs: float


@dataclass(frozen=True)
class LayerLoss:
    """What one layer loses.

    Attributes:
        name: the layer.
        operator: what it computes, for the reader.
        macs: what it needs as it is.
        cuts: by share of its MACs, the way of least error that needs no more; None where no rank
            that may be chosen is so cheap. Empty where nothing was cut at all.
        reason: why nothing was cut, so that nothing is known of it; else None.
        chosen: how the budget writes it; None where it leaves it whole, or there is none.
        back: what is won back if it is left as it is; None where it is.
        precisions: by precision, the output error if this layer alone is written in it; None where
            it can't be.
    """

    name: str
    operator: str
    macs: float
    cuts: Mapping[float, Cut | None]
    reason: str | None
    chosen: Cut | None = None
    back: Won | None = None
    precisions: Mapping[str, float | None] | None = None

    @property
    def loss(self) -> float | None:
        """What layers are compared by: the error at the mildest ratio that a rank was found for."""
        return next((cut.error for cut in self.cuts.values() if cut is not None), None)


@dataclass(frozen=True, repr=False)
class Sensitivity(Shown):
    """What each layer of a network loses, the worst first; those that were not cut last.

    Attributes:
        architecture: what the network is called, or None.
        scheme: what layers may be written as.
        ratios: the shares of a layer's MACs.
        target: share of the MACs that the budget leaves; None without one.
        error: output error of the budget's choice, if layers do not interact; None without one.
        images: how many there were to fit to.
        data: which, as they were named.
        layers: the layers.
    """

    architecture: str | None
    scheme: str
    ratios: tuple[float, ...]
    target: float | None
    error: float | None
    images: int
    data: str
    layers: tuple[LayerLoss, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        facts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            "kind": "sensitivity",
            **facts,
            "ratios": list(self.ratios),
            "layers": [_facts(layer) for layer in self.layers],
        }

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        cut = [(layer.name, layer.loss) for layer in self.layers if layer.loss is not None]
        worst = ", ".join(f"{name} {loss:.1%}" for name, loss in cut[:3])
        return {"network": self.architecture, "cut": len(cut), "worst": worst}


def _facts(layer: LayerLoss) -> dict[str, Any]:
    facts = asdict(layer)
    cuts = [{"share": share, "cut": cut} for share, cut in facts["cuts"].items()]
    return {**facts, "cuts": cuts}


@dataclass(frozen=True)
class SensitivityJob:
    """How it is found which layer costs what.

    Attributes:
        scheme: name of the scheme; ``auto`` for the best of all, layer by layer.
        ratios: shares of a layer's MACs.
        target: share of the MACs that a budget leaves; None for no budget.
        selection: further arguments of :class:`~trpexport.ByBudget`: which layers, which ranks.
        cache: folder where tables are kept; None for nowhere.
    """

    scheme: str = "auto"
    ratios: Sequence[float] = RATIOS
    target: float | None = None
    selection: Mapping[str, Any] | None = None
    cache: str | Path | None = None

    @property
    def chooser(self) -> ByBudget:
        """What would choose within the budget; without one any limit has the same table."""
        limit: dict[str, Any] = {"error": 0.5} if self.target is None else {"macs": self.target}
        how = dict(self.selection or {})
        return ByBudget(**limit, scheme=self.scheme, cache=self.cache, **how)

    def check(self) -> None:
        """Refuse what can't be before any work is done.

        Raises:
            TrpexportError: a ratio, the scheme or the budget is out of range.
        """
        for ratio in self.ratios:
            if not 0 < ratio < 1:
                raise PlanError(
                    f"a ratio of {ratio:g} is out of range: it must be between 0 and 1",
                    parameters=("ratios",),
                )
        self.chooser.check()

    def __call__(
        self,
        network: Network,
        images: CalibrationImages,
        stages: Stages,
        label: str | None = None,
    ) -> Sensitivity:
        """Read the table of a network, or measure it once; say what each layer loses.

        Args:
            network: the network.
            images: what factors are fitted to.
            stages: times and announces what is going on.
            label: what the network is called, for the reader.

        Raises:
            NothingToDoError: no layer gets cheaper, or the budget can't be met.
            TrpexportError: as :meth:`check`, or the network or the images can't be used.
        """
        self.check()
        chooser, ratios = self.chooser, sorted({*self.ratios}, reverse=True)
        alignment = chooser.reaching(network)
        if self.target is not None:
            check_known(network)
            check_reach(network, Macs(), self.target, self.scheme, chooser)
        gatherer = gathered(network, images)
        with stages("measure what each rank costs and loses"):
            table = sensitivity_table(
                network,
                gatherer,
                scheme=self.scheme,
                selection=chooser,
                alignment=alignment,
                cache=self.cache,
                announce=stages.say,
            )
        allotment = None if self.target is None else allot(table, self.target)
        known = {layer.name: layer for layer in table.layers}
        left_out = reasons_left_out(network, known, chooser, self.scheme)
        chosen = {} if allotment is None else dict(allotment.chosen)
        total = 0.0 if allotment is None else allotment.error
        found = []
        for layer in network.layers:
            if layer.name not in known:
                found.append(_uncut(layer, left_out[layer.name]))
                continue
            options = known[layer.name]
            found.append(_loss(layer, options, ratios, chosen.get(layer.name), total))
        return Sensitivity(
            architecture=label,
            scheme=self.scheme,
            ratios=tuple(ratios),
            target=self.target,
            error=None if allotment is None else math.sqrt(total),
            images=len(gatherer.watch.samples),
            data=str(images.facts()["data"]),
            layers=by_loss(found),
        )


def by_loss(layers: Sequence[LayerLoss]) -> tuple[LayerLoss, ...]:
    """Return layers with the worst first; those behind that were cut at no ratio, so compared."""

    def key(layer: LayerLoss) -> tuple[bool, float, float]:
        others = [error for error in (layer.precisions or {}).values() if error is not None]
        loss = layer.loss
        known = max(others, default=0.0) if loss is None else loss
        return (loss is None, -known, -layer.macs)

    return tuple(sorted(layers, key=key))


def _uncut(layer: Layer, reason: str) -> LayerLoss:
    return LayerLoss(layer.name, str(layer.op), macs((layer.op,), layer.calls), {}, reason)


def _loss(
    layer: Layer, known: LayerOptions, ratios: Sequence[float], chosen: Option | None, total: float
) -> LayerLoss:
    """Return what is known of a layer.

    Args:
        layer: the layer.
        known: its options.
        ratios: shares of its MACs, the largest first.
        chosen: the option that the budget takes; None where there is no budget.
        total: the squared error of all that the budget takes.
    """
    whole, *ways = known.options
    dense = whole.costs[_MACS]
    cuts = [
        Cut(way.scheme, way.rank, way.costs[_MACS], math.sqrt(way.error * known.gain))
        for way in ways
        if way.scheme is not None and way.rank is not None
    ]
    reason = None if cuts else "no rank that may be chosen can be told by these images"
    taken = None
    if chosen is not None:
        taken = next((c for c in cuts if (c.scheme, c.rank) == (chosen.scheme, chosen.rank)), None)
    back = None
    if taken is not None:
        rest = max(0.0, total - taken.error**2)
        back = Won(math.sqrt(total) - math.sqrt(rest), dense - taken.macs)
    return LayerLoss(
        name=known.name,
        operator=str(layer.op),
        macs=dense,
        cuts={ratio: _cheapest(cuts, ratio * dense) for ratio in ratios} if cuts else {},
        reason=reason,
        chosen=taken,
        back=back,
    )


def _cheapest(cuts: Sequence[Cut], budget: float) -> Cut | None:
    """Return the cut of least error that needs no more MACs; None where there is none."""
    fitting = [cut for cut in cuts if cut.macs <= budget]
    return min(fitting, key=lambda cut: (cut.error, cut.macs), default=None)
