"""What each criterion would do to a network: the table that helps to choose one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trpexport.choose.spectra import Analysis
from trpexport.errors import PlanError
from trpexport.lowrank.criteria import CRITERIA, Criterion
from trpexport.plan import Plan


@dataclass(frozen=True)
class CriterionOutcome:
    """What one criterion would do.

    Attributes:
        criterion: its text.
        layers: how many layers it would rewrite, the guard in force.
        macs_ratio: MACs before over MACs after.
        weight_error: Frobenius error of all weights that could be rewritten, relative to them.
    """

    criterion: str
    layers: int
    macs_ratio: float
    weight_error: float


def survey(analysis: Analysis, criteria: Sequence[Criterion] = ()) -> list[CriterionOutcome]:
    """Try criteria on the spectra of a network.

    Args:
        analysis: the spectra.
        criteria: what to try; every criterion of the registry at a few values where it is empty.
    """
    choices = []
    for criterion in criteria or suggested_criteria():
        try:
            plan = analysis.plan(criterion)
        except PlanError:  # a rank above every layer's full one, or a scheme it can't judge
            continue
        choices.append(
            CriterionOutcome(
                criterion=str(criterion),
                layers=len(plan.rewritten),
                macs_ratio=plan.macs_before / plan.macs_after if plan.macs_after else 1.0,
                weight_error=_weight_error(analysis, plan),
            )
        )
    return choices


def suggested_criteria() -> list[Criterion]:
    """Return every criterion of the registry at the values worth showing."""
    return [
        kind.parse(None if value is None else f"{value:g}")
        for _, kind in CRITERIA.items()
        for value in kind.suggestions
    ]


def mildest(
    choices: Sequence[CriterionOutcome], least_ratio: float = 1.2
) -> CriterionOutcome | None:
    """Return the choice to try first: the smallest weight error that saves a fair share of MACs.

    Args:
        choices: what there is.
        least_ratio: MACs before over after that count as a fair share; where nothing reaches it,
            the choice that saves most is returned, and None where nothing saves at all.
    """
    fair = [choice for choice in choices if choice.macs_ratio >= least_ratio]
    if fair:
        return min(fair, key=lambda choice: choice.weight_error)
    saving = [choice for choice in choices if choice.layers]
    return max(saving, key=lambda choice: choice.macs_ratio, default=None)


def _weight_error(analysis: Analysis, plan: Plan) -> float:
    ranks = {layer.name: layer.rank for layer in plan.rewritten}
    values = {layer.name: layer.values for layer in analysis.layers if layer.values is not None}
    total = sum(float(np.square(value).sum()) for value in values.values())
    dropped = sum(float(np.square(values[name][:, rank:]).sum()) for name, rank in ranks.items())
    return (dropped / total) ** 0.5 if total else 0.0
