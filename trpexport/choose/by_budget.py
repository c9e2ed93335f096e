"""Schemes and ranks by output error on images, within a budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trpexport.choose.alignment import AUTO, UNALIGNED, AlignedSelection, Alignment
from trpexport.choose.base import (
    CalibrationImages,
    Choice,
    Price,
    calibrated_choice,
    gathered,
)
from trpexport.choose.budget import Budgeter, Outcome
from trpexport.choose.candidates import least
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.fits import FitStore
from trpexport.choose.held_out import HeldOut
from trpexport.choose.judging import DropLimit, NetworkJudge
from trpexport.choose.limits import check_drop, only_limit
from trpexport.choose.outlook import outlook
from trpexport.choose.prices import PRICES, check_known
from trpexport.choose.reach import check_reach, names_of
from trpexport.choose.table import SensitivityTable, sensitivity_table
from trpexport.errors import PlanError
from trpexport.inputs import Inputs
from trpexport.judge.examples import find_judge
from trpexport.judge.metrics import Metric
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.plan import CALIBRATION
from trpexport.stages import Stages

USUAL = "spatial"
"""The scheme where none is named."""


@dataclass(frozen=True)
class ByBudget(AlignedSelection):
    """Keeps the output on images as well as a budget allows: one of the first five attributes.

    Of the layers of the :class:`AlignedSelection` that it is, in ranks that are multiples of what
    it says; where that is ``auto`` and too coarse to reach a share, of its half, its quarter, ...

    Attributes:
        macs: share of the MACs that may remain, between 0 and 1.
        parameters: share of the parameters that may remain.
        error: output error that is allowed, RMS relative to the variation of the output, of the
            worst one if there are several, on images that were not calibrated on if there are any;
            as much is saved as that leaves room for.
        drop: what may be lost of ``metric`` on samples with labels, likewise; in points of a share.
        share: of what ``price`` says is scarce that may remain.
        price: what is scarce, where it is neither MACs nor parameters.
        scheme: name of the scheme; ``auto`` chooses for each layer.
        cache: folder where tables of what each layer loses are kept, and fitted layers, so that a
            job that was stopped goes on; None for nowhere.
        metric: what a drop is of, as for :func:`trpexport.evaluate`: ``"miou"``,
            ``"package.module:function"``, a function; None counts images whose class is right.
        lower_is_better: of one's own metric, whether a smaller number is the better one.
    """

    macs: float | None = None
    parameters: float | None = None
    error: float | None = None
    drop: float | None = None
    share: float | None = None
    price: Price | None = None
    scheme: str = USUAL
    cache: str | Path | None = None
    metric: Metric | Callable[..., Any] | str | None = None
    lower_is_better: bool = False

    @property
    def label(self) -> str:
        """What names a bundle that was made so."""
        return self.scheme

    @property
    def inputs(self) -> Inputs | None:
        """The network's inputs, where the choice was made for some; else None."""
        return None

    def check(self) -> None:
        """Refuse what can't be before any work is done.

        Raises:
            TrpexportError: the scheme is unknown, the limit is out of range, or there is not one.
        """
        kind, limit = self._target
        if kind == "drop":
            check_drop(limit, self._metric())
        elif not 0 < limit < 1:
            raise PlanError(
                f"a budget of {limit:g} ({kind}) is out of range: it must be between 0 and 1"
            )
        elif self.metric is not None:
            raise PlanError("a metric says what a drop is of: give a drop, or leave it out")
        if (self.share is None) != (self.price is None):
            raise PlanError("share and price belong together: give both, or neither")
        _ = self.alignment
        if self.scheme != "auto":
            _ = SCHEMES[self.scheme]

    def __call__(
        self, network: Network, images: CalibrationImages | None, stages: Stages, label: str | None
    ) -> Choice:
        """Choose for a network.

        Raises:
            NothingToDoError: the budget can't be met; the message says what the best is.
            TrpexportError: as :meth:`check`, or there are no images, or their labels do not fit.
        """
        self.check()
        if images is None:
            raise PlanError("a budget is met by output error on images: give some")
        kind, limit = self._target
        if kind == "macs":
            check_known(network)
        alignment = self.reaching(network)
        if kind not in ("error", "drop"):
            asked = replace(self, rank_multiple=alignment)
            check_reach(network, self._price, limit, self.scheme, asked)
        labelled = images.labelled() if kind == "drop" else None
        metric = None if labelled is None else self._metric(labelled.data)
        factorizer = Factorizer(network)
        with stages("see what can be won"):
            found = outlook(network, self.scheme, self, label=label, factorizer=factorizer)
        stages.remark(str(found))
        gatherer = gathered(network, images)
        held_out = HeldOut.of(network, images)
        with stages("measure what each rank costs and loses"):
            table = sensitivity_table(
                network,
                gatherer,
                scheme=self.scheme,
                selection=self,
                prices=self._prices,
                alignment=alignment,
                cache=self.cache,
                announce=stages.say,
            )
        budgeter = Budgeter(
            network,
            table,
            gatherer,
            scheme=self.scheme,
            selection=self,
            architecture=label,
            factorizer=factorizer,
            store=FitStore(self.cache, network, gatherer.watch.samples),
            announce=stages.say,
        )
        facts: dict[str, Any] = {
            "target": {"kind": kind, "value": limit},
            "rank_multiple": alignment.multiple,
        }
        drop = None
        with stages("calibrate"):
            if labelled is not None:
                most = gatherer.watch.samples.max_batch
                judge = NetworkJudge(network, labelled, metric, max_batch=most)
                drop = DropLimit(judge, limit)
                outcome = budgeter.to_drop(judge.loss, limit, judge.unit)
                facts["judged"] = judge.facts(network.rewritten(outcome.calibrated.chains))
            elif kind == "error":
                outcome = budgeter.to_error(limit, held_out.errors)
            else:
                outcome = budgeter.to_fraction(limit, self._resource)
        facts["layers"] = with_shares(table, outcome)
        choice = calibrated_choice(network, outcome.calibrated, images, held_out, facts)
        options = {**choice.plan.options, **alignment.to_json()}
        return replace(choice, plan=replace(choice.plan, options=options), drop=drop)

    def reaching(self, network: Network) -> Alignment:
        """Return what ranks are multiples of: ``auto`` leaves a share within reach.

        Several schemes reach further than one, at the end of their reach by ranks that lose much:
        with them it is within reach of the usual scheme alone, if that has it within reach at all.
        """
        alignment = self.alignment
        kind, limit = self._target
        if self.rank_multiple != AUTO or kind in ("error", "drop"):
            return alignment
        price, schemes = self._price, names_of(self.scheme)
        if USUAL in schemes:
            alone = least(network, price, [USUAL], self, UNALIGNED)
            schemes = [USUAL] if alone <= limit else schemes
        while alignment.multiple > 1:
            if least(network, price, schemes, self, alignment) <= limit:
                break
            alignment = alignment.halved()
        return alignment

    @property
    def _target(self) -> tuple[str, float]:
        """Kind and value of the one limit that was given.

        Raises:
            PlanError: there is not one.
        """
        limits = {
            "macs": self.macs,
            "params": self.parameters,
            "error": self.error,
            "drop": self.drop,
            "share": self.share,
        }
        message = (
            "a budget is one of macs, parameters, error, drop, and share with a price: give one"
        )
        return only_limit(limits, message)

    def _metric(self, data: str = "the data") -> Metric | None:
        """Return what a drop is of; None for images whose class is right.

        Args:
            data: what networks are judged on, as the user typed it.

        Raises:
            TrpexportError: there is no such metric, or raw tensors come without one.
        """
        return find_judge(data, self.metric, lower_is_better=self.lower_is_better)

    @property
    def _resource(self) -> str:
        if self.price is not None:
            return self.price.resource
        return "macs" if self.macs is not None else "parameters"

    @property
    def _price(self) -> Price:
        (price,) = (one for one in self._prices if one.resource == self._resource)
        return price

    @property
    def _prices(self) -> list[Price]:
        # The search for an error or a drop goes by MACs.
        return [
            price
            for name, price in PRICES.items()
            if self.price is None or name != self.price.resource
        ] + ([] if self.price is None else [self.price])


def with_shares(table: SensitivityTable, outcome: Outcome) -> list[dict[str, Any]]:
    """Return the calibrated layers with the share of the squared error that each was to make."""
    chosen = outcome.allotment.chosen
    errors = {layer.name: layer.gain * chosen[layer.name].error for layer in table.layers}
    total = sum(errors.values())
    return [
        {**layer, "error_share": errors[layer["name"]] / total if total else 0.0}
        for layer in outcome.calibrated.plan.options[CALIBRATION]["layers"]
    ]
