"""From a target to a calibrated network, measured rather than predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import nn

from trpexport.errors import NothingToDoError, PlanError
from trpexport.lowrank.calibration.allotment import (
    Allotment,
    Resource,
    allot,
    plan_for,
    smallest_fraction,
)
from trpexport.lowrank.calibration.gathering import Gatherer
from trpexport.lowrank.calibration.layerwise import Calibrated, calibrate
from trpexport.lowrank.calibration.network_error import network_outputs, relative_distance
from trpexport.lowrank.calibration.table import SensitivityTable

_ROUNDS = 2
# A further round must promise less than this share of the squared error.
_WORTHWHILE = 0.9
# A scheme alone is not tried where it promises more than so many times the best one's squared
# error; nor twice, where its error turned out so many times that of the best network so far.
_HOPELESS = 2.5
_BEHIND = 1.1
# What a few hundred images can't tell apart: errors of networks within this factor.
_NEAR = 1.15
_BISECTIONS = 6


@dataclass(frozen=True)
class Outcome:
    """A calibrated network and how it was chosen.

    Attributes:
        calibrated: the network, its plan and what became of each layer.
        allotment: the choice, with what the table predicted.
        error: output of the network against the original one's on the calibration images, RMS,
            relative to its variation over them.
    """

    calibrated: Calibrated
    allotment: Allotment
    error: float


class Budgeter:
    """Meets targets with one table: each further target costs a calibration or a few.

    Args:
        model: the original network; it is not changed.
        table: its options.
        gatherer: of the network and the calibration images.
        input_shape: shape of the network's input, batch first.
        scheme: what was asked for, ``auto`` or the name of a scheme.
        architecture: what the network is called, for the reader of plans.
        rounds: how often a choice is made at most; from the second on, the errors of the table
            are corrected by those that were measured in the decomposed network, and a choice must
            promise something.
        announce: called with a line on what is going on.
        options: ``include``, ``exclude``, ``stride_1_only``, as for the table.
    """

    def __init__(
        self,
        model: nn.Module,
        table: SensitivityTable,
        gatherer: Gatherer,
        *,
        input_shape: tuple[int, ...],
        scheme: str = "auto",
        architecture: str | None = None,
        rounds: int = _ROUNDS,
        announce: Callable[[str], None] | None = None,
        **options: Any,
    ) -> None:
        self._model = model
        self._table = table
        self._gatherer = gatherer
        self._shape = input_shape
        self._scheme = scheme
        self._architecture = architecture
        self._rounds = rounds
        self._announce = announce or (lambda line: None)
        self._options = options

    def to_fraction(
        self, fraction: float, resource: Resource = "macs", criterion: str | None = None
    ) -> Outcome:
        """Return the best network that keeps at most ``fraction`` of the MACs or parameters.

        Of the rounds, the one whose network differs least from the original on the images. Where
        layers may take different schemes, those in which all take the same one are tried as well,
        and of networks that are nearly as close as the closest, :func:`plainest` decides.

        Args:
            fraction: of the whole network, above 0 and below 1.
            resource: what is scarce.
            criterion: the target, as text; after the fraction where it is None.

        Raises:
            PlanError: the fraction is not between 0 and 1.
            NothingToDoError: nothing fits; the message says what the best is.
        """
        criterion = criterion or f"target-{'macs' if resource == 'macs' else 'params'}:{fraction:g}"
        return plainest(self._tried(fraction, resource, criterion))

    def _tried(self, fraction: float, resource: Resource, criterion: str) -> list[Outcome]:
        """Return all networks that were worth a calibration."""
        tried: list[Outcome] = []
        for table in self._tables(fraction, resource):
            weights: Mapping[str, float] = {}
            last: Outcome | None = None
            for _ in range(self._rounds):
                choice = allot(table, fraction, resource=resource, weights=weights)
                if last is not None and not _promises(table, weights, choice, last.allotment):
                    break
                last = self._calibrated(choice, criterion)
                tried.append(last)
                if last.error > _BEHIND * closest(tried).error:
                    break
                weights = corrections(last)
        return tried

    def _tables(self, fraction: float, resource: Resource) -> list[SensitivityTable]:
        """Return what to choose from: all schemes, and each one alone that is not hopeless.

        A table says nothing of how the errors of layers add up, and those of one scheme may do so
        more kindly than those of several.
        """
        schemes = self._table.schemes
        alone: list[tuple[float, SensitivityTable]] = []
        for scheme in schemes if len(schemes) > 1 else ():
            table = self._table.only(scheme)
            with suppress(NothingToDoError):
                alone.append((allot(table, fraction, resource=resource).error, table))
        least = min((error for error, _ in alone), default=0.0)
        return [self._table, *(table for error, table in alone if error <= _HOPELESS * least)]

    def to_error(self, limit: float) -> Outcome:
        """Return the cheapest network found whose output error is at most ``limit``.

        Raises:
            PlanError: the limit is not between 0 and 1.
            NothingToDoError: no network found is that close; the message says what the best is.
        """
        if not 0 < limit < 1:
            raise PlanError(
                f"a target error of {limit:g} is out of range: give one between 0 and 1"
            )
        found, last = self._bisect(
            lambda outcome: outcome.error <= limit, f"target-error:{limit:g}", closest
        )
        if found is None:
            raise NothingToDoError(
                f"the target error of {limit:g} can't be met: the best that saves MACs is "
                f"{last.error:.3f}"
            )
        return found

    def to_drop(self, accuracy: Callable[[nn.Module], float], drop: float) -> Outcome:
        """Return the cheapest network found whose accuracy is at most ``drop`` points lower.

        Args:
            accuracy: returns the accuracy of a network in percent, on images with labels.
            drop: in points, not negative.

        Raises:
            PlanError: the drop is negative.
            NothingToDoError: no network found is that good; the message says what the best is.
        """
        if not drop >= 0:
            raise PlanError(f"a drop of {drop:g} points is out of range: give 0 or more")
        before = accuracy(self._model)
        drops: list[float] = []

        def accepts(outcome: Outcome) -> bool:
            drops.append(before - accuracy(outcome.calibrated.network))
            return drops[-1] <= drop

        found, _ = self._bisect(accepts, f"max-drop:{drop:g}", plainest)
        if found is None:
            raise NothingToDoError(
                f"a drop of at most {drop:g} points can't be met: the best that saves MACs loses "
                f"{min(drops):.2f}"
            )
        return found

    def _bisect(
        self,
        accepts: Callable[[Outcome], bool],
        criterion: str,
        best: Callable[[Sequence[Outcome]], Outcome],
    ) -> tuple[Outcome | None, Outcome]:
        """Return the cheapest outcome that is accepted, or None, and the last one tried."""
        low, high = smallest_fraction(self._table), 1.0
        found: Outcome | None = None
        for _ in range(_BISECTIONS):
            fraction = (low + high) / 2
            outcome = best(self._tried(fraction, "macs", criterion))
            if accepts(outcome):
                found, high = outcome, fraction
            else:
                low = fraction
            self._announce(
                f"{fraction:.3f} of the MACs: output error {outcome.error:.3f}, "
                f"{'accepted' if high == fraction else 'too much'}"
            )
        return found, outcome

    def _calibrated(self, choice: Allotment, criterion: str) -> Outcome:
        plan = plan_for(
            self._model,
            choice,
            input_shape=self._shape,
            scheme=self._scheme,
            criterion=criterion,
            architecture=self._architecture,
            options=self._options,
        )
        images = self._gatherer.images
        calibrated = calibrate(
            self._model, plan, images.values, gatherer=self._gatherer, announce=self._announce
        )
        error = relative_distance(
            self._gatherer.outputs(), network_outputs(calibrated.network, images)
        )
        self._announce(f"output error of the network {error:.3f}")
        return Outcome(calibrated, choice, error)


def closest(tried: Sequence[Outcome]) -> Outcome:
    """Return the outcome of least error."""
    return min(tried, key=lambda outcome: outcome.error)


def plainest(tried: Sequence[Outcome]) -> Outcome:
    """Return the plainest outcome of those that are nearly as close as the closest.

    One scheme throughout comes before several, which have more ways to suit these images by
    chance, and before grouped convolutions, which run slowly for their MACs.
    """
    near = [outcome for outcome in tried if outcome.error <= _NEAR * closest(tried).error]
    return min(near, key=lambda outcome: (not _is_plain(outcome), outcome.error))


def _is_plain(outcome: Outcome) -> bool:
    layers = outcome.calibrated.plan.rewritten
    return len({layer.scheme for layer in layers}) == 1 and all(
        factor.groups == layer.conv.groups for layer in layers for factor in layer.factors
    )


def _promises(
    table: SensitivityTable, weights: Mapping[str, float], choice: Allotment, last: Allotment
) -> bool:
    """Whether a choice is worth a calibration, by errors corrected by the last one's."""

    def error(allotment: Allotment) -> float:
        return sum(
            layer.gain * weights.get(layer.name, 1.0) * allotment.chosen[layer.name].error
            for layer in table.layers
        )

    return error(choice) < _WORTHWHILE * error(last)


def corrections(outcome: Outcome) -> dict[str, float]:
    """Return how many times worse each layer turned out than the table said, in squared error."""
    found = {}
    for layer in outcome.calibrated.layers:
        predicted = outcome.allotment.chosen[layer.name].error
        if predicted > 0:
            found[layer.name] = layer.error_after**2 / predicted
    return found
