"""A plan: what happens to each layer, the totals, and why layers are kept."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trpexport.plan import LayerPlan, Plan
from trpexport.report.blocks import Block, Column, Kind, Portion, Table, Text, Value
from trpexport.report.views.uncounted import at_least, at_most, not_counted


def plan_view(plan: Plan) -> tuple[Block, ...]:
    """Show what happens to each layer, the totals, what was not counted, and why some are kept."""
    is_mixed = any(layer.scheme != plan.scheme for layer in plan.rewritten)
    rows = [_row(layer) for layer in plan.layers]
    faint = {index for index, layer in enumerate(plan.layers) if not layer.is_rewritten}
    if plan.other_macs:
        faint.add(len(rows))
        macs = plan.other_macs
        rows.append({"layer": "others", "rank": None, "before": macs, "after": macs})
    before, after, unknown = plan.macs_before, plan.macs_after, plan.uncounted
    total = {
        "layer": "all",
        "before": at_least(before, unknown),
        "after": at_least(after, unknown),
        "saved": at_most(before / after if after else None, unknown),
    }
    table = Table(
        columns=(
            Column("layer", "layer", Kind.NAME),
            Column("operator", "operator", Kind.NAME, optional=True),
            *((Column("scheme", "scheme", Kind.NAME),) if is_mixed else ()),
            Column("rank", "rank", Kind.WHOLE, absent="kept"),
            Column("before", "MACs", Kind.COUNT),
            Column("after", "after", Kind.COUNT),
            Column("saved", "saved", Kind.RATIO),
            Column("weight_error", "weight error", Kind.SHARE, optional=True),
        ),
        rows=tuple(rows),
        totals=(total,),
        title=(
            f"{plan.architecture or 'network'}, {plan.scheme}, {plan.criterion}; ",
            Value(Portion(len(plan.rewritten), len(plan.layers)), Kind.WHOLE),
            " layers rewritten",
        ),
        faint=frozenset(faint),
    )
    reasons = [(layer.name, layer.reason) for layer in plan.layers]
    return table, *_alignment(plan), *not_counted(unknown), *kept_tables(reasons)


def _alignment(plan: Plan) -> tuple[Text, ...]:
    """Say what ranks were rounded up to multiples of; nothing where they were not."""
    multiple, reason = (plan.options.get(f"rank_multiple{end}") for end in ("", "_reason"))
    if multiple in (None, 1):
        return ()
    cheaper = "" if reason == "given" else " where that is cheaper"
    return (Text(f"Ranks are multiples of {multiple}{cheaper} ({reason})"),)


def _row(layer: LayerPlan) -> dict[str, Any]:
    row: dict[str, Any] = {
        "layer": layer.name,
        "operator": str(layer.op),
        "rank": None,
        "before": layer.macs,
        "after": layer.factor_macs,
    }
    if not layer.is_rewritten:
        return row
    assert layer.rank is not None and layer.full_rank is not None
    return row | {
        "scheme": layer.scheme,
        "rank": Portion(layer.rank, layer.full_rank),
        "saved": layer.macs / layer.factor_macs if layer.factor_macs else None,
        "weight_error": layer.weight_error,
    }


def kept_tables(reasons: Iterable[tuple[str, str | None]]) -> tuple[Table, ...]:
    """Say why layers are kept; nothing where none is.

    Args:
        reasons: of each layer, by its name; None where it is rewritten.
    """
    rows = tuple({"layer": name, "reason": reason} for name, reason in reasons if reason)
    columns = (Column("layer", "kept", Kind.NAME), Column("reason", "because", Kind.PROSE))
    return (Table(columns, rows),) if rows else ()
