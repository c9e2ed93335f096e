"""Which layer gets how much: the choice of least error within a budget, exactly.

One option is chosen of each layer's, so that the sum of costs stays within the budget and the sum
of errors is least: a multiple-choice knapsack problem (Sinha and Zoltners, "The Multiple-Choice
Knapsack Problem", Operations Research 27, 1979), solved by HiGHS to optimality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from trpexport.choose.by_plan import revised
from trpexport.choose.selection import Selection
from trpexport.choose.spectra import keep_all
from trpexport.choose.table import LayerOptions, Option, SensitivityTable
from trpexport.errors import NothingToDoError, PlanError
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.plan import Plan

# How far from the best the solver may stop, relative to it.
_GAP = 1e-9
# Of a budget: what adding up may lose.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Allotment:
    """One option for each layer of a table.

    Attributes:
        chosen: the option of each layer, by name.
        costs: what the whole network needs of each resource.
        error: squared error of the network's output, relative, if layers do not interact.
    """

    chosen: Mapping[str, Option]
    costs: Mapping[str, float]
    error: float


def allot(
    table: SensitivityTable,
    fraction: float,
    *,
    resource: str = "macs",
    weights: Mapping[str, float] = MappingProxyType({}),
    handicaps: Mapping[str, float] = MappingProxyType({}),
) -> Allotment:
    """Choose schemes and ranks of least error among those that fit a budget.

    Args:
        table: the options.
        fraction: what may remain of the resource, of the whole network, above 0 and below 1.
        resource: what is scarce.
        weights: factors on the errors of layers, by name; 1 for those that are not in it.
        handicaps: factors on the errors of schemes, likewise; they decide, and are not in the
            error of the result.

    Raises:
        PlanError: the fraction is not between 0 and 1.
        NothingToDoError: nothing fits; the message says what the best is.
    """
    if not 0 < fraction < 1:
        raise PlanError(f"a target of {fraction:g} is out of range: it must be between 0 and 1")
    fixed = table.fixed[resource]
    cost = [[option.costs[resource] for option in layer.options] for layer in table.layers]
    whole = fixed + sum(options[0] for options in cost)
    least = fixed + sum(map(min, cost))
    budget = fraction * whole
    if least > budget:
        raise NothingToDoError(
            f"the target of {fraction:g} of the {resource} can't be met: the best is "
            f"{least / whole:.3f}, every layer at its lowest rank"
        )
    error = [
        [
            option.error
            * layer.gain
            * weights.get(layer.name, 1.0)
            * handicaps.get(option.scheme or "", 1.0)
            for option in layer.options
        ]
        for layer in table.layers
    ]
    places = _knapsack(cost, error, budget - fixed)
    return summed(
        table, {layer.name: layer.options[i] for layer, i in zip(table.layers, places, strict=True)}
    )


def summed(table: SensitivityTable, chosen: Mapping[str, Option]) -> Allotment:
    """Return a choice with its totals."""
    return Allotment(
        chosen=chosen,
        costs={
            resource: fixed + sum(option.costs[resource] for option in chosen.values())
            for resource, fixed in table.fixed.items()
        },
        error=sum(layer.gain * chosen[layer.name].error for layer in table.layers),
    )


def whole_network(table: SensitivityTable) -> Allotment:
    """Return the choice that leaves every layer as it is."""
    return summed(table, {layer.name: layer.options[0] for layer in table.layers})


def smallest_fraction(table: SensitivityTable, resource: str = "macs") -> float:
    """Return the smallest fraction of the resource for which :func:`allot` finds a choice."""

    def least(layer: LayerOptions) -> Option:
        return min(layer.options, key=lambda option: option.costs[resource])

    lowest = summed(table, {layer.name: least(layer) for layer in table.layers})
    return lowest.costs[resource] / whole_network(table).costs[resource]


def plan_for(
    network: Network,
    allotment: Allotment,
    *,
    scheme: str,
    criterion: str,
    selection: Selection,
    architecture: str | None = None,
) -> Plan:
    """Return the plan of a choice.

    Args:
        network: the network that the table was measured on.
        allotment: the choice.
        scheme: what was asked for, ``auto`` or the name of a scheme.
        criterion: the target, as text, for the reader.
        selection: the layers that may be rewritten, as for the table.
        architecture: what the network is called, for the reader.

    Raises:
        NothingToDoError: the choice is to leave every layer as it is.
    """
    first = SCHEMES[next(iter(SCHEMES)) if scheme == "auto" else scheme]
    reasons = selection.reasons_to_stay(network, first)
    bare = keep_all(network, architecture=architecture)
    rows = []
    for row in bare.layers:
        option = allotment.chosen.get(row.name)
        if option is None:
            reason = reasons[row.name] or "no rank that may be chosen is cheaper"
            rows.append(replace(row, reason=reason))
        elif option.scheme is None:
            rows.append(replace(row, reason="the budget leaves it whole"))
        else:
            rows.append(replace(row, scheme=option.scheme, rank=option.rank))
    wanted = replace(
        bare,
        scheme=scheme,
        criterion=criterion,
        layers=tuple(rows),
        options=selection.options,
    )
    plan = revised(network, wanted)
    if not plan.rewritten:
        raise NothingToDoError(f"{criterion} leaves every layer as it is: ask for less to remain")
    return replace(plan, criterion=criterion)


def _knapsack(
    cost: Sequence[Sequence[float]], error: Sequence[Sequence[float]], budget: float
) -> list[int]:
    """Return the place of one entry a row: least error in sum, at most ``budget`` cost in sum.

    The solver keeps to a budget but for a tolerance of its own: where it used that, it is given
    less until what it finds keeps to the whole.
    """
    limit = budget
    while True:
        places = _solved(cost, error, limit)
        total = sum(row[place] for row, place in zip(cost, places, strict=True))
        if total <= budget + _ROUNDING * abs(budget):
            return places
        limit -= total - budget


def _solved(
    cost: Sequence[Sequence[float]], error: Sequence[Sequence[float]], budget: float
) -> list[int]:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix

    kept = [_undominated(*row) for row in zip(cost, error, strict=True)]
    owners = np.repeat(np.arange(len(kept)), [len(row) for row in kept])
    costs = np.array([cost[o][i] for o, row in enumerate(kept) for i in row], dtype=float)
    errors = np.array([error[o][i] for o, row in enumerate(kept) for i in row])
    one_each = csr_matrix((np.ones(len(owners)), (owners, np.arange(len(owners)))))
    unit = budget if budget > 0 else 1.0
    result = milp(
        errors / (errors.max() or 1.0),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(costs[None] / unit, -np.inf, budget / unit + _ROUNDING),
        ],
        integrality=np.ones(len(owners)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": _GAP},
    )
    if result.x is None:  # nothing fits by the solver's own arithmetic: what is cheapest does
        return [min(range(len(row)), key=row.__getitem__) for row in cost]
    taken = result.x > 0.5
    places = [i for row in kept for i in row]
    return [place for place, is_taken in zip(places, taken, strict=True) if is_taken]


def _undominated(cost: Sequence[float], error: Sequence[float]) -> list[int]:
    """Return the places of a row that no other place beats at both, cheapest first."""
    kept: list[int] = []
    for place in sorted(range(len(cost)), key=lambda i: (cost[i], error[i])):
        if not kept or error[place] < error[kept[-1]]:
            kept.append(place)
    return kept
