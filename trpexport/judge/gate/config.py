"""The gate's limits: from a section of a TOML file, overridden by what was typed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from trpexport.errors import TrpexportError
from trpexport.judge.examples import find_judge, usual_metric
from trpexport.judge.gate.rules import RULES, Need, rule_for
from trpexport.judge.metrics import find_metric
from trpexport.judge.metrics.base import Metric
from trpexport.sections import OWN_FILE, read_section, unknown_key

if TYPE_CHECKING:  # the data sets come from above: a device that only benches has none
    from trpexport.datasets.base import Dataset
    from trpexport.datasets.tensors import TensorSet

_SECTION = "gate"
_CONFIDENT, _METRIC, _LOWER = "confident", "metric", "metric-lower-is-better"
_OTHERS = {_CONFIDENT: bool, _METRIC: str, _LOWER: bool}  # keys that are no rules, and their types
_SAID = {bool: "say true or false", str: "give its name, as in 'miou'"}


@dataclass(frozen=True)
class Limits:
    """What a candidate is held to.

    Attributes:
        limits: a limit in the rule's unit for every rule that applies, in the registry's order.
        confident: whether whole intervals have to be inside of the limits.
        metric: what networks are judged by; None for classes that are right.
    """

    limits: Mapping[str, float]
    confident: bool = False
    metric: Metric | None = None

    def of(self, need: Need) -> list[str]:
        """Return the names of the rules that need this to be measured."""
        return [name for name in self.limits if RULES[name].need == need]


def read_limits(
    typed: Mapping[str, object],
    *,
    confident: bool | None = None,
    config: Path | None = None,
    data: str = "the data",
    metric: str | None = None,
    lower_is_better: bool = False,
    others: Collection[str] = (),
    beside: Collection[str] = (),
) -> Limits:
    """Return the limits of the configuration file, overridden by those that were typed.

    Args:
        typed: limits by rule name, numbers or text; None for what was not typed.
        confident: what was typed; None for nothing.
        config: the file; None looks in the working directory for ``trpexport.toml``, then for
            a section in ``pyproject.toml``.
        data: what networks are judged on, as it was typed.
        metric: the metric that was typed, which replaces that of the file; None for nothing.
        lower_is_better: whether it was typed that less is better, of whichever metric.
        others: further keys of the section, which somebody else reads.
        beside: further sections of the file, likewise.

    Raises:
        TrpexportError: a file can't be read; a key is unknown; a limit is no number, of the wrong
            sign or out of range; there is no limit at all; or no such metric, or none for raw
            tensors.
    """
    section, source = read_section(_SECTION, config, beside=beside)
    own = {key: value for key, value in section.items() if key in {*RULES, *_OTHERS}}
    for key in section:
        if key not in own and key not in others:
            raise unknown_key(key, source, [*RULES, *_OTHERS])
    for key, value in own.items():
        if key in _OTHERS and not isinstance(value, _OTHERS[key]):
            raise TrpexportError(f"{key} in {source} can't be {value!r}: {_SAID[_OTHERS[key]]}")
    if metric is None:
        judge = _metric_of(own, source, data, lower_is_better)
    else:
        judge = find_judge(data, metric, lower_is_better=lower_is_better)
    found = {
        key: rule_for(key, judge).parse(value, f"{key} in {source}")
        for key, value in own.items()
        if key not in _OTHERS
    }
    stands = bool(own.get(_CONFIDENT)) if confident is None else confident
    return parsed_limits(
        {name: value for name, value in typed.items() if value is not None}, stands, found, judge
    )


def with_usual_metric(limits: Limits, data: Dataset | TensorSet) -> Limits:
    """Return limits with the metric that data are judged by where nobody names one.

    Raises:
        TrpexportError: a limit needs labels, and raw tensors with other targets than classes come
            without a metric.
    """
    if limits.metric is not None or not limits.of("data"):
        return limits
    return replace(limits, metric=find_judge(data.name, usual_metric(data, None)))


def needs_labels(limits: Mapping[str, object]) -> bool:
    """Whether a limit, by the name of its rule, is on what labels tell."""
    return any(name in RULES and RULES[name].need == "data" for name in limits)


def parsed_limits(
    typed: Mapping[str, object],
    confident: bool = False,
    others: Mapping[str, float] = MappingProxyType({}),
    metric: Metric | None = None,
) -> Limits:
    """Return limits from numbers or text.

    Args:
        typed: by rule name.
        confident: whether whole intervals have to be inside of the limits.
        others: limits of rules that are not typed.
        metric: what networks are judged by; None for classes that are right.

    Raises:
        TrpexportError: a rule is unknown, its limit can't be used, or there is none at all.
    """
    found = dict(others)
    for name, value in typed.items():
        found[name] = rule_for(name, metric).parse(value, name, parameters=(name,))
    if not found:
        raise TrpexportError(
            "there is no limit to hold the candidate to: add one, as in max-drop 1.0, or a "
            f"section [gate] in {OWN_FILE}",
            parameters=("max-drop",),
        )
    return Limits({name: found[name] for name in RULES if name in found}, confident, metric)


def _metric_of(
    section: Mapping[str, Any], source: str, data: str, lower_is_better: bool
) -> Metric | None:
    """Return the metric of a file's section; None for classes that are right."""
    name, lower = section.get(_METRIC), bool(section.get(_LOWER))
    if name is None:
        if lower:
            raise TrpexportError(f"{_LOWER} in {source} is of no metric: name it, as {_METRIC}")
        if lower_is_better:
            find_judge(data, None, lower_is_better=True)
        return None
    try:
        return find_metric(name, lower_is_better=lower or lower_is_better)
    except TrpexportError as error:
        raise TrpexportError(f"{_METRIC} in {source}: {error}") from error
