"""What each criterion would do to a network for which the one that was asked for does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trpexport.plan import Plan
from trpexport.report.blocks import Block, Column, Kind, Portion, Table
from trpexport.report.views.uncounted import at_most, not_counted

if TYPE_CHECKING:
    from trpexport.choose.survey import CriterionOutcome


def choices_view(choices: Sequence[CriterionOutcome], plan: Plan) -> tuple[Block, ...]:
    """Show what each criterion would save.

    Args:
        choices: what there is.
        plan: the one that rewrites nothing.
    """
    table = Table(
        columns=(
            Column("criterion", "criterion", Kind.NAME),
            Column("layers", "layers rewritten", Kind.WHOLE),
            Column("saved", "MACs saved", Kind.RATIO, absent="nothing"),
            Column("weight_error", "weight error", Kind.SHARE),
        ),
        rows=tuple(
            {
                "criterion": choice.criterion,
                "layers": Portion(choice.layers, len(plan.layers)),
                "saved": at_most(choice.macs_ratio, plan.uncounted) if choice.layers else None,
                "weight_error": choice.weight_error if choice.layers else None,
            }
            for choice in choices
        ),
        title=f"No layer of {plan.architecture or 'the network'} gets cheaper with {plan.scheme} "
        f"and {plan.criterion}. What would:",
        faint=frozenset(i for i, choice in enumerate(choices) if not choice.layers),
    )
    return table, *not_counted(plan.uncounted)
