"""The ranks of a whole network, found from its spectra, so that it meets a MAC ratio."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import trpexport as tx
from trpexport.errors import TrainingError
from trpexport.lowrank.criteria import DEFAULT, parse_criterion
from trpexport.lowrank.schemes import matrix_schemes
from trpexport.networks.torch.trace import trace
from trpexport.training.projection import Spectrum, spectrum_of
from trpexport.training.steering import (
    VALUE,
    LayerPrice,
    Prices,
    Schedule,
    prices,
    reaching,
    steer,
)


def spectrum(*values: float) -> Spectrum:
    row = torch.tensor([values], dtype=torch.float64)
    return spectrum_of(row, torch.diag_embed(row))


# Dense costs 100; each rank 20: ranks 1 to 4 are cheaper than the convolution, 5 is not.
TWO = Prices({"a": LayerPrice(100, 20), "b": LayerPrice(100, 20)}, fixed=50)


def test_the_threshold_is_the_planners_default() -> None:
    assert parse_criterion(DEFAULT) == VALUE


def test_a_ratio_counts_the_guard_and_what_stays() -> None:
    assert TWO.ratio({"a": 2, "b": 3}) == (50 + 40 + 60) / 250
    assert TWO.ratio({"a": 5, "b": 6}) == 1
    assert TWO.stays_dense("a", 5)
    assert not TWO.stays_dense("a", 4)


def test_prices_are_the_planners() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 12, 3, stride=2), nn.Conv2d(12, 12, (1, 3)),
        nn.Flatten(), nn.Linear(12 * 3 * 1, 5),
    )  # fmt: skip
    shape = (1, 3, 8, 8)
    for scheme in ("channel", "spatial"):
        plan = tx.decompose(model, tx.ByCriterion(scheme, "rank:2"), example=shape).plan
        chosen = ["1", "2"]
        found = prices(trace(model, shape), matrix_schemes()[scheme], chosen)
        assert found.ratio(dict.fromkeys(chosen, 2)) == plan.macs_after / plan.macs_before


def test_the_rank_that_is_worth_least_goes_first() -> None:
    # Shares that each rank adds to a: 0.8, 0.15, 0.0375, 0.0125; to b: 0.4, 0.3, 0.2, 0.1.
    spectra = {
        "a": spectrum(*(10 * x**0.5 for x in (0.8, 0.15, 0.0375, 0.0125))),
        "b": spectrum(*(10 * x**0.5 for x in (0.4, 0.3, 0.2, 0.1))),
    }
    for count, ranks in enumerate(
        ({"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 1, "b": 3}, {"a": 2, "b": 3}), start=2
    ):
        steered = steer(spectra, TWO, (50 + 20 * count) / 250)
        kept, found = steered.energy, steered.ranks
        assert found == ranks
        assert kept == pytest.approx(
            min((0.8, 0.95)[ranks["a"] - 1], (0.4, 0.7, 0.9)[ranks["b"] - 1])
        )
    # One MAC less, and b has to go down.
    assert steer(spectra, TWO, 109 / 250).ranks == {"a": 1, "b": 1}


def test_a_rank_that_costs_half_may_hold_half() -> None:
    # Ranks of b cost half: its second, with 0.2, is worth as much as 0.4 would be in a.
    prices = Prices({"a": LayerPrice(100, 20), "b": LayerPrice(100, 10)}, fixed=50)
    spectra = {
        "a": spectrum(*(10 * x**0.5 for x in (0.7, 0.3))),
        "b": spectrum(*(10 * x**0.5 for x in (0.8, 0.2))),
    }
    assert steer(spectra, prices, (50 + 20 + 20) / 250).ranks == {"a": 1, "b": 2}


def test_a_layer_that_was_cut_is_not_cut_again_before_one_that_is_whole() -> None:
    """What one energy for all gets wrong: what was cut has no tail left, what is whole has."""
    whole = spectrum(*(0.9**i for i in range(6)))
    cut = spectrum(1.0, 0.9, 0.81, 1e-3, 1e-3, 1e-3)
    many = Prices({"whole": LayerPrice(100, 20), "cut": LayerPrice(100, 20)}, fixed=50)
    ranks = steer({"whole": whole, "cut": cut}, many, (50 + 60 + 80) / 250).ranks
    assert ranks["cut"] == 3
    assert ranks["whole"] in (3, 4)


def test_ranks_go_by_whole_steps_that_are_worth_their_mean() -> None:
    # Pairs of a hold 0.6 + 0.2 and 0.15 + 0.05, of b 0.5 + 0.1 and 0.3 + 0.1 once in order.
    spectra = {
        "a": spectrum(*(10 * x**0.5 for x in (0.6, 0.2, 0.15, 0.05))),
        "b": spectrum(*(10 * x**0.5 for x in (0.5, 0.3, 0.1, 0.1))),
    }
    pairs = replace(TWO, multiple=2)
    assert steer(spectra, pairs, (50 + 80 + 80) / 250).ranks == {"a": 4, "b": 4}
    # The second pairs hold 0.2 each; both go at one level.
    assert steer(spectra, pairs, (50 + 80 + 40) / 250).ranks == {"a": 2, "b": 2}
    spectra["b"] = spectrum(*(10 * x**0.5 for x in (0.4, 0.25, 0.2, 0.15)))
    assert steer(spectra, pairs, (50 + 40 + 80) / 250).ranks == {"a": 2, "b": 4}
    # The threshold keeps 3 of a; they are rounded up.
    spectra["a"] = spectrum(1.0, 0.5, 0.4, 0.01)
    assert steer(spectra, pairs, 1.0).ranks["a"] == 4


def test_a_multiple_that_is_dearer_than_a_layer_is_halved_for_it() -> None:
    eights = replace(TWO, multiple=8)  # cheaper up to rank 4
    assert eights.step("a") == 4
    assert eights.aligned("a", 1) == 4
    assert eights.aligned("a", 5) == 5
    assert eights.least == (50 + 80 + 80) / 250
    assert reaching(eights, 0.55, may_halve=True).multiple == 2
    with pytest.raises(TrainingError, match=r"no multiples of 8 reach 0\.55") as caught:
        reaching(eights, 0.55)
    assert caught.value.parameters == ("target_macs", "rank_multiple")


def test_the_value_threshold_limits_every_rank() -> None:
    spectra = {"a": spectrum(1.0, 0.5, 0.049, 0.04), "b": spectrum(1.0, 0.9, 0.8, 0.7)}
    ranks = steer(spectra, TWO, 1.0).ranks
    assert ranks == {"a": 2, "b": 4}


@given(
    st.lists(st.lists(st.floats(0.1, 10), min_size=6, max_size=6), min_size=2, max_size=2),
    st.floats(0.36, 1.0),
)
def test_the_ratio_is_met_and_nothing_worth_more_was_cut(
    values: list[list[float]], ratio: float
) -> None:
    spectra = {
        name: spectrum(*sorted(row, reverse=True)) for name, row in zip("ab", values, strict=True)
    }
    ranks = steer(spectra, TWO, ratio).ranks
    assert TWO.ratio(ranks) <= ratio
    gains = {
        name: sorted((v * v / sum(x * x for x in row) for v in row), reverse=True)
        for name, row in zip("ab", values, strict=True)
    }
    kept = min(gains[name][rank - 1] for name, rank in ranks.items() if rank > 1) if max(
        ranks.values()
    ) > 1 else 1.0  # fmt: skip
    lost = [gains[name][rank] for name, rank in ranks.items() if rank < 6]
    assert all(gain <= kept * (1 + 1e-9) for gain in lost)


@given(
    st.lists(st.lists(st.floats(0.01, 10), min_size=6, max_size=6), min_size=2, max_size=2),
    st.floats(0.36, 1.0),
    st.integers(1, 5),
)
def test_what_is_not_known_is_asked_for_where_it_matters(
    values: list[list[float]], ratio: float, known: int
) -> None:
    rows = [torch.tensor([sorted(row, reverse=True)], dtype=torch.float64) for row in values]
    whole = {
        name: spectrum_of(row, torch.diag_embed(row)) for name, row in zip("ab", rows, strict=True)
    }
    part = whole | {"a": spectrum_of(rows[0][:, :known], torch.diag_embed(rows[0]))}
    steered = steer(part, TWO, ratio)
    if steered.needed["a"] <= known:
        assert steered.ranks == steer(whole, TWO, ratio).ranks


def test_a_tail_that_is_worth_little_need_not_be_known() -> None:
    cut = torch.tensor([[1.0, 0.9, 0.8, 0.06, 0.06, 0.06]], dtype=torch.float64)
    part = spectrum_of(cut[:, :3], torch.diag_embed(cut))
    # The third rank of one has to go: no tail can be worth as much.
    steered = steer({"a": part, "b": part}, TWO, (50 + 60 + 40) / 250)
    assert steered.ranks == {"a": 2, "b": 2}  # worth the same, so both go
    assert steered.needed == {"a": 3, "b": 3}
    # All three may stay, and of the tail as much as is worth it: only the whole can tell.
    assert steer({"a": part, "b": part}, TWO, 0.9).needed["a"] > 3


def test_the_schedule_is_cubic_over_the_first_half() -> None:
    schedule = Schedule(target=0.4, total_steps=1000)
    # Zhu and Gupta, equation 1, with sparsity 1 - ratio: s_f (1 - (1 - t/T)^3).
    assert [schedule(t) for t in (0, 250, 500, 900, 2000)] == pytest.approx(
        [1.0, 0.4 + 0.6 / 8, 0.4, 0.4, 0.4]
    )


def test_a_target_below_rank_1_everywhere_is_refused() -> None:
    least = (50 + 20 + 20) / 250
    reaching(TWO, least)
    with pytest.raises(TrainingError, match=r"no ranks reach 0\.35 .* leaves 0\.360"):
        reaching(TWO, 0.35)
