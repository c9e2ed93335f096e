"""What is said where a part of a network could not be counted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trpexport.report.blocks import Kind, Role, Text, Value

Unknown = Mapping[str, int]  # how often each operator occurs whose cost is not known


def at_least(count: float, unknown: Unknown) -> float | Value:
    """Return a count, as a bound where something is missing from it."""
    return Value(count, bound="at least") if unknown else count


def at_most(
    ratio: float | None, unknown: Unknown, kind: Kind | None = None
) -> float | Value | None:
    """Return how many times fewer, as a bound where the same is missing from both.

    Args:
        ratio: before over after; None where it has no value.
        unknown: what is missing.
        kind: what it is, where its column does not say.
    """
    if ratio is None or not (unknown or kind):
        return ratio
    return Value(ratio, kind, bound="at most" if unknown else None)


def uncounted(macs: Mapping[str, Any]) -> Unknown:
    """Return what a ``report.json`` says is missing from its MACs; older ones call it unknown."""
    found: Unknown = macs.get("uncounted", macs.get("unknown", {}))
    return found


def counts_text(counts: Mapping[str, int]) -> str:
    """List operators and how often they occur."""
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def not_counted(unknown: Unknown) -> tuple[Text, ...]:
    """Name what was not counted; nothing where all was."""
    if not unknown:
        return ()
    return (Text(f"Not counted, because not known: {counts_text(unknown)}", Role.WARNING),)
