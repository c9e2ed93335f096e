"""The rules of the gate: what each measures, which way it points, and which limits make sense."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from trpexport.errors import TrpexportError
from trpexport.judge.classify import Evaluations
from trpexport.judge.metrics.base import Metric
from trpexport.judge.outputs import Compared, OutputPair
from trpexport.judge.paired import PairedDrop, RelativeError, Sample, Share
from trpexport.judge.scoring import Score, Scores, loss_between
from trpexport.measure.statistics import ratio_interval
from trpexport.registry import Registry

Need = Literal["data", "outputs", "costs", "latency"]
_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class FileCost:
    """What a network costs.

    Attributes:
        macs: multiply-adds for one image; None where an operator is not known.
        parameters: number of weights and biases.
        file_bytes: size of its file, external data included.
        uncounted: the operators that are not known.
    """

    macs: float | None
    parameters: int
    file_bytes: int
    uncounted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measurements:
    """What was measured of the baseline and of the candidate; None for what no rule asked for.

    Attributes:
        evaluations: both on the same images.
        costs: of both.
        scores: both by another metric than classes that are right, on the same samples.
        compared: what both put out for the same samples; where there are evaluations, those tell.
        latency: both entries of the record of :func:`trpexport.measure.bench.bench`,
            with its samples.
    """

    evaluations: Evaluations | None = None
    scores: Scores | None = None
    costs: tuple[FileCost, FileCost] | None = None
    compared: Compared | None = None
    latency: tuple[Mapping[str, Any], Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Quantity:
    """What was found for one rule, in its unit.

    Attributes:
        value: the estimate.
        low: lower end of its 95 % interval; None for what is exact.
        high: upper end.
    """

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Rule:
    """One rule: a quantity, and on which side of its limit it has to be.

    Attributes:
        title: what it measures.
        direction: which side of the limit passes.
        unit: of limit and value, as it is shown.
        need: what has to be measured: ``data`` needs labels, ``outputs`` needs none.
        above: limits have to be larger than this.
        up_to: and at most this large.
        measure: gives the quantity; or a sample, whose loss is judged.
        to_loss: turns a limit into the loss that a sample measures; from_loss is its reverse.
        from_loss: turns a sample's loss into the unit.
        prefixes: whether a limit may be written as ``300 k`` or ``1.2 MB``.
    """

    title: str
    direction: Literal["at most", "at least"]
    unit: str
    need: Need
    measure: Callable[[Measurements], Quantity | Sample]
    above: float = 0.0
    up_to: float = math.inf
    to_loss: Callable[[float], float] = float
    from_loss: Callable[[float], float] = float
    prefixes: bool = False

    def holds(self, value: float, limit: float) -> bool:
        """Whether a value is on the right side; NaN never is."""
        return value <= limit if self.direction == "at most" else value >= limit

    def parse(self, given: object, source: str, *, parameters: Iterable[str] = ()) -> float:
        """Read a limit.

        Args:
            given: a number, or the text of one.
            source: what it was read from, for the message.
            parameters: which gave it, if any did.

        Raises:
            TrpexportError: it is no number, or one that can't be a limit of this rule.
        """
        limit = self._number(given)
        # NaN fails both comparisons.
        if limit is None or not (self.above < limit <= self.up_to and math.isfinite(limit)):
            bounds = f"above {self.above:g}"
            if math.isfinite(self.up_to):
                bounds += f" and at most {self.up_to:g}"
            unit = f" {self.unit}" if self.unit else ""
            raise TrpexportError(
                f"{source} can't be {given!r}: the {self.title} is {self.direction} a number "
                f"{bounds}{unit}",
                parameters=parameters,
            )
        return limit

    def _number(self, given: object) -> float | None:
        if isinstance(given, bool) or not isinstance(given, int | float | str):
            return None
        unit = "([kMG]?)B?" if self.prefixes else "(us|ms|s|)" if self.unit == "ms" else "()"
        try:
            if not isinstance(given, str):
                return float(given)
            match = re.fullmatch(rf"\s*([+-]?[\d.]+(?:e[+-]?\d+)?)\s*{unit}\s*", given)
            return float(match[1]) * _PREFIXES[match[2]] if match else None
        except (ValueError, OverflowError):
            return None


class ImmeasurableError(Exception):
    """A quantity has no value; the message says why."""


RULES: Registry[Rule] = Registry("rule")


def rule_for(name: str, metric: Metric | None = None) -> Rule:
    """Return a rule, for networks that are judged by another metric where one is given.

    Raises:
        TrpexportError: there is no such rule, or it needs classes.
    """
    rule = RULES[name]
    if metric is None or rule.need != "data":
        return rule
    if name != "max-drop":
        raise TrpexportError(
            f"the {rule.title} needs classes, {metric.name} tells none: leave {name} out",
            parameters=(name,),
        )
    title = f"{'rise' if metric.lower_is_better else 'drop'} of {metric.name}"
    if metric.is_share:
        return replace(rule, title=title)
    return replace(rule, title=title, unit="", up_to=math.inf, to_loss=float, from_loss=float)


def _evaluations(measured: Measurements) -> Evaluations:
    assert measured.evaluations is not None
    for evaluation in measured.evaluations.classifiers:
        if evaluation.broken:
            raise ImmeasurableError(
                f"{evaluation.label} put out NaN or infinity on {evaluation.broken} of "
                f"{len(evaluation)} images"
            )
    return measured.evaluations


def drop_between(before: Any, after: Any) -> PairedDrop:
    """Return the drop between two networks' correctness on the same images, both (n,) bool."""
    lost, won = int(np.sum(before & ~after)), int(np.sum(after & ~before))
    return PairedDrop(len(before), lost, won)


def _drop(measured: Measurements) -> Quantity | Sample:
    if measured.scores is not None:
        return _worsening(*measured.scores.models)
    baseline, candidate = _evaluations(measured).classifiers
    return drop_between(baseline.correct, candidate.correct)


def _worsening(baseline: Score, candidate: Score) -> Quantity | Sample:
    for score in (baseline, candidate):
        if not math.isfinite(score.value):
            raise ImmeasurableError(f"{score.metric.name} of {score.label} is not a finite number")
    found = loss_between(baseline, candidate)
    if isinstance(found, float):
        return Quantity(100 * found if baseline.metric.is_share else found)
    return found


def _drop_top5(measured: Measurements) -> PairedDrop:
    baseline, candidate = _evaluations(measured).classifiers
    if len(baseline.classes) <= 5:
        raise ImmeasurableError(f"with {len(baseline.classes)} classes every top-5 is right")
    return drop_between(baseline.correct_top5, candidate.correct_top5)


def _pairs(measured: Measurements) -> tuple[OutputPair, ...]:
    """Return what both put out; all of it is finite."""
    if measured.compared is None:
        return _evaluations(measured).pairs
    compared = measured.compared
    for pair in compared.pairs:
        if pair.broken:
            raise ImmeasurableError(
                f"one of the networks put out NaN or infinity as {pair.name} on {pair.broken} of "
                f"{compared.samples} samples"
            )
    return compared.pairs


def _disagreement(measured: Measurements) -> Share:
    found = [
        Share(len(pair.differing), float(pair.differing.sum()))
        for pair in _pairs(measured)
        if pair.differing is not None
    ]
    if not found:
        raise ImmeasurableError("no output has classes to choose between")
    return max(found, key=lambda share: share.estimate)


def _output_error(measured: Measurements) -> RelativeError:
    found = [
        RelativeError.of(pair.differences, pair.squares)
        for pair in _pairs(measured)
        if pair.differences is not None
    ]
    if not found:
        raise ImmeasurableError("no output holds floats, whole numbers have no error")
    return max(found, key=lambda error: error.estimate)


def _costs(measured: Measurements) -> tuple[FileCost, FileCost]:
    assert measured.costs is not None
    return measured.costs


def _macs_ratio(measured: Measurements) -> Quantity:
    macs = []
    for cost in _costs(measured):
        if not cost.macs:
            what = (
                f"those of {', '.join(cost.uncounted)} are not known" if cost.uncounted else "none"
            )
            raise ImmeasurableError(f"the MACs can't be compared: {what}")
        macs.append(cost.macs)
    return Quantity(macs[0] / macs[1])


def _parameters(measured: Measurements) -> Quantity:
    return Quantity(float(_costs(measured)[1].parameters))


def _file_size(measured: Measurements) -> Quantity:
    return Quantity(float(_costs(measured)[1].file_bytes))


def _speedup(measured: Measurements) -> Quantity:
    assert measured.latency is not None
    ratio = measured.latency[1]["ratio"]
    return Quantity(ratio["mid"], ratio["low"], ratio["high"])


def _latency(measured: Measurements) -> Quantity:
    assert measured.latency is not None
    rounds = [1e3 * np.asarray(samples) for samples in measured.latency[1]["samples"]]
    # Against 1 ms in every round, the speed-up's estimate and interval are those of the latency.
    found = ratio_interval(rounds, [np.ones(1)] * len(rounds))
    return Quantity(found.mid, found.low, found.high)


def _efficiency(measured: Measurements) -> Quantity:
    speedup, macs = _speedup(measured), _macs_ratio(measured).value
    assert speedup.low is not None and speedup.high is not None
    return Quantity(speedup.value / macs, speedup.low / macs, speedup.high / macs)


def _points(share: float) -> float:
    return 100 * share


def _share(points: float) -> float:
    return points / 100


def _complement(percent: float) -> float:
    return 1 - percent / 100


def _agreement(share: float) -> float:
    return 100 * (1 - share)


for _name, _title, _measure in (
    ("max-drop", "drop of top-1 accuracy", _drop),
    ("max-top5-drop", "drop of top-5 accuracy", _drop_top5),
):
    RULES.register(
        _name,
        Rule(
            _title, "at most", "points", "data", _measure,
            up_to=50, to_loss=_share, from_loss=_points,
        ),
    )  # fmt: skip
RULES.register(
    "min-agreement",
    Rule(
        "agreement with the baseline", "at least", "%", "outputs", _disagreement,
        above=49.999, up_to=99.999, to_loss=_complement, from_loss=_agreement,
    ),
)  # fmt: skip
RULES.register(
    "max-output-error",
    Rule("error of the output over its RMS", "at most", "", "outputs", _output_error),
)
RULES.register("min-macs-ratio", Rule("MACs saved", "at least", "x", "costs", _macs_ratio))
RULES.register(
    "max-parameters",
    Rule("number of parameters", "at most", "", "costs", _parameters, prefixes=True),
)
RULES.register(
    "max-file-size", Rule("size of the file", "at most", "B", "costs", _file_size, prefixes=True)
)
RULES.register("min-speedup", Rule("speed-up", "at least", "x", "latency", _speedup))
RULES.register("max-latency", Rule("latency", "at most", "ms", "latency", _latency))
RULES.register(
    "min-efficiency",
    Rule("speed-up for MACs saved", "at least", "", "latency", _efficiency),
)
