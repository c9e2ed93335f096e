"""The choice is the best there is: against all choices of constructed tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.choose.conftest import Measured
from trpexport.choose.allotment import allot, plan_for, smallest_fraction, summed, whole_network
from trpexport.choose.selection import Selection
from trpexport.choose.table import LayerOptions, Option, SensitivityTable
from trpexport.errors import NothingToDoError, PlanError

Costs = Sequence[Sequence[tuple[int, float]]]
FIXED, DENSE = 10, 100


def option(rank: int | None, macs: int, parameters: int, error: float) -> Option:
    scheme = None if rank is None else "spatial"
    return Option(scheme, rank, {"macs": macs, "parameters": parameters}, error)


def table_of(costs: Costs, size: int = 1) -> SensitivityTable:
    """Return a table of layers of 100 MACs and parameters each, ``size`` times as many.

    Args:
        costs: of each layer, MACs and error of each rank; it has twice as many parameters.
        size: how many times all the costs.
    """
    layers = tuple(
        LayerOptions(
            name=str(place),
            gains={"spatial": 1.0 + place},
            options=(
                option(None, DENSE * size, DENSE * size, 0.0),
                *(option(1 + i, c * size, 2 * c * size, e) for i, (c, e) in enumerate(row)),
            ),
        )
        for place, row in enumerate(costs)
    )
    return SensitivityTable("key", layers, {"macs": FIXED * size, "parameters": 2 * FIXED * size})


rows = st.lists(st.tuples(st.integers(1, 99), st.floats(0, 1)), min_size=1, max_size=4)


@settings(max_examples=100, deadline=None)
@given(
    costs=st.lists(rows, min_size=1, max_size=4),
    size=st.integers(1, 10**7),
    data=st.data(),
    below=st.sampled_from([0, 1]),
    resource=st.sampled_from(["macs", "parameters"]),
)
def test_the_choice_is_the_best_of_all(
    costs: Costs, size: int, data: st.DataObject, below: int, resource: str
) -> None:
    table = table_of(costs, size)
    whole = whole_network(table).costs[resource]
    sums = [
        (
            table.fixed[resource] + sum(option.costs[resource] for option in options),
            sum(layer.gain * o.error for layer, o in zip(table.layers, options, strict=True)),
        )
        for options in itertools.product(*(layer.options for layer in table.layers))
    ]
    # A share that is used up to the last MAC, and one that lacks one for that.
    budget = data.draw(st.sampled_from(sums))[0] - below
    assume(0 < budget < whole)
    feasible = [error for cost, error in sums if cost <= budget]
    if not feasible:
        with pytest.raises(NothingToDoError, match="the best is"):
            allot(table, budget / whole, resource=resource)
    else:
        choice = allot(table, budget / whole, resource=resource)
        assert choice.costs[resource] <= budget
        assert choice.error == pytest.approx(min(feasible), rel=1e-8)


@given(costs=st.lists(rows, min_size=1, max_size=4), size=st.integers(1, 10**7))
@example(costs=[[(1, 0.5)]] * 3, size=1)
def test_the_smallest_fraction_is_met_and_nothing_below(costs: Costs, size: int) -> None:
    table = table_of(costs, size)
    fraction = smallest_fraction(table)
    cheapest = FIXED + sum(min(cost for cost, _ in row) for row in costs)
    assert allot(table, fraction).costs["macs"] == cheapest * size
    with pytest.raises(NothingToDoError, match=f"the best is {fraction:.3f}"):
        allot(table, fraction * (1 - 1e-9))


def test_parameters_are_a_resource_of_their_own() -> None:
    table = table_of([[(10, 0.1), (30, 0.01)], [(10, 0.1)]])
    choice = allot(table, 0.75, resource="parameters")
    # 165 of 220: the second layer weighs more, so the first one gives way: 20 + 60 + 100 is too
    # much, 20 + 20 + 100 fits.
    assert choice.costs == {"macs": 10 + 10 + 100, "parameters": 140}
    assert [option.rank for option in choice.chosen.values()] == [1, None]


def test_weights_shift_the_choice() -> None:
    table = table_of([[(10, 0.1)], [(10, 0.1)]])
    assert allot(table, 0.6).chosen["1"].rank is None
    assert allot(table, 0.6, weights={"0": 10.0}).chosen["0"].rank is None


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_a_senseless_target_is_one_line(fraction: float) -> None:
    with pytest.raises(PlanError, match="between 0 and 1"):
        allot(table_of([[(10, 0.1)]]), fraction)


def test_a_scheme_may_be_handicapped() -> None:
    options = [
        Option(None, None, {"macs": 100}, 0.0),
        Option("channel", 1, {"macs": 50}, 1.0),
        Option("spatial", 1, {"macs": 50}, 0.9),
    ]
    layer = LayerOptions("a", {"channel": 2.0}, tuple(options))
    table = SensitivityTable("", (layer,), {"macs": 0})
    assert allot(table, 0.5).chosen["a"].scheme == "spatial"
    assert allot(table, 0.5).error == pytest.approx(1.8)
    found = allot(table, 0.5, handicaps={"spatial": 1.2})
    assert found.chosen["a"].scheme == "channel"
    assert found.error == 2.0
    assert allot(table, 0.5, handicaps={"spatial": 1.1}).error == pytest.approx(1.8)


def test_nothing_is_written_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    # JSON may go there; HiGHS once wrote debugging lines to it, from C++, for tables such as this.
    costs = [[(c * layer % 97 + 1, 1 / c) for c in range(1, 60)] for layer in range(1, 109)]
    allot(table_of(costs), 0.9)
    assert capfd.readouterr() == ("", "")


def test_the_plan_of_a_choice(measured: Measured) -> None:
    network, _, table = measured
    chosen = {
        layer.name: next((o for o in layer.options if o.scheme == "channel"), layer.options[0])
        for layer in table.layers
    }
    chosen["conv3"] = next(layer for layer in table.layers if layer.name == "conv3").options[0]
    choice = summed(table, chosen)
    plan = plan_for(
        network, choice, scheme="auto", criterion="mine", selection=Selection(), architecture="it"
    )
    assert (plan.scheme, plan.criterion, plan.architecture) == ("auto", "mine", "it")
    assert plan.macs_after == choice.costs["macs"]
    assert {layer.name: (layer.scheme, layer.rank) for layer in plan.rewritten} == {
        name: ("channel", option.rank) for name, option in chosen.items() if name != "conv3"
    }
    reasons = {layer.name: layer.reason for layer in plan.layers}
    assert reasons["conv3"] == "the budget leaves it whole"
    assert "the stem" in str(reasons["stem"])
    with pytest.raises(NothingToDoError, match="mine leaves every layer as it is"):
        plan_for(
            network,
            whole_network(table),
            scheme="auto",
            criterion="mine",
            selection=Selection(),
        )
