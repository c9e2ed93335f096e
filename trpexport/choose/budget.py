"""From a target to a calibrated network, measured rather than predicted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType

from trpexport.choose.allotment import Allotment, allot, plan_for, smallest_fraction
from trpexport.choose.calibrate import Calibrated, calibrate
from trpexport.choose.distance import worst
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.fits import FitStore
from trpexport.choose.gathering import Gatherer
from trpexport.choose.prices import SECONDS
from trpexport.choose.selection import Selection
from trpexport.choose.table import SensitivityTable
from trpexport.errors import NothingToDoError, PlanError
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.plan import Plan

# A choice is corrected by what was measured where layers act on each other, that is where the
# network's error is at least this: below it a correction hardly ever pays for its time ...
_MIN_CORRECTED_ERROR = 0.2
# ... and where that promises less than this share of the squared error.
_MAX_PROMISED = 0.9
# A scheme alone is not tried where it promises more than so many times the least squared error.
_MAX_PREDICTED_RATIO = 1.5
# Squared errors under another scheme than the best one for the whole network count so many times:
# what is nearer to each other, the table can't tell apart.
OTHER_SCHEME = 1.2
# Those of grouped convolutions count so many times: they run slowly for their MACs.
_GROUPED = 1.5
BISECTIONS = 6


@dataclass(frozen=True)
class Outcome:
    """A calibrated network and how it was chosen.

    Attributes:
        calibrated: the network, its plan and what became of each layer.
        allotment: the choice, with what the table predicted.
        resource: what is scarce.
    """

    calibrated: Calibrated
    allotment: Allotment
    resource: str = "macs"

    @property
    def error(self) -> float:
        """Output error of the network: see :class:`~trpexport.choose.calibrate.Calibrated`."""
        return self.calibrated.error

    @property
    def merit(self) -> float:
        """What networks are chosen between by, the lower the better: the error, handicapped."""
        handicaps = [handicap(layer.scheme, self.resource) for layer in self.calibrated.layers]
        return self.error * math.sqrt(sum(handicaps) / len(handicaps)) if handicaps else self.error


@dataclass(frozen=True)
class _Target:
    """What may remain, of what, and how a plan says so."""

    fraction: float
    resource: str
    criterion: str


@dataclass(frozen=True)
class _Offer:
    """What to choose from: options, and how many times the errors of schemes count."""

    table: SensitivityTable
    handicaps: Mapping[str, float]

    def choose(
        self, target: _Target, weights: Mapping[str, float] = MappingProxyType({})
    ) -> Allotment:
        return allot(
            self.table,
            target.fraction,
            resource=target.resource,
            weights=weights,
            handicaps=self.handicaps,
        )


@dataclass(frozen=True)
class _Tried:
    """A network, and what it was chosen from."""

    offer: _Offer
    outcome: Outcome


class Budgeter:
    """Meets targets with one table: each further target costs a calibration or a few.

    Args:
        network: the original network.
        table: its options.
        gatherer: of the network, on the calibration images.
        scheme: what was asked for, ``auto`` or the name of a scheme.
        selection: the layers that may be rewritten, as for the table.
        architecture: what the network is called, for the reader of plans.
        factorizer: of the same network, where it knows SVDs.
        resource: what is saved where an error or a drop is the limit.
        store: of fitted layers, which are then not fitted again.
        ahead: called with plans that are going to be calibrated: fits of theirs may be put into
            the store.
        announce: called with a line on what is going on.

    Attributes:
        best: the cheapest network found so far within an error or a drop.
    """

    def __init__(
        self,
        network: Network,
        table: SensitivityTable,
        gatherer: Gatherer,
        *,
        scheme: str = "auto",
        selection: Selection | None = None,
        architecture: str | None = None,
        factorizer: Factorizer | None = None,
        resource: str = "macs",
        store: FitStore | None = None,
        ahead: Callable[[Sequence[Plan]], None] = lambda plans: None,
        announce: Callable[[str], None] | None = None,
    ) -> None:
        self._network = network
        self._table = table
        self._gatherer = gatherer
        self._factorizer = factorizer or Factorizer(network)
        self._store = store
        self._ahead = ahead
        self._scheme = scheme
        self._selection = selection or Selection()
        self._architecture = architecture
        self._resource = resource
        self._announce = announce or (lambda line: None)
        self.best: Outcome | None = None
        self._passes = 0

    def to_fraction(
        self, fraction: float, resource: str = "macs", criterion: str | None = None
    ) -> Outcome:
        """Return the best network that keeps at most ``fraction`` of a resource.

        Where layers may take different schemes, choices in which all take the same one are tried
        first. Where errors are large enough for layers to act on each other, the choice is made
        once more, by the errors that were measured in the decomposed network. Of all that was
        tried, the network that differs least from the original on the images is the best.

        Args:
            fraction: of the whole network, above 0 and below 1.
            resource: what is scarce.
            criterion: the target, as text; after the fraction where it is None.

        Raises:
            PlanError: the fraction is not between 0 and 1.
            NothingToDoError: nothing fits; the message says what the best is.
        """
        criterion = criterion or f"target-{resource.replace('parameters', 'params')}:{fraction:g}"
        target = _Target(fraction, resource, criterion)
        tried = self._first(target, *(self._offer(scheme) for scheme in self._alone(target)))
        best = min(tried, key=lambda one: one.outcome.merit, default=None)
        offer = self._offer_around(best, target.resource)
        if best is None:
            (best,) = self._first(target, offer)
        elif offer.choose(target).chosen not in [one.outcome.allotment.chosen for one in tried]:
            best = min(best, *self._first(target, offer), key=lambda one: one.outcome.merit)
        return self._corrected(target, best)

    def _alone(self, target: _Target) -> list[str]:
        """Return the schemes that are not hopeless for all layers."""
        found: dict[str, float] = {}
        for scheme in self._table.schemes:
            with suppress(NothingToDoError):
                choice = self._offer(scheme).choose(target)
                found[scheme] = choice.error * handicap(scheme, target.resource)
        least = min(found.values(), default=0.0)
        return [scheme for scheme, error in found.items() if error <= _MAX_PREDICTED_RATIO * least]

    def _offer(self, scheme: str) -> _Offer:
        """Return the options of one scheme."""
        return _Offer(self._table.only(scheme), {})

    def _offer_around(self, best: _Tried | None, resource: str) -> _Offer:
        """Return all options; where there is a network of one scheme, for departures from it."""
        handicaps = {scheme: handicap(scheme, resource) for scheme in self._table.schemes}
        if best is None:
            return _Offer(self._table, handicaps)
        (base,) = best.offer.table.schemes
        # With the gains of that scheme: no other's may come out low by chance.
        layers = [
            replace(layer, gains={base: layer.gains.get(base, layer.gain)})
            for layer in self._table.layers
        ]
        away = {
            scheme: OTHER_SCHEME * times for scheme, times in handicaps.items() if scheme != base
        }
        return _Offer(replace(self._table, layers=tuple(layers)), away)

    def _first(self, target: _Target, *offers: _Offer) -> list[_Tried]:
        outcomes = self._calibrated(target, *(offer.choose(target) for offer in offers))
        return [_Tried(*pair) for pair in zip(offers, outcomes, strict=True)]

    def _corrected(self, target: _Target, tried: _Tried) -> Outcome:
        """Return a network, or the one of a choice that is corrected by what it measured."""
        first = tried.outcome
        if first.error < _MIN_CORRECTED_ERROR:
            return first
        weights = corrections(first)
        choice = tried.offer.choose(target, weights)
        if not _promises(tried.offer.table, weights, choice, first.allotment):
            return first
        (second,) = self._calibrated(target, choice)
        return min(first, second, key=lambda outcome: outcome.merit)

    def to_error(
        self, limit: float, measure: Callable[[Network], Mapping[str, float]] | None = None
    ) -> Outcome:
        """Return the cheapest network found whose output error is at most ``limit``.

        Args:
            limit: of the worst output.
            measure: returns the errors of a network by output, on images that nothing was fitted
                to; those on the calibration images count where it is None or returns nothing.

        Raises:
            PlanError: the limit is not between 0 and 1.
            NothingToDoError: no network found is that close; the message says what the best is.
        """
        if not 0 < limit < 1:
            raise PlanError(
                f"a target error of {limit:g} is out of range: give one between 0 and 1"
            )
        errors: list[float] = []

        def accepts(outcome: Outcome) -> bool:
            found = outcome.calibrated.errors
            if measure is not None:
                found = measure(self._network.rewritten(outcome.calibrated.chains)) or found
            errors.append(worst(found))
            name = max(found, key=found.__getitem__, default="output")
            self._announce(f"{name} moves by {errors[-1]:.3f} of its variation")
            return errors[-1] <= limit

        found = self._bisect(accepts, f"target-error:{limit:g}")
        if found is None:
            raise NothingToDoError(
                f"the target error of {limit:g} can't be met: the best that saves {self._what} is "
                f"{min(errors):.3f}"
            )
        return found

    def to_drop(self, loss: Callable[[Network], float], drop: float, of: str = "points") -> Outcome:
        """Return the cheapest network found that is at most ``drop`` worse by some measure.

        Args:
            loss: returns how much worse than the original a network is, on samples with labels.
            drop: not negative, in the same unit.
            of: the unit, and what it is of, for messages.

        Raises:
            PlanError: the drop is negative.
            NothingToDoError: no network found is that good; the message says what the best is.
        """
        if not drop >= 0:
            raise PlanError(f"a drop of {drop:g} points is out of range: give 0 or more")
        losses: list[float] = []

        def accepts(outcome: Outcome) -> bool:
            losses.append(loss(self._network.rewritten(outcome.calibrated.chains)))
            return losses[-1] <= drop

        found = self._bisect(accepts, f"max-drop:{drop:g}")
        if found is None:
            finite = [one for one in losses if math.isfinite(one)]
            best = f"loses {min(finite):.4g}" if finite else "has no finite value"
            raise NothingToDoError(
                f"a drop of at most {drop:g} {of} can't be met: the best that saves {self._what} "
                f"{best}"
            )
        return found

    def _bisect(self, accepts: Callable[[Outcome], bool], criterion: str) -> Outcome | None:
        """Return the cheapest outcome that is accepted, or None."""
        low, high = smallest_fraction(self._table, self._resource), 1.0
        self.best = None
        for _ in range(BISECTIONS):
            fraction = (low + high) / 2
            outcome = self.to_fraction(fraction, self._resource, criterion)
            if accepts(outcome):
                self.best, high = outcome, fraction
            else:
                low = fraction
            self._announce(
                f"{fraction:.3f} of the {self._what}: output error {outcome.error:.3f}, "
                f"{'accepted' if high == fraction else 'too much'}"
            )
        return self.best

    @property
    def _what(self) -> str:
        return {"macs": "MACs", SECONDS: "time"}.get(self._resource, self._resource)

    def _calibrated(self, target: _Target, *choices: Allotment) -> list[Outcome]:
        plans = [self._plan(target, choice) for choice in choices]
        self._ahead(plans)
        return [
            Outcome(self._by(plan), choice, target.resource)
            for plan, choice in zip(plans, choices, strict=True)
        ]

    def _plan(self, target: _Target, choice: Allotment) -> Plan:
        return plan_for(
            self._network,
            choice,
            scheme=self._scheme,
            criterion=target.criterion,
            selection=self._selection,
            architecture=self._architecture,
            factorizer=self._factorizer,
        )

    def _by(self, plan: Plan) -> Calibrated:
        self._passes += 1
        calibrated = calibrate(
            self._network,
            plan,
            self._gatherer,
            factorizer=self._factorizer,
            store=self._store,
            announce=lambda line: self._announce(f"pass {self._passes}, {line}"),
        )
        self._announce(f"output error of the network {calibrated.error:.3f}")
        return calibrated


def handicap(scheme: str, resource: str) -> float:
    """Return how many times the squared errors of a scheme count, where a resource is scarce.

    Where time is, what is slow has its price already.
    """
    return _GROUPED if SCHEMES[scheme].regroups and resource != SECONDS else 1.0


def _promises(
    table: SensitivityTable, weights: Mapping[str, float], choice: Allotment, last: Allotment
) -> bool:
    """Whether a choice is worth a calibration, by errors corrected by the last one's."""

    def error(allotment: Allotment) -> float:
        return sum(
            layer.gain * weights.get(layer.name, 1.0) * allotment.chosen[layer.name].error
            for layer in table.layers
        )

    return error(choice) < _MAX_PROMISED * error(last)


def corrections(outcome: Outcome) -> dict[str, float]:
    """Return how many times worse each layer turned out than the table said, in squared error."""
    found = {}
    for layer in outcome.calibrated.layers:
        predicted = outcome.allotment.chosen[layer.name].error
        if predicted > 0:
            found[layer.name] = layer.error_after**2 / predicted
    return found
