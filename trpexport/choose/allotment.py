"""Which layer gets how much: the choice of least error within a budget, exactly.

One option is chosen of each layer's, so that the sum of costs stays within the budget and the sum
of errors is least: a multiple-choice knapsack problem (Sinha and Zoltners, "The Multiple-Choice
Knapsack Problem", Operations Research 27, 1979), solved to optimality.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from trpexport.choose.alignment import AlignedSelection, no_multiple
from trpexport.choose.by_plan import revised
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.knapsack import ROUNDING, least_error
from trpexport.choose.selection import Selection
from trpexport.choose.spectra import keep_all
from trpexport.choose.table import LayerOptions, Option, SensitivityTable
from trpexport.errors import NothingToDoError, PlanError
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.plan import Plan

LEFT_WHOLE = "the budget leaves it whole"
"""Why a layer stays that might be cut."""


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
    if least > budget * (1 + ROUNDING):
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
    places = least_error(cost, error, budget - fixed)
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
    factorizer: Factorizer | None = None,
) -> Plan:
    """Return the plan of a choice.

    Args:
        network: the network that the table was measured on.
        allotment: the choice.
        scheme: what was asked for, ``auto`` or the name of a scheme.
        criterion: the target, as text, for the reader.
        selection: the layers that may be rewritten, as for the table.
        architecture: what the network is called, for the reader.
        factorizer: of the same network, which then knows the SVDs.

    Raises:
        NothingToDoError: the choice is to leave every layer as it is.
    """
    reasons = reasons_left_out(network, allotment.chosen, selection, scheme)
    bare = keep_all(network, architecture=architecture)
    rows = []
    for row in bare.layers:
        option = allotment.chosen.get(row.name)
        if option is None:
            rows.append(replace(row, reason=reasons[row.name]))
        elif option.scheme is None:
            rows.append(replace(row, reason=LEFT_WHOLE))
        else:
            rows.append(replace(row, scheme=option.scheme, rank=option.rank))
    wanted = replace(
        bare,
        scheme=scheme,
        criterion=criterion,
        layers=tuple(rows),
        options=selection.options,
    )
    plan = revised(network, wanted, factorizer=factorizer)
    if not plan.rewritten:
        raise NothingToDoError(f"{criterion} leaves every layer as it is: ask for less to remain")
    return replace(plan, criterion=criterion)


def reasons_left_out(
    network: Network, known: Collection[str], selection: Selection, scheme: str
) -> dict[str, str]:
    """Return why a table does not know a layer, for each that it does not.

    Args:
        network: the network that the table was measured on.
        known: names of the layers of the table.
        selection: the layers that may be rewritten, as for the table.
        scheme: what was asked for, ``auto`` or the name of a scheme.
    """
    first = SCHEMES[next(iter(SCHEMES)) if scheme == "auto" else scheme]
    reasons = selection.reasons_to_stay(network, first)
    return {
        name: reason or _none_cheaper(selection)
        for name, reason in reasons.items()
        if name not in known
    }


def _none_cheaper(selection: Selection) -> str:
    if isinstance(selection, AlignedSelection) and selection.alignment.is_asked:
        return no_multiple(selection.alignment)
    return "no rank that may be chosen is cheaper"
