"""Whether it paid: what a job saved, what that cost on inputs it was not fitted to, what is next.

All of it follows from the facts of a report, so that older reports get a verdict too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from trpexport.bundle import FLOAT32
from trpexport.errors import NothingToDoError, TrpexportError
from trpexport.plan import Plan
from trpexport.shown import Shown
from trpexport.text import times

TIME = "time"  # the resource of what was measured, not counted
# What networks are compared on: real inputs where somebody gave some.
RANDOM, REAL = "random inputs", "real inputs"
# Times fewer MACs, parameters or bytes that are worth a change of the network. A network runs
# less than proportionally faster: of what is below, calls and memory traffic leave nothing.
FAIR_RATIO = 1.2
# Limits of what may be lost, from where on a network is destroyed, and a saving dearly bought. On
# the public ResNet-20 (1,000 test images, ranks cut by the SVD) top-1 fell from 90.7 to 86.1 %
# where 87 % of the answers were the same and the error was 0.41, to 77.4 % at 79 % and 0.60, to
# 59.4 % at 61 % and 0.77: a quarter of the accuracy is nothing that a short fine-tuning brings
# back.
MIN_AGREEMENT, FAIR_AGREEMENT = 0.7, 0.9
# RMS error over the variation of the output: at 0.7 half of its squared variation is error. A
# classifier with 85 % of the same answers at 0.30 had lost 7.6 of 79.8 points of top-1.
MAX_ERROR, FAIR_ERROR, FAIR_ERROR_OF_CLASSES = 0.7, 0.4, 0.25
# Loss of a metric over its value before.
MAX_LOSS, FAIR_LOSS = 0.25, 0.05
# RMS error over the RMS of the output on random inputs, over which it hardly varies: the same
# ResNet-20 lost 4.6 to 13 points at 0.42, a third of its accuracy at 0.58, nearly all at 0.63.
MAX_ERROR_ON_RANDOM = 0.5
# Share of the MACs from which on the kinds of layers are why little is saved.
_MOST = 0.5
_NAMED = 3  # kinds of layers


class Outcome(StrEnum):
    """What came of it."""

    PAYS = "pays"
    HARDLY_PAYS = "hardly pays"
    DESTROYED = "destroyed"
    UNKNOWN = "unknown"  # what it costs was not measured on real inputs


class Advice(StrEnum):
    """What to do next."""

    CALIBRATE = "calibrate"  # fit the factors to unlabelled images
    TRAIN = "train"  # towards low rank, with TRP
    FINETUNE = "finetune"  # the factors
    CHOOSE = "choose"  # another criterion or a milder target
    QUANTIZE = "quantize"
    EVALUATE = "evaluate"  # on data with labels
    BENCH = "bench"


@dataclass(frozen=True)
class KindShare:
    """What became of the layers of one kind.

    Attributes:
        kind: what they are called, as in ``3x3 convolutions``.
        share: of the network's MACs before.
        ratio: their MACs before over after; None where nothing is left of them.
    """

    kind: str
    share: float
    ratio: float | None

    @property
    def is_fair(self) -> bool:
        """Whether as much is saved of them as is worth it."""
        return self.ratio is None or self.ratio >= FAIR_RATIO


@dataclass(frozen=True)
class Lost:
    """What a network gives otherwise than the original one.

    Attributes:
        inputs: how many it was measured on.
        on: what they are, for the reader.
        is_real: whether they are real ones, not random numbers.
        error: RMS error of the worst output over its variation, infinite where it has no bound;
            None where outputs are whole numbers, whose differences mean nothing.
        rms_error: the same over its RMS.
        agreement: share of the inputs with the same top-1; None where there is no such thing.
        metric: what labels were judged by; None where there were none.
        before: of that metric, the original network's value.
        after: of that metric, this network's value.
        loss: of that metric, in its own unit.
        is_share: whether the metric is a share.
    """

    inputs: int
    on: str
    is_real: bool
    error: float | None
    rms_error: float | None = None
    agreement: float | None = None
    metric: str | None = None
    before: float | None = None
    after: float | None = None
    loss: float | None = None
    is_share: bool = False

    @property
    def is_bearable(self) -> bool:
        """Whether the network is still of use, by what was measured."""
        if not self.is_real:
            return self.rms_error is None or self.rms_error < MAX_ERROR_ON_RANDOM
        return self._is_within(MAX_LOSS, MIN_AGREEMENT, MAX_ERROR)

    @property
    def is_fair(self) -> bool:
        """Whether it is as little as a saving of a fair size is worth."""
        error = FAIR_ERROR if self.agreement is None else FAIR_ERROR_OF_CLASSES
        return self.is_real and self._is_within(FAIR_LOSS, FAIR_AGREEMENT, error)

    @property
    def is_telling(self) -> bool:
        """Whether the output varies over the inputs by more than it is off."""
        return self.metric is not None or self.error is None or self.error < 1

    def _is_within(self, loss: float, agreement: float, error: float) -> bool:
        if self.metric is not None:
            return self.relative_loss <= loss
        # What is no classifier may put out a row as well: its largest entry says nothing.
        is_same = self.agreement is not None and self.agreement >= agreement
        return is_same or (self.error is not None and self.error < error)

    @property
    def relative_loss(self) -> float:
        """Loss of the metric over its value before (of a share, else over 1); infinite without."""
        before = 1.0 if self.before is None and self.is_share else self.before
        if self.loss is None or not before:
            return math.inf
        return self.loss / abs(before)


@dataclass(frozen=True, repr=False)
class Verdict(Shown):
    """What came of a job.

    Attributes:
        outcome: whether it pays.
        saved: how many times less there is of each resource: ``macs``, ``parameters``, ``bytes``;
            ``time`` where that was measured.
        lost: what it gives otherwise; None where nobody compared it with the original.
        kinds: by kind of layer, what became of the MACs; the largest share first.
        advice: what to do next, the first thing first.
    """

    outcome: Outcome
    saved: Mapping[str, float]
    lost: Lost | None
    kinds: tuple[KindShare, ...] = ()
    advice: tuple[Advice, ...] = ()

    @property
    def is_dear(self) -> bool:
        """Whether the kinds of layers are why it does not pay."""
        is_poor = self.outcome in (Outcome.HARDLY_PAYS, Outcome.DESTROYED)
        return is_poor and sum(kind.share for kind in self.dear_kinds) > _MOST

    @property
    def dear_kinds(self) -> tuple[KindShare, ...]:
        """The kinds of layers of which hardly anything is saved."""
        return tuple(kind for kind in self.kinds if not kind.is_fair)

    def shown(self) -> Mapping[str, object]:
        """Return what came of it, what is saved, and what that cost."""
        facts = {"outcome": str(self.outcome), **{n: times(r) for n, r in self.saved.items()}}
        lost = {name: getattr(self.lost, name, None) for name in ("error", "agreement", "loss")}
        return facts | {name: f"{value:.3g}" for name, value in lost.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data; an error without bound becomes None."""
        data = asdict(self)
        if self.lost is not None:
            data["lost"] = {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in data["lost"].items()
            }
        return data


@dataclass(frozen=True)
class Limits:
    """How far a network may be from the original one.

    Attributes:
        min_agreement: least share of the same top-1; None for any.
        max_error: largest RMS error of any output over its variation; None for any.
    """

    min_agreement: float | None = None
    max_error: float | None = None

    def check(self, lost: Lost | None) -> None:
        """Refuse a network that is too far away.

        Args:
            lost: what it gives otherwise; None where that is not known, or nothing was changed.

        Raises:
            NothingToDoError: it is.
            TrpexportError: no output tells classes, so that there is no top-1.
        """
        if lost is None:
            return
        where = f"on {lost.inputs} {lost.on}"
        if self.min_agreement is not None:
            if lost.agreement is None:
                raise TrpexportError(
                    "no output tells classes, so there is no top-1 to agree on: limit the error",
                    parameters=("min_agreement", "max_error"),
                )
            if lost.agreement < self.min_agreement:
                raise NothingToDoError(
                    f"top-1 is the same for {lost.agreement:.1%} {where}, and "
                    f"{100 * self.min_agreement:g}% is the limit: nothing was written"
                )
        if self.max_error is not None and lost.error is not None and lost.error > self.max_error:
            raise NothingToDoError(
                f"the output moves by {lost.error:.3g} of its variation {where}, and "
                f"{self.max_error:g} is the limit: nothing was written"
            )


def macs_by_kind(plan: Plan) -> tuple[KindShare, ...]:
    """Return what a plan makes of each kind of layer's MACs, the largest share first."""
    before: dict[str, int] = {}
    after: dict[str, int] = {}
    rows = [(layer.op.kind, layer.macs, layer.factor_macs) for layer in plan.layers]
    rows.append(("other operators", plan.other_macs, plan.other_macs))
    for kind, dense, left in rows:
        before[kind] = before.get(kind, 0) + dense
        after[kind] = after.get(kind, 0) + left
    found = [
        KindShare(kind, macs / plan.macs_before, macs / after[kind] if after[kind] else None)
        for kind, macs in before.items()
        if macs
    ]
    return tuple(sorted(found, key=lambda one: -one.share))


def why_dear(kinds: Sequence[KindShare]) -> str:
    """Say which kinds of layers hardly get cheaper, and how large a share of the MACs they are."""
    named = ", ".join(f"{kind.kind} {kind.share:.0%}" for kind in kinds[:_NAMED])
    share = sum(kind.share for kind in kinds)
    return f"{share:.0%} of the MACs are in what low rank hardly makes cheaper: {named}"


def verdict_of(report: Mapping[str, Any]) -> Verdict | None:
    """Return the verdict on a bundle; None where nothing was rewritten.

    Args:
        report: the content of its ``report.json``.
    """
    if not report["layers_rewritten"]:
        return None
    lost = lost_by(report)
    kinds = tuple(
        KindShare(kind["kind"], kind["share"], kind["ratio"])
        for kind in report["macs"].get("kinds", ())
    )
    saved = dict(_saved(report))
    found = Verdict(outcome_of(saved, lost), saved, lost, kinds)
    advice = tuple(_advice(found, is_calibrated=report["calibration"] is not None))
    return replace(found, advice=advice)


def verdict_on_variant(entry: Mapping[str, Any], saved: float, *, is_real: bool) -> Verdict:
    """Return the verdict on a network in another precision.

    Args:
        entry: what a manifest says of it.
        saved: how many times fewer bytes it takes than in float32.
        is_real: whether its outputs were compared on real inputs.
    """
    lost = _compared(entry["outputs"], REAL if is_real else RANDOM)
    drop, unit = (entry["facts"].get(name) for name in ("drop", "unit"))
    _, of_share, name = str(unit).rpartition("points of ")
    if drop is not None and of_share:
        told: dict[str, Any] = {"metric": name, "loss": drop / 100, "is_share": True}
        lost = replace(lost, on="the inputs, and images with labels", is_real=True, **told)
    found = {"bytes": saved}
    outcome = outcome_of(found, lost)
    advice = (Advice.BENCH,) if outcome is Outcome.PAYS else (Advice.CALIBRATE, Advice.CHOOSE)
    return Verdict(outcome, found, lost, advice=advice)


def outcome_of(saved: Mapping[str, float], lost: Lost | None) -> Outcome:
    """Say whether a saving is worth what is lost."""
    if lost is not None and not lost.is_bearable:
        return Outcome.DESTROYED
    if not is_saving_fair(saved):
        return Outcome.HARDLY_PAYS
    if lost is None or not lost.is_real or (lost.is_fair and not lost.is_telling):
        return Outcome.UNKNOWN
    return Outcome.PAYS if lost.is_fair else Outcome.HARDLY_PAYS


def is_saving_fair(saved: Mapping[str, float]) -> bool:
    """Whether as much is saved as is worth a change of the network, and it runs faster."""
    counts = [ratio for name, ratio in saved.items() if name != TIME]
    return saved.get(TIME, math.inf) > 1 and max(counts, default=1.0) >= FAIR_RATIO


def lost_by(report: Mapping[str, Any]) -> Lost | None:
    """Return what a report says was lost against the original; None where nobody compared."""
    outputs = next((s["outputs"] for s in report["steps"] if s["name"] == "decompose"), None)
    if not outputs:
        return None
    lost = _compared(outputs, report.get("verified_on", REAL))
    calibration = report["calibration"] or {}
    judged, held_out = calibration.get("judged"), calibration.get("held_out")
    if judged is not None:
        names = ("metric", "before", "after", "loss", "is_share")
        told = {name: judged[name] for name in names} | {"on": f"{judged['split']} images"}
        return replace(lost, inputs=judged["images"], is_real=True, **told)
    mixed = report.get("latency", {}).get("mixed")
    if held_out is not None and (lost.agreement is None or mixed is not None):
        error = held_out["output_error"] if mixed is None else mixed["error"]
        return Lost(held_out["images"], f"{held_out['split']} images", is_real=True, error=error)
    return lost


def _compared(outputs: Mapping[str, Mapping[str, Any]], on: str) -> Lost:
    """Return what the comparison of a network with the original one says, by output."""
    # Differences of whole numbers mean nothing beside those of what they were chosen by.
    numbers = [found for found in outputs.values() if found.get("agreement") is None]
    several = numbers or list(outputs.values())
    shares = [
        share
        for found in several
        if (share := found["top1_agreement"] if numbers else found["agreement"]) is not None
    ]
    return Lost(
        inputs=min(found["inputs"] for found in several),
        on=on,
        is_real=on != RANDOM,
        error=_worst(found["variation_error"] for found in numbers),
        rms_error=_worst(found["rms_error"] for found in numbers if "rms_error" in found),
        agreement=min(shares, default=None),
    )


def _worst(errors: Iterable[float | None]) -> float | None:
    """Return the largest of errors, which are None without bound; None where there are none."""
    return max((math.inf if error is None else error for error in errors), default=None)


def _saved(report: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Say how many times less of each resource a network takes."""
    for resource in ("macs", "parameters"):
        counts = report[resource]
        if counts["after"]:
            yield resource, counts["before"] / counts["after"]
    # Of the float32 file, as what is lost is told of that, unless precisions were chosen as well.
    latency = report.get("latency", {})
    name = latency.get("precision", FLOAT32) if "mixed" in latency else FLOAT32
    if (timed := latency.get("files", {}).get(name)) is not None:
        yield TIME, timed["speedup"]["mid"]


def _advice(verdict: Verdict, *, is_calibrated: bool) -> Iterator[Advice]:
    """Say what to do next, the first thing first."""
    outcome, lost = verdict.outcome, verdict.lost
    if outcome is Outcome.PAYS:
        if TIME not in verdict.saved:
            yield Advice.BENCH
        if lost is None or lost.metric is None:
            yield Advice.EVALUATE
        return
    if verdict.is_dear and not is_saving_fair(verdict.saved):
        yield Advice.QUANTIZE
        return
    # Trained since, so that there is nothing to compare with; or real inputs do not tell.
    if outcome is Outcome.UNKNOWN and (lost is None or lost.is_real):
        yield Advice.EVALUATE
        return
    if not is_calibrated:
        yield Advice.CALIBRATE
    elif outcome is not Outcome.UNKNOWN:
        yield Advice.FINETUNE
    yield Advice.TRAIN
    yield Advice.CHOOSE
