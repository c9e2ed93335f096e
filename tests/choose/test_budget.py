"""From a target to a network: what is tried, what is corrected, and what is taken in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest

from tests.artifact.networks import SHAPE, tiny
from tests.choose.conftest import Measured
from trpexport.choose import budget
from trpexport.choose.allotment import Allotment, smallest_fraction
from trpexport.choose.budget import Budgeter, Outcome, handicap
from trpexport.choose.calibrate import Calibrated
from trpexport.choose.fits import LayerCalibration
from trpexport.choose.prices import SECONDS
from trpexport.choose.spectra import keep_all
from trpexport.choose.table import LayerOptions, Option, SensitivityTable
from trpexport.errors import NothingToDoError, PlanError
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.networks.torch.network import TorchNetwork
from trpexport.plan import Plan

# --- measured networks -----------------------------------------------------------------------


def test_targets_are_met_by_the_plan(measured: Measured) -> None:
    network, gatherer, table = measured
    budgeter = Budgeter(network, table, gatherer)
    outcome = budgeter.to_fraction(0.6)
    plan = outcome.calibrated.plan
    assert plan.macs_after == outcome.allotment.costs["macs"] <= 0.6 * plan.macs_before
    assert 0 < outcome.error < 1
    chains = budgeter.to_fraction(0.5, "parameters").calibrated.chains
    before, after = (
        sum(p.numel() for p in net.model.parameters())
        for net in (network, network.rewritten(chains))
    )
    assert after <= 0.5 * before


def test_a_choice_that_came_out_well_is_not_corrected(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_MAX_PROMISED", 2.0)  # every correction promises enough
    network, gatherer, table = measured
    for fraction, count in ((0.6, 1), (0.22, 2)):
        lines = list[str]()
        budgeter = Budgeter(network, table.only("channel"), gatherer, announce=lines.append)
        outcome = budgeter.to_fraction(fraction)
        networks = [line for line in lines if line.startswith("output error of the network")]
        assert len(networks) == count
        assert (outcome.error < 0.2) == (count == 1)


def test_a_target_out_of_reach_says_what_the_best_is(measured: Measured) -> None:
    network, gatherer, table = measured
    budgeter = Budgeter(network, table, gatherer)
    best = f"{smallest_fraction(table):.3f}"
    with pytest.raises(NothingToDoError, match=best) as caught:
        budgeter.to_fraction(0.01)
    assert caught.value.exit_code == 3

    def loss(candidate: Network) -> float:
        """Every rewrite ruins the network."""
        return 0.0 if candidate is network else 7.0

    with pytest.raises(NothingToDoError, match=r"1 points of miou can't be .* MACs loses 7"):
        budgeter.to_drop(loss, 1.0, "points of miou")
    with pytest.raises(NothingToDoError, match="MACs has no finite value"):
        budgeter.to_drop(lambda _: float("nan"), 1.0)


def test_the_target_error_is_kept(measured: Measured) -> None:
    network, gatherer, table = measured
    budgeter = Budgeter(network, table, gatherer)
    outcome = budgeter.to_error(0.4)
    assert outcome.error <= 0.4
    for limit in (0.0, 1.0, float("nan")):
        with pytest.raises(PlanError, match="out of range"):
            budgeter.to_error(limit)
    with pytest.raises(PlanError, match="out of range"):
        budgeter.to_drop(lambda _: 50.0, -1.0)


def test_candidates_are_told_all_at_once_before_one_is_calibrated(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "_MAX_PREDICTED_RATIO", float("inf"))
    network, gatherer, table = measured
    lines, told = list[str](), list[tuple[int, int]]()

    def ahead(plans: Sequence[Plan]) -> None:
        done = sum(line.startswith("output error of the network") for line in lines)
        told.append((len(plans), done))

    Budgeter(network, table, gatherer, ahead=ahead, announce=lines.append).to_fraction(0.6)
    (count, done), *others = told
    assert count > 1
    assert done == 0
    assert [number for number, _ in others] == [1] * len(others)
    assert [before for _, before in others] == [*range(count, count + len(others))]


@pytest.mark.parametrize("fraction", [0.4, 0.6])
def test_a_choice_of_schemes_is_never_worse_than_any_one_alone(
    measured: Measured, fraction: float
) -> None:
    network, gatherer, table = measured
    assert table.schemes == sorted(SCHEMES)
    error = Budgeter(network, table, gatherer).to_fraction(fraction).error
    reached = []
    for scheme in table.schemes:
        only = table.only(scheme)
        assert {x.scheme for layer in only.layers for x in layer.options} == {None, scheme}
        with suppress(NothingToDoError):
            alone = Budgeter(network, only, gatherer, scheme=scheme)
            reached.append(alone.to_fraction(fraction).error)
    assert len(reached) > 1
    assert error <= 1.5**0.5 * min(reached)


# --- constructed tables and made-up measurements ---------------------------------------------

Chosen = Mapping[str, Option]
DENSE = Option(None, None, {"macs": 100}, 0.0)


def table_of(**layers: list[tuple[str, int, int, float]]) -> SensitivityTable:
    """Return a table of layers of 100 MACs, by scheme, rank, MACs and error of their options."""
    rows = [
        LayerOptions(
            name,
            {scheme: 1.0 for scheme, _, _, _ in options},
            (DENSE, *(Option(scheme, rank, {"macs": c}, e) for scheme, rank, c, e in options)),
        )
        for name, options in layers.items()
    ]
    return SensitivityTable("", tuple(rows), {"macs": 0})


Stub = Callable[..., tuple[Budgeter, list[Chosen]]]


@pytest.fixture
def stubbed(monkeypatch: pytest.MonkeyPatch) -> Stub:
    """Makes a budgeter that calibrates nothing, and a list of the choices that it tries.

    It takes a table, what the error of a network is, and how much worse each of its layers is than
    the table says, in squared error.
    """

    def make(
        table: SensitivityTable,
        error: Callable[[Chosen], float],
        worse: Mapping[str, float] | None = None,
    ) -> tuple[Budgeter, list[Chosen]]:
        tried: list[Chosen] = []

        def plan_for(_: Any, choice: Allotment, **__: Any) -> Chosen:
            return choice.chosen

        def calibrate(_: Any, chosen: Chosen, *__: Any, **___: Any) -> Calibrated:
            tried.append(chosen)
            layers = tuple(
                LayerCalibration(
                    name=name,
                    scheme=str(option.scheme),
                    rank=option.rank or 0,
                    ridge=0.0,
                    weight_error=0.0,
                    error_before=0.0,
                    error_after=((worse or {}).get(name, 1.0) * option.error) ** 0.5,
                )
                for name, option in chosen.items()
                if option.scheme is not None
            )
            nothing: Any = None
            return Calibrated({}, nothing, layers, {"output": error(chosen)})

        monkeypatch.setattr(budget, "plan_for", plan_for)
        monkeypatch.setattr(budget, "calibrate", calibrate)
        nobody: Any = None
        return Budgeter(nobody, table, nobody), tried

    return make


def schemes(chosen: Chosen) -> str:
    return " ".join(str(option.scheme) for option in chosen.values())


@pytest.mark.parametrize(("error", "is_tried"), [(0.86, False), (0.81, True)])
def test_a_layer_takes_another_scheme_than_the_network_where_that_is_clearly_better(
    stubbed: Stub, error: float, is_tried: bool
) -> None:
    # As spatial costs at most 1 / 1.2 of the error of channel: 0.83.
    table = table_of(
        a=[("channel", 1, 50, 1.0), ("spatial", 1, 50, 1.2)],
        b=[("channel", 1, 50, 1.0), ("spatial", 1, 50, error)],
    )
    found = {"channel channel": 0.10, "spatial spatial": 0.11, "channel spatial": 0.09}
    budgeter, tried = stubbed(table, lambda chosen: found[schemes(chosen)])
    outcome = budgeter.to_fraction(0.5)
    assert ("channel spatial" in map(schemes, tried)) == is_tried
    assert outcome.error == (0.09 if is_tried else 0.10)


@pytest.mark.parametrize(("error", "is_tried"), [(1.55, False), (1.45, True)])
def test_a_scheme_that_promises_far_more_error_than_another_is_not_tried(
    stubbed: Stub, error: float, is_tried: bool
) -> None:
    table = table_of(a=[("channel", 1, 50, 1.0), ("spatial", 1, 50, error)])
    budgeter, tried = stubbed(table, lambda chosen: 0.1 if schemes(chosen) == "channel" else 0.05)
    outcome = budgeter.to_fraction(0.5)
    assert [*map(schemes, tried)] == ["channel", *(["spatial"] if is_tried else [])]
    # Measured, the other one is better after all.
    assert outcome.error == (0.05 if is_tried else 0.1)


# Of two layers, one may keep rank 2: by the table, the first.
TWO = table_of(
    a=[("channel", 2, 60, 0.04), ("channel", 1, 40, 0.09)],
    b=[("channel", 2, 60, 0.05), ("channel", 1, 40, 0.09)],
)


def ranks(chosen: Chosen) -> tuple[int | None, ...]:
    return tuple(option.rank for option in chosen.values())


@pytest.mark.parametrize(("error", "is_corrected"), [(0.19, False), (0.21, True)])
def test_a_choice_is_corrected_where_the_network_errs_much(
    stubbed: Stub, error: float, is_corrected: bool
) -> None:
    # b turned out 3 times as bad: 0.04 + 0.27 as it is, 0.09 + 0.15 the other way round.
    budgeter, tried = stubbed(TWO, lambda chosen: error - (ranks(chosen) == (1, 2)) / 100, {"b": 3})
    outcome = budgeter.to_fraction(0.5)
    assert [*map(ranks, tried)] == [(2, 1), *([(1, 2)] if is_corrected else [])]
    assert outcome.error == pytest.approx(error - is_corrected / 100)


@pytest.mark.parametrize(("times", "is_corrected"), [(1.6, False), (2.0, True)])
def test_a_choice_is_corrected_where_that_promises_something(
    stubbed: Stub, times: float, is_corrected: bool
) -> None:
    # 0.09 + 0.05 times over 0.04 + 0.09 times: 0.92 at 1.6, 0.86 at 2.
    budgeter, tried = stubbed(TWO, lambda chosen: 0.5, {"b": times})
    budgeter.to_fraction(0.5)
    assert [*map(ranks, tried)] == [(2, 1), *([(1, 2)] if is_corrected else [])]


def test_a_correction_that_made_it_worse_is_dropped(stubbed: Stub) -> None:
    budgeter, tried = stubbed(TWO, lambda chosen: 0.5 + (ranks(chosen) == (1, 2)) / 10, {"b": 3})
    outcome = budgeter.to_fraction(0.5)
    assert len(tried) == 2
    assert outcome.error == 0.5
    assert ranks(outcome.allotment.chosen) == (2, 1)


def test_what_was_tried_last_is_not_tried_again(stubbed: Stub) -> None:
    # The table was right about all layers: the same choice once more.
    budgeter, tried = stubbed(TWO, lambda chosen: 0.5)
    budgeter.to_fraction(0.5)
    assert [*map(ranks, tried)] == [(2, 1)]


@pytest.mark.parametrize(("error", "wins"), [(0.75, "channel"), (0.6, "decoupling")])
def test_grouped_convolutions_have_to_be_clearly_better(
    stubbed: Stub, error: float, wins: str
) -> None:
    # Squared errors count 1.5 times, in the table and in the network: 0.82 of the error is as good.
    table = table_of(
        a=[("channel", 1, 50, 1.0), ("decoupling", 1, 50, error)],
        b=[("channel", 1, 50, 1.0), ("decoupling", 1, 50, error)],
    )
    measured = {"channel channel": 0.10, "decoupling decoupling": 0.1 * error**0.5}
    budgeter, _ = stubbed(table, lambda chosen: measured.get(schemes(chosen), 1.0))
    assert schemes(budgeter.to_fraction(0.5).allotment.chosen) == f"{wins} {wins}"


def outcome(error: float, *schemes: str) -> Outcome:
    """Return an outcome whose layers take these schemes."""
    layers = tuple(
        LayerCalibration(str(place), scheme, 1, 0.0, 0.0, 0.0, 0.0)
        for place, scheme in enumerate(schemes)
    )
    plan = keep_all(TorchNetwork.open(tiny(), SHAPE))
    return Outcome(Calibrated({}, plan, layers, {"output": error}), Allotment({}, {}, 0.0))


def test_merit_counts_grouped_convolutions_by_their_share() -> None:
    # Squared errors count 1.5 times.
    assert outcome(0.1, "decoupling").merit == pytest.approx(0.1 * 1.5**0.5)
    assert outcome(0.1, "decoupling", "spatial").merit == pytest.approx(0.1 * 1.25**0.5)
    assert outcome(0.1, "spatial", "channel").merit == 0.1


@pytest.mark.parametrize("scheme", list(SCHEMES))
def test_what_is_slow_is_handicapped_where_time_is_no_price(scheme: str) -> None:
    assert handicap(scheme, SECONDS) == 1
    assert (handicap(scheme, "macs") > 1) == SCHEMES[scheme].regroups
