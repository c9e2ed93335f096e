"""The gate's limits: from a section of a TOML file, overridden by what was typed."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from trpexport.errors import TrpexportError
from trpexport.judge.examples import find_judge
from trpexport.judge.gate.rules import RULES, Need, rule_for
from trpexport.judge.metrics import find_metric
from trpexport.judge.metrics.base import Metric

OWN_FILE, PROJECT_FILE = "trpexport.toml", "pyproject.toml"
_SECTIONS = {OWN_FILE: ("gate",), PROJECT_FILE: ("tool", "trpexport", "gate")}
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

    Raises:
        TrpexportError: a file can't be read; a key is unknown; a limit is no number, of the wrong
            sign or out of range; there is no limit at all; or no such metric, or none for raw
            tensors.
    """
    section, source = _section(config)
    for key, value in section.items():
        if key not in {*RULES, *_OTHERS}:
            raise _unknown(key, source, [*RULES, *_OTHERS])
        if key in _OTHERS and not isinstance(value, _OTHERS[key]):
            raise TrpexportError(f"{key} in {source} can't be {value!r}: {_SAID[_OTHERS[key]]}")
    if metric is None:
        judge = _metric_of(section, source, data, lower_is_better)
    else:
        judge = find_judge(data, metric, lower_is_better=lower_is_better)
    asked = {**section, **{name: value for name, value in typed.items() if value is not None}}
    if judge is None and needs_labels(asked):
        find_judge(data, None)
    found = {
        key: rule_for(key, judge).parse(value, f"{key} in {source}")
        for key, value in section.items()
        if key not in _OTHERS
    }
    stands = bool(section.get(_CONFIDENT)) if confident is None else confident
    return parsed_limits(
        {name: value for name, value in typed.items() if value is not None}, stands, found, judge
    )


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


def _section(config: Path | None) -> tuple[Mapping[str, Any], str]:
    """Return the gate's section, empty if there is none, and what to call it."""
    if config is not None:
        section = _find(config)
        if section is None:
            raise TrpexportError(f"{config} has no section {_name(config)}: add it")
        return section, str(config)
    for name in (OWN_FILE, PROJECT_FILE):
        path = Path(name)
        if path.is_file() and (section := _find(path)) is not None:
            return section, name
    return {}, ""


def _find(path: Path) -> Mapping[str, Any] | None:
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise TrpexportError(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:  # bad UTF-8 too
        raise TrpexportError(f"{path} is not valid TOML: {error}") from None
    steps = _steps(path)
    for depth, step in enumerate(steps):
        if not isinstance(table, dict):
            raise _no_table(path, steps[:depth])
        # The innermost table is ours alone; in those of everyone a near name can only be a slip.
        ours = depth == len(steps) - 1
        others = [key for key in table if key != step]
        if others and ours:
            raise _unknown(others[0], str(path), [step])
        if step not in table:
            near = difflib.get_close_matches(step, table, n=1, cutoff=0.8)
            if near:
                raise _unknown(near[0], str(path), [step])
            return None
        table = table[step]
    if not isinstance(table, dict):
        raise _no_table(path, steps)
    return table


def _no_table(path: Path, steps: tuple[str, ...]) -> TrpexportError:
    return TrpexportError(f"{'.'.join(steps)} in {path} must be a section, as in {_name(path)}")


def _steps(path: Path) -> tuple[str, ...]:
    return _SECTIONS[PROJECT_FILE if path.name == PROJECT_FILE else OWN_FILE]


def _name(path: Path) -> str:
    return f"[{'.'.join(_steps(path))}]"


def _unknown(key: str, source: str, known: list[str]) -> TrpexportError:
    near = difflib.get_close_matches(key.replace("_", "-"), known, n=3)
    choice = f"did you mean {', '.join(near)}" if near else f"choose from {', '.join(known)}"
    return TrpexportError(f"unknown key {key!r} in {source}: {choice}")
