"""The gate's memory: a file of results, one JSON line each, and regressions against the last."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport.errors import TrpexportError
from trpexport.files import append_text, is_json
from trpexport.judge.gate.check import Checked, GateResult
from trpexport.judge.gate.rules import RULES, drop_between
from trpexport.judge.paired import Share
from trpexport.measure.machine import MACHINE, fingerprint
from trpexport.schema import MayLack, check, flag, number, parse_json, read_text, text, whole
from trpexport.text import with_unit

SCHEMA_VERSION = 1
_MAX_BYTES = 2**30  # of all lines: a line is parsed when the one before is forgotten
TOLERANCE = 0.01  # by which what is exact, sizes and counts, may get worse
_HEAD = {"kind": lambda kind: kind == "gate", "accepted": flag, "schema_version": whole(0)}
_ENTRY = {
    "created": MayLack(text),
    "correct": MayLack(text),
    "machine": MayLack((None, MACHINE)),
    "metric": MayLack(text),
    "rules": [{"name": text} | dict.fromkeys(("value", "low", "high"), (None, number))],
}
_DATA = {"data": {"images": whole(1), "fingerprint": text}}


@dataclass(frozen=True)
class Accepted:
    """The last result that was accepted.

    Attributes:
        created: when, in UTC.
        entry: the line of the file, parsed.
        correct: which images its candidate had right; None where it saw none.
    """

    created: str
    entry: Mapping[str, Any]
    correct: NDArray[np.bool_] | None

    def rules(self) -> dict[str, Mapping[str, Any]]:
        """Return what was found for each rule, by its name."""
        return {rule["name"]: rule for rule in self.entry["rules"]}


def history_entry(result: GateResult, regressions: Sequence[Checked] = ()) -> dict[str, Any]:
    """Return all that is remembered of a result, JSON-ready.

    Args:
        result: the result.
        regressions: what :func:`compare` gave, if it was compared.
    """
    entry = {"schema_version": SCHEMA_VERSION} | result.to_json()
    entry["created"] = datetime.now(UTC).isoformat(timespec="seconds")
    entry["accepted"] = result.passed and all(row.passed for row in regressions)
    entry["regressions"] = [row.to_json() for row in regressions]
    if result.measurements.evaluations is not None:
        correct = result.measurements.evaluations.classifiers[1].correct
        entry["correct"] = base64.b64encode(np.packbits(correct).tobytes()).decode()
    return entry


def append_entry(path: Path, entry: Mapping[str, Any]) -> None:
    """Append a result to the file, in one write.

    Raises:
        OutputError: the place can't be written.
    """
    append_text(path, json.dumps(entry, allow_nan=False) + "\n", json_lines=True)


def last_accepted(path: Path) -> Accepted:
    """Return the last accepted result of a file.

    Raises:
        TrpexportError: the file can't be read or is damaged, or nothing in it was accepted: that
            is never a pass.
    """
    try:
        # Not by splitlines: names may hold other ends of lines.
        *lines, last = read_text(path, _MAX_BYTES).split("\n")
    except FileNotFoundError:
        raise _nothing_there(f"{path} does not exist", path) from None
    except OSError as error:
        raise TrpexportError(f"can't read {path}: {error.strerror or error}") from None
    except ValueError:
        raise TrpexportError(f"{path} is no history of the gate: it is not text") from None
    if is_json(last):  # else it is empty, or half of one, which a kill left
        lines.append(last)
    found = None
    for index, line in enumerate(lines, 1):
        if line.strip():
            accepted = _read_entry(line, f"line {index} of {path}")
            found = accepted or found
    if found is None:
        raise _nothing_there(f"{path} holds no accepted result", path)
    return found


def _nothing_there(fault: str, path: Path) -> TrpexportError:
    return TrpexportError(
        f"{fault}: run the gate once with the history {path}, without comparing to it",
        parameters=("history", "compare_to"),
    )


def _read_entry(line: str, where: str) -> Accepted | None:
    """Read one line; None for a result that was not accepted."""
    try:
        entry = parse_json(line)
        check(entry, _HEAD)
        if entry["schema_version"] != SCHEMA_VERSION:
            raise TrpexportError(
                f"{where} has the schema version {entry['schema_version']}, this trpexport reads "
                f"{SCHEMA_VERSION}: use the trpexport that wrote it, or begin a new history"
            )
        check(entry, _ENTRY)
        correct = _correct(entry) if "correct" in entry else None
    except ValueError:
        raise TrpexportError(
            f"{where} is damaged: delete that line, or begin a new history"
        ) from None
    return Accepted(entry.get("created", ""), entry, correct) if entry["accepted"] else None


def _correct(entry: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Return which images a line says were right."""
    check(entry, _DATA)
    packed = np.frombuffer(base64.b64decode(entry["correct"], validate=True), np.uint8)
    count = entry["data"]["images"]
    if len(packed) != -(-count // 8):
        raise ValueError("another number of images")
    return np.unpackbits(packed, count=count).astype(bool)


def compare(result: GateResult, accepted: Accepted) -> tuple[Checked, ...]:
    """Say what got worse since the last accepted result.

    - Accuracy, on the same images: the whole 95 % interval of the paired drop lies above 0. On
      other images the two intervals of the accuracy must overlap.
    - What has an interval otherwise: the two intervals must overlap. Times are compared only
      where the machine is the same.
    - What is exact: at most :data:`TOLERANCE` worse.

    Raises:
        TrpexportError: the accepted result was held to a rule that this one is not, so that
            something might get worse unseen.
    """
    metrics = accepted.entry.get("metric"), result.facts.get("metric")
    if metrics[0] != metrics[1]:
        then, now_ = (name or "classes" for name in metrics)
        raise TrpexportError(
            f"the accepted result of {accepted.created} was judged by {then}, this one by {now_}: "
            "judge by the same, or begin a new history",
            parameters=("metric",),
        )
    old_rules = accepted.rules()
    now = {rule.name: rule for rule in result.rules}
    missing = [name for name in old_rules if name not in now]
    judged = accepted.correct is not None and any(RULES[n].need == "data" for n in old_rules)
    if missing or (judged and result.measurements.evaluations is None):
        what = missing[0] if missing else "a data set"
        raise TrpexportError(
            f"the accepted result of {accepted.created} was measured with {what}, this one is not: "
            "measure the same, or begin a new history",
            parameters=missing[:1] or ("data",),
        )
    rows = [_compare_rule(now[name], old, result, accepted) for name, old in old_rules.items()]
    if accepted.correct is not None and result.measurements.evaluations is not None:
        rows.insert(0, _compare_accuracy(result, accepted))
    return tuple(row for row in rows if row is not None)


def _compare_accuracy(result: GateResult, accepted: Accepted) -> Checked:
    assert result.measurements.evaluations is not None and accepted.correct is not None
    candidate = result.measurements.evaluations.classifiers[1]
    head = ("compare-to", "drop since the last accepted", "at most", 0.0, "points")
    if candidate.broken:
        return Checked(*head, False, reason=f"{candidate.label} put out NaN or infinity")
    if accepted.entry["data"]["fingerprint"] == candidate.fingerprint:
        drop = drop_between(accepted.correct, candidate.correct)
        value, (low, high) = drop.estimate, drop.interval()
    else:  # other images: each accuracy has an interval of its own
        old, new = (
            Share(len(correct), float((~correct).sum()))
            for correct in (accepted.correct, candidate.correct)
        )
        value = new.estimate - old.estimate
        low = new.interval()[0] - old.interval()[1]
        high = new.interval()[1] - old.interval()[0]
    passed = low <= 0
    reason = "" if passed else "worse than the last accepted candidate: all of the interval is"
    return Checked(*head, passed, 100 * value, 100 * low, 100 * high, reason)


def _compare_rule(
    now: Checked, old: Mapping[str, Any], result: GateResult, accepted: Accepted
) -> Checked | None:
    """Compare one rule; None where it can't be compared, or has failed on its own anyhow."""
    rule = RULES[now.name]
    if now.value is None or old["value"] is None:
        return None
    sign = 1 if rule.direction == "at most" else -1  # signed values: larger is worse
    if now.low is None or now.high is None or old["low"] is None or old["high"] is None:
        passed = sign * (now.value - old["value"]) <= TOLERANCE * abs(old["value"])
    else:
        if rule.need == "latency" and not _same_machine(result, accepted):
            return None
        best_now = now.low if sign > 0 else now.high
        worst_then = old["high"] if sign > 0 else old["low"]
        passed = sign * (best_now - worst_then) <= 0
    reason = "" if passed else f"worse than the last accepted: {with_unit(old['value'], now.unit)}"
    return Checked(
        f"compare-to {now.name}",
        f"{now.title}, since the last accepted",
        rule.direction,
        float(old["value"]),
        now.unit,
        passed,
        now.value,
        now.low,
        now.high,
        reason,
    )


def _same_machine(result: GateResult, accepted: Accepted) -> bool:
    machines = (result.facts.get("machine"), accepted.entry.get("machine"))
    if machines[0] is None or machines[1] is None:
        return False
    return fingerprint(machines[0]) == fingerprint(machines[1])
