"""One run of the gate: measure what the rules ask for, hold it against the limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from trpexport.errors import DataError
from trpexport.files import sha256_of
from trpexport.judge.classify import Evaluations
from trpexport.judge.gate.config import Limits
from trpexport.judge.gate.rules import (
    FileCost,
    ImmeasurableError,
    Measurements,
    Quantity,
    Rule,
    drop_between,
    rule_for,
)
from trpexport.judge.metrics.base import Metric
from trpexport.judge.outputs import Compared
from trpexport.judge.paired import Sample, Verdict, images_needed, judge, mcnemar_p
from trpexport.judge.scoring import Scores
from trpexport.measure.bench import BenchSettings, bench
from trpexport.onnxfile.counting import count_onnx
from trpexport.onnxfile.external_data import external_paths
from trpexport.onnxfile.recognition import check_onnx_file
from trpexport.runtime.session import open_session
from trpexport.shown import Shown
from trpexport.tensors import NO_SHAPES, Shapes, resolve_shapes, shapes_by_network
from trpexport.text import with_unit


@dataclass(frozen=True)
class Checked:
    """One rule, applied.

    Attributes:
        name: the rule's name, which is its flag.
        title: what it measures.
        direction: ``at most`` or ``at least`` the limit passes.
        limit: the limit.
        unit: of limit, value and interval.
        passed: whether the candidate keeps within the limit, as far as can be told.
        value: what was measured; None where it has no value.
        low: lower end of the 95 % interval; None for what is exact.
        high: upper end.
        reason: why it failed, a sentence; empty where it passed.
        images_needed: how many images would decide, where there were too few.
    """

    name: str
    title: str
    direction: str
    limit: float
    unit: str
    passed: bool
    value: float | None = None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    images_needed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data; an end that is infinite becomes None."""
        return {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in asdict(self).items()
        }


@dataclass(frozen=True, repr=False)
class GateResult(Shown):
    """What the gate found.

    Attributes:
        rules: every rule that applied.
        confident: whether whole intervals had to be inside of the limits.
        measurements: all that was measured.
        facts: more to know: accuracies, McNemar's p, the machine; JSON-ready.
    """

    rules: tuple[Checked, ...]
    confident: bool
    measurements: Measurements
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether all rules passed, of which there must be one."""
        return bool(self.rules) and all(rule.passed for rule in self.rules)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            "kind": "gate",
            "passed": self.passed,
            "confident": self.confident,
            **self.facts,
            "rules": [rule.to_json() for rule in self.rules],
        }

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        failed = [rule.name for rule in self.rules if not rule.passed]
        return {
            "passed": self.passed,
            "rules": len(self.rules),
            **({"failed": ", ".join(failed)} if failed else {}),
        }


def run_gate(
    limits: Limits,
    settings: BenchSettings,
    *,
    evaluations: Evaluations | None = None,
    scores: Scores | None = None,
    compared: Compared | None = None,
    announce: Callable[[str], None] | None = None,
) -> GateResult:
    """Hold a candidate against its baseline.

    Args:
        limits: the rules that apply.
        settings: the two ONNX files, the baseline first, and how to measure their latency where a
            rule asks for it. Shapes that they leave open are taken from the evaluations.
        evaluations: both on the same images; needed by rules on accuracy, and enough for those on
            outputs.
        scores: both by the limits' metric, which rules on accuracy need in the place of
            evaluations.
        compared: what both put out; needed by rules on outputs without evaluations.
        announce: called with a line on each step.

    Raises:
        DataError: a rule needs images and there are none.
        ModelError: a network can't be read or run.
    """
    say = announce or (lambda line: None)
    baseline, candidate = (Path(model.path) for model in settings.models)
    seen = evaluations if limits.metric is None else scores
    unmet = [*limits.of("data")] if seen is None else []
    if evaluations is None and compared is None:
        unmet += limits.of("outputs")
    if names := [name for name in limits.limits if name in unmet]:
        raise DataError(
            f"{', '.join(names)} needs images: name them, as in cifar10:DIR",
            parameters=("data",),
        )
    for path in (baseline, candidate):
        check_onnx_file(path)
    costs = record = None
    shapes = _input_shapes(settings, evaluations, scores or compared)
    if limits.of("costs") or "min-efficiency" in limits.limits:
        say("count MACs and parameters")
        costs = (_cost(baseline, shapes[0]), _cost(candidate, shapes[1]))
    if limits.of("latency"):
        record = bench(_each_at_its_own(settings, shapes), announce=announce)
    models = None if record is None else record["results"][0]["models"]
    measured = Measurements(evaluations, scores, costs, compared, models and (models[0], models[1]))
    return GateResult(
        tuple(
            apply(name, limit, measured, confident=limits.confident, metric=limits.metric)
            for name, limit in limits.limits.items()
        ),
        limits.confident,
        measured,
        _facts(baseline, candidate, measured, record),
    )


def apply(
    name: str,
    limit: float,
    measured: Measurements,
    *,
    confident: bool = False,
    metric: Metric | None = None,
) -> Checked:
    """Hold what was measured against the limit of one rule; what has no finite value fails."""
    rule = rule_for(name, metric)

    def checked(passed: bool, reason: str = "", **found: Any) -> Checked:
        head = (name, rule.title, rule.direction, limit, rule.unit)
        return Checked(*head, passed, reason=reason, **found)

    try:
        found = rule.measure(measured)
    except ImmeasurableError as error:
        return checked(False, str(error))
    if isinstance(found, Quantity):
        return checked(**_judge_quantity(rule, limit, found, confident))
    return checked(**_judge_sample(rule, limit, found, confident))


def _judge_quantity(rule: Rule, limit: float, found: Quantity, confident: bool) -> dict[str, Any]:
    if not math.isfinite(found.value):
        return {"passed": False, "reason": f"the {rule.title} is not a finite number"}
    facts: dict[str, Any] = {"value": found.value, "low": found.low, "high": found.high}
    if not rule.holds(found.value, limit):
        return {"passed": False, "reason": _over(rule, limit, found.value), **facts}
    if confident and found.low is None and rule.need in ("data", "outputs"):
        return {"passed": False, "reason": f"the {rule.title} has no interval", **facts}
    worst = found.high if rule.direction == "at most" else found.low
    if confident and worst is not None and not rule.holds(worst, limit):
        return {"passed": False, "reason": "its interval reaches beyond the limit", **facts}
    return {"passed": True, **facts}


def _judge_sample(rule: Rule, limit: float, sample: Sample, confident: bool) -> dict[str, Any]:
    if not math.isfinite(sample.estimate):
        return {"passed": False, "reason": f"the {rule.title} is not a finite number"}
    loss_limit = rule.to_loss(limit)
    verdict = judge(sample, loss_limit, confident=confident)
    low, high = sorted(rule.from_loss(end) for end in sample.interval())
    facts: dict[str, Any] = {"value": rule.from_loss(sample.estimate), "low": low, "high": high}
    if verdict is Verdict.WITHIN:
        return {"passed": True, **facts}
    if verdict is Verdict.OVER:
        return {"passed": False, "reason": _over(rule, limit, facts["value"]), **facts}
    needed = images_needed(sample, loss_limit, confident=confident)
    few = f"too few images: {_undecided(rule, limit, sample, needed, confident)}"
    is_over = sample.estimate > loss_limit
    return {
        "passed": False,
        "reason": f"{_over(rule, limit, facts['value'])}; {few}" if is_over else few,
        "images_needed": needed,
        **facts,
    }


def _over(rule: Rule, limit: float, value: float) -> str:
    side = "over" if rule.direction == "at most" else "below"
    return f"{side} the limit: {with_unit(value, rule.unit)}, {rule.direction} {limit:g} passes"


def _undecided(
    rule: Rule, limit: float, sample: Sample, needed: int | None, confident: bool
) -> str:
    count = int(sample.n)
    if confident and sample.estimate <= rule.to_loss(limit):
        why = f"with {count} the interval reaches beyond the limit"
    else:
        twice = with_unit(rule.from_loss(2 * rule.to_loss(limit)), rule.unit)
        why = f"{count} can't tell {with_unit(limit, rule.unit)} from {twice}"
    if needed is None:
        return f"{why}, nor could any number of images like these"
    return f"{why}; about {round_up(needed):,} would decide"


def round_up(count: int) -> int:
    """Return a count rounded up to two digits: what is needed is an estimate."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step


def _input_shapes(
    settings: BenchSettings, evaluations: Evaluations | None, others: Scores | Compared | None
) -> list[Shapes]:
    """Return the input shapes that each network is counted and timed with."""
    sessions = [open_session(Path(model.path)) for model in settings.models]
    given = shapes_by_network([session.inputs for session in sessions], settings.shapes)
    found: list[Shapes] = []
    for index, session in enumerate(sessions):
        batch = session.batch_size or settings.batch or 1
        if not given[index] and evaluations is not None:
            given[index] = {session.inputs[0].name: (batch, *evaluations.inputs[index])}
        if not given[index] and others is not None:
            seen = others.inputs[index].items()
            given[index] = {name: (batch, *shape[1:]) for name, shape in seen}
        found.append(resolve_shapes(session.inputs, given[index], batch))
    return found


def _each_at_its_own(settings: BenchSettings, shapes: Sequence[Shapes]) -> BenchSettings:
    """Return settings that time each network on inputs of its own shapes."""
    models = tuple(
        replace(model, shapes=own) for model, own in zip(settings.models, shapes, strict=True)
    )
    return replace(settings, models=models, shapes=NO_SHAPES, keep_samples=True)


def _cost(path: Path, shapes: Shapes) -> FileCost:
    cost = count_onnx(path, shapes=shapes)
    files = [path, *external_paths(path)]
    first = next(iter(shapes.values()), ())
    images = first[0] if first else 1
    return FileCost(
        macs=None if cost.uncounted else cost.macs / images,
        parameters=cost.parameters,
        file_bytes=sum(file.stat().st_size for file in files),
        uncounted=tuple(cost.uncounted),
    )


def _facts(
    baseline: Path, candidate: Path, measured: Measurements, record: Mapping[str, Any] | None
) -> dict[str, Any]:
    facts: dict[str, Any] = {
        name: {"path": str(path), "sha256": sha256_of(path)}
        for name, path in (("baseline", baseline), ("candidate", candidate))
    }
    if measured.evaluations is not None:
        before, after = measured.evaluations.classifiers
        drop = drop_between(before.correct, after.correct)
        facts["baseline"] |= before.to_json()
        facts["candidate"] |= after.to_json()
        facts["top1"] = {
            "lost": drop.lost,
            "won": drop.won,
            "mcnemar_p": mcnemar_p(int(drop.lost), int(drop.won)),
        }
        facts["data"] = {
            "name": before.data,
            "split": before.split,
            "images": len(before),
            "fingerprint": before.fingerprint,
        }
    if measured.compared is not None:
        compared = measured.compared
        facts["outputs"] = compared.facts()
        facts["data"] = {
            "name": compared.data,
            "split": compared.split,
            "images": compared.samples,
            "fingerprint": compared.fingerprint,
        }
    if measured.scores is not None:
        first, second = measured.scores.models
        facts["baseline"] |= first.to_json()
        facts["candidate"] |= second.to_json()
        facts["metric"] = first.metric.name
        facts["data"] = {
            "name": first.data,
            "split": first.split,
            "images": first.samples,
            "fingerprint": first.fingerprint,
        }
    if record is not None:
        facts["machine"] = record["machine"]
    return facts
