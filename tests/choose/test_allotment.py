"""The choice is the best there is: against all choices, and by measured networks."""

from __future__ import annotations

import copy
import itertools
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from trpexport.choose.layerwise import Calibrated, LayerCalibration
from trpexport.choose.planner import analyse, make_plan

from tests.artifact.networks import SHAPE, tiny
from trpexport.choose import budget
from trpexport.choose.allotment import Allotment, allot, smallest_fraction
from trpexport.choose.budget import Budgeter, Outcome
from trpexport.choose.gathering import Gatherer
from trpexport.choose.table import (
    LayerOptions,
    Option,
    SensitivityTable,
    candidate_ranks,
    sensitivity_table,
)
from trpexport.errors import NothingToDoError, OutputError, PlanError, TrpexportError
from trpexport.lowrank.schemes import SCHEMES


def table_of(costs: list[list[tuple[int, float]]]) -> SensitivityTable:
    layers = tuple(
        LayerOptions(
            name=str(place),
            gains={"spatial": 1.0 + place},
            options=(
                Option(None, None, 100, 100, 0.0),
                *(Option("spatial", 1 + i, c, 2 * c, e) for i, (c, e) in enumerate(row)),
            ),
        )
        for place, row in enumerate(costs)
    )
    return SensitivityTable("key", layers, fixed_macs=10, fixed_parameters=20)


rows = st.lists(st.tuples(st.integers(1, 99), st.floats(0, 1)), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(costs=st.lists(rows, min_size=1, max_size=4), fraction=st.floats(0.05, 0.95))
def test_the_choice_is_the_best_of_all(
    costs: list[list[tuple[int, float]]], fraction: float
) -> None:
    table = table_of(costs)
    budget = int(fraction * (10 + 100 * len(costs)))
    feasible = [
        sum(layer.gain * o.error for layer, o in zip(table.layers, options, strict=True))
        for options in itertools.product(*(layer.options for layer in table.layers))
        if 10 + sum(option.macs for option in options) <= budget
    ]
    if not feasible:
        with pytest.raises(NothingToDoError, match="the best is"):
            allot(table, fraction)
        return
    choice = allot(table, fraction)
    assert choice.macs <= budget
    assert choice.error == pytest.approx(min(feasible), abs=1e-6)


def test_parameters_are_a_resource_of_their_own() -> None:
    table = table_of([[(10, 0.1), (30, 0.01)], [(10, 0.1)]])
    choice = allot(table, 0.75, resource="parameters")
    # 165 of 220: the second layer weighs more, so the first one gives way: 20 + 60 + 100 is too
    # much, 20 + 20 + 100 fits.
    assert choice.parameters == 140
    assert [option.rank for option in choice.chosen.values()] == [1, None]


def test_weights_shift_the_choice() -> None:
    table = table_of([[(10, 0.1)], [(10, 0.1)]])
    assert allot(table, 0.6).chosen["1"].rank is None
    assert allot(table, 0.6, weights={"0": 10.0}).chosen["0"].rank is None


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, float("nan")])
def test_a_senseless_target_is_one_line(fraction: float) -> None:
    with pytest.raises(PlanError, match="between 0 and 1"):
        allot(table_of([[(10, 0.1)]]), fraction)


def smooth(count: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(0).standard_normal((count, *SHAPE[1:]))
    return (noise.cumsum(2).cumsum(3) / 8).astype(np.float32)


X = smooth(32)


@pytest.fixture(scope="module")
def measured() -> tuple[nn.Module, Gatherer, SensitivityTable]:
    model = tiny()
    gatherer = Gatherer(model, X, SHAPE)
    table = sensitivity_table(model, X, input_shape=SHAPE, scheme="auto", gatherer=gatherer)
    return model, gatherer, table


Measured = tuple[nn.Module, Gatherer, SensitivityTable]


def test_one_of_all_schemes_is_chosen_from_as_if_it_were_alone(measured: Measured) -> None:
    model, gatherer, table = measured
    alone = sensitivity_table(model, X, input_shape=SHAPE, scheme="spatial", gatherer=gatherer)
    assert table.only("spatial").layers == alone.layers
    assert any(one.gain > own.gain for one, own in zip(table.layers, alone.layers, strict=True))


def test_errors_fall_with_the_rank(measured: Measured) -> None:
    for layer in measured[2].layers:
        assert layer.gain > 0
        for scheme in SCHEMES:
            errors = [option.error for option in layer.options if option.scheme == scheme]
            assert errors
            assert all(b < a * 1.05 for a, b in itertools.pairwise(errors))


def test_a_table_survives_json(measured: Measured) -> None:
    table = measured[2]
    assert SensitivityTable.from_json(table.to_json()) == table
    later = {**table.to_json(), "schema_version": 99}
    broken: list[Any] = [{}, [], later, {"schema_version": 1}]
    for damaged in broken:
        with pytest.raises(ValueError, match="table"):
            SensitivityTable.from_json(damaged)


def test_targets_are_met_by_the_plan(measured: Measured) -> None:
    model, gatherer, table = measured
    budgeter = Budgeter(model, table, gatherer, input_shape=SHAPE, rounds=1)
    outcome = budgeter.to_fraction(0.6)
    plan = outcome.calibrated.plan
    assert plan.macs_after == outcome.allotment.macs <= 0.6 * plan.macs_before
    assert 0 < outcome.error < 1
    small = budgeter.to_fraction(0.5, "parameters").calibrated.network
    before, after = (sum(p.numel() for p in net.parameters()) for net in (model, small))
    assert after <= 0.5 * before


def test_a_choice_that_came_out_well_is_not_corrected(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_WORTHWHILE", 2.0)  # every correction promises enough
    model, gatherer, table = measured
    for fraction, count in ((0.6, 1), (0.22, 2)):
        lines = list[str]()
        budgeter = Budgeter(
            model, table.only("channel"), gatherer, input_shape=SHAPE, announce=lines.append
        )
        outcome = budgeter.to_fraction(fraction)
        networks = [line for line in lines if line.startswith("output error of the network")]
        assert len(networks) == count
        assert (outcome.error < 0.2) == (count == 1)


def test_a_target_out_of_reach_says_what_the_best_is(measured: Measured) -> None:
    model, gatherer, table = measured
    budgeter = Budgeter(model, table, gatherer, input_shape=SHAPE)
    best = f"{smallest_fraction(table):.3f}"
    with pytest.raises(NothingToDoError, match=best) as caught:
        budgeter.to_fraction(0.01)
    assert caught.value.exit_code == 3
    with pytest.raises(NothingToDoError, match="the best that saves MACs loses 7"):
        # An accuracy that every rewrite ruins.
        budgeter.to_drop(lambda network: 90.0 if network is model else 83.0, 1.0)


def test_the_target_error_is_kept(measured: Measured) -> None:
    model, gatherer, table = measured
    budgeter = Budgeter(model, table, gatherer, input_shape=SHAPE, rounds=1)
    outcome = budgeter.to_error(0.4)
    assert outcome.error <= 0.4
    for limit in (0.0, 1.0, float("nan")):
        with pytest.raises(PlanError, match="out of range"):
            budgeter.to_error(limit)


def test_the_cache_is_read_only_for_the_same_job(tmp_path: Path) -> None:
    model, lines = tiny(), list[str]()

    def table(x: NDArray[np.float32] = X, multiple: int = 8) -> SensitivityTable:
        return sensitivity_table(
            model,
            x,
            input_shape=SHAPE,
            scheme="channel",
            rank_multiple=multiple,
            cache=tmp_path,
            announce=lines.append,
        )

    first = table()
    assert lines
    assert all(option.rank in (None, 8) for layer in first.layers for option in layer.options)
    lines.clear()
    assert table() == first
    assert table(X[::-1].copy()) == first  # the order of images is nothing new
    assert not lines
    assert table(multiple=4).key != first.key
    assert table(X[:4]).key != first.key
    with_other_weights = {k: v * 1.01 for k, v in model.state_dict().items()}
    model.load_state_dict(with_other_weights)
    assert table().key != first.key
    for path in tmp_path.iterdir():
        path.write_text('{"schema_version": 1')  # cut off
    lines.clear()
    table()
    assert lines


def test_jobs_may_share_a_cache(tmp_path: Path) -> None:
    model, lines = tiny(), list[str]()

    def table(network: nn.Module) -> SensitivityTable:
        return sensitivity_table(
            network,
            X[:4],
            input_shape=SHAPE,
            scheme="channel",
            rank_multiple=8,
            cache=tmp_path,
            announce=lines.append,
        )

    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(table, [copy.deepcopy(model) for _ in range(3)]))
    assert len({one.key for one in found}) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]
    lines.clear()
    assert table(model).key == found[0].key
    assert not lines


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"can't write .*cache: Not a directory"):
        sensitivity_table(
            tiny(), X, input_shape=SHAPE, scheme="channel", cache=tmp_path / "file" / "cache"
        )


def test_an_unknown_scheme_is_one_line() -> None:
    with pytest.raises(TrpexportError, match="unknown scheme"):
        sensitivity_table(tiny(), X, input_shape=SHAPE, scheme="spatail")


def test_candidate_ranks_share_the_multiple_and_reach_the_last_cheaper_one() -> None:
    analysis = analyse(tiny(), input_shape=SHAPE, scheme="spatial")
    scheme = SCHEMES["spatial"]
    for layer in analysis.layers[1:]:
        last = scheme.break_even_rank(layer.conv, layer.input_sizes[0])
        assert candidate_ranks(scheme, layer, 1)[-1] == last
        assert candidate_ranks(scheme, layer, 1)[0] == 1
        assert all(rank % 4 == 0 for rank in candidate_ranks(scheme, layer, 4))
        assert candidate_ranks(scheme, layer, 1000) == [last]


@pytest.mark.parametrize("fraction", [0.4, 0.6])
def test_a_choice_of_schemes_is_never_worse_than_any_one_alone(
    measured: Measured, fraction: float
) -> None:
    model, gatherer, table = measured
    assert table.schemes == sorted(SCHEMES)
    error = Budgeter(model, table, gatherer, input_shape=SHAPE).to_fraction(fraction).error
    reached = []
    for scheme in table.schemes:
        only = table.only(scheme)
        assert {x.scheme for layer in only.layers for x in layer.options} == {None, scheme}
        with suppress(NothingToDoError):
            alone = Budgeter(model, only, gatherer, input_shape=SHAPE, scheme=scheme, rounds=1)
            reached.append(alone.to_fraction(fraction).error)
    assert len(reached) > 1
    assert error <= 1.5**0.5 * min(reached)


def outcome(error: float, *schemes: str) -> Outcome:
    """Return an outcome whose layers take these schemes."""
    layers = tuple(
        LayerCalibration(str(place), scheme, 1, 0.0, 0.0, 0.0, 0.0)
        for place, scheme in enumerate(schemes)
    )
    plan = make_plan(tiny(), input_shape=SHAPE)
    return Outcome(Calibrated(nn.Identity(), plan, layers, error), Allotment({}, 0, 0, 0.0))


def test_grouped_convolutions_have_to_be_clearly_better() -> None:
    # Squared errors count 1.5 times.
    assert outcome(0.1, "decoupling").merit == pytest.approx(0.1 * 1.5**0.5)
    assert outcome(0.1, "decoupling", "spatial").merit == pytest.approx(0.1 * 1.25**0.5)
    assert outcome(0.1, "spatial", "channel").merit == 0.1


def test_a_scheme_may_be_handicapped() -> None:
    options = [Option(None, None, 100, 1, 0.0), Option("channel", 1, 50, 1, 1.0)]
    options += [Option("spatial", 1, 50, 1, 0.9)]
    table = SensitivityTable("", (LayerOptions("a", {"channel": 2.0}, tuple(options)),), 0, 0)
    assert allot(table, 0.5).chosen["a"].scheme == "spatial"
    assert allot(table, 0.5).error == pytest.approx(1.8)
    found = allot(table, 0.5, handicaps={"spatial": 1.2})
    assert found.chosen["a"].scheme == "channel"
    assert found.error == 2.0
    assert allot(table, 0.5, handicaps={"spatial": 1.1}).error == pytest.approx(1.8)
