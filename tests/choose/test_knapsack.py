"""One entry of each row, of least error within a budget: against all choices there are."""

from __future__ import annotations

import itertools
from math import fsum

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, sparse

from trpexport.choose import knapsack
from trpexport.choose.knapsack import least_error

Rows = list[list[tuple[float, float]]]


@st.composite
def whole_numbers(draw: st.DrawFn) -> Rows:
    """Rows as layers have them: MACs of one size, some that differ by a few alone."""
    base = draw(st.integers(10**3, 10**9))
    cost = st.one_of(st.integers(1, base), st.integers(base, base + 20))
    entry = st.tuples(cost, st.floats(0, 1))
    rows: Rows = draw(st.lists(st.lists(entry, min_size=1, max_size=5), min_size=1, max_size=5))
    return rows


def sums(rows: Rows, places: tuple[int, ...]) -> tuple[float, float]:
    """Return what a choice costs, exactly, and its error."""
    chosen = [row[place] for row, place in zip(rows, places, strict=True)]
    cost = [cost for cost, _ in chosen]
    whole = all(isinstance(number, int) for number in cost)
    return sum(cost) if whole else fsum(cost), fsum(error for _, error in chosen)


def solved(rows: Rows, budget: float) -> tuple[float, float]:
    costs, errors = ([[entry[i] for entry in row] for row in rows] for i in (0, 1))
    return sums(rows, tuple(least_error(costs, errors, budget)))


def all_choices(rows: Rows) -> list[tuple[float, float]]:
    places = itertools.product(*(range(len(row)) for row in rows))
    return [sums(rows, choice) for choice in places]


@settings(max_examples=300, deadline=None)
@given(rows=whole_numbers(), data=st.data(), below=st.sampled_from([0, 1]))
def test_the_best_of_all_within_a_budget_that_is_met_to_the_last_mac(
    rows: Rows, data: st.DataObject, below: int
) -> None:
    choices = all_choices(rows)
    budget = data.draw(st.sampled_from(choices))[0] - below
    within = [error for cost, error in choices if cost <= budget]
    assume(within)
    cost, error = solved(rows, budget)
    assert cost <= budget
    assert error <= min(within) * (1 + 1e-8)


# Tenths of a microsecond: their sums depend on the order, by a rounding.
seconds = st.tuples(st.integers(1, 10**5).map(lambda tenths: 1e-7 * tenths), st.floats(0, 1))


@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(st.lists(seconds, min_size=1, max_size=5), min_size=1, max_size=5),
    data=st.data(),
    factor=st.sampled_from([1.0, 1 - 1e-9]),
)
def test_the_best_of_all_within_a_budget_of_seconds(
    rows: Rows, data: st.DataObject, factor: float
) -> None:
    choices = all_choices(rows)
    budget = data.draw(st.sampled_from(choices))[0] * factor
    within = [error for cost, error in choices if cost <= budget]
    assume(within)
    cost, error = solved(rows, budget)
    assert cost <= budget * (1 + 1e-12)
    assert error <= min(within) * (1 + 1e-8)


def network(layers: int, options: int, seed: int) -> Rows:
    """Return rows as a network's: the higher the rank, the dearer, and the smaller the error."""
    rng = np.random.default_rng(seed)
    rows: Rows = []
    for _ in range(layers):
        size, gain = int(rng.integers(10**4, 10**6)), float(10 ** rng.uniform(-2, 1))
        ranks = np.sort(rng.choice(np.arange(1, 60), options, replace=False))
        noise = rng.uniform(0.95, 1.05, options)
        cut = [
            (int(rank) * size, gain * float(np.exp(-rank / 12) * times))
            for rank, times in zip(ranks, noise, strict=True)
        ]
        rows.append([(64 * size, 0.0), *cut])
    return rows


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize(("layers", "options"), [(20, 12), (108, 40)])
def test_no_worse_than_another_solver_on_whole_networks(
    share: float, layers: int, options: int
) -> None:
    rows = network(layers, options, seed=layers)
    budget = share * sum(row[0][0] for row in rows)
    cost, error = solved(rows, budget)
    assert cost <= budget

    entries = [entry for row in rows for entry in row]
    owners = np.repeat(np.arange(layers), [len(row) for row in rows])
    one_each = sparse.csr_matrix((np.ones(len(owners)), (owners, np.arange(len(owners)))))
    costs, errors = np.array(entries).T
    relaxed = optimize.linprog(
        errors,
        A_ub=costs[None] / budget,
        b_ub=[1.0],
        A_eq=one_each,
        b_eq=np.ones(layers),
    )
    # No choice of whole entries is below the relaxed one; the best is hardly above it where there
    # are many to choose from.
    assert relaxed.fun * (1 - 1e-6) <= error
    if layers > 100:
        assert error <= relaxed.fun * 1.001


def test_choices_that_are_all_alike_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # Each unit of cost saves the same error: every sum of costs is the best one of its cost.
    rng = np.random.default_rng(0)
    rows: Rows = [[(c, 1e9 - c) for c in rng.integers(1, 10**9, 12).tolist()] for _ in range(30)]
    budget = sum(row[0][0] for row in rows)
    followed = []
    undominated = knapsack._undominated

    def counting(*arguments: object) -> object:
        followed.append(len(arguments[0]))  # type: ignore[arg-type]
        return undominated(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(knapsack, "_MAX_CHOICES", 50)
    monkeypatch.setattr(knapsack, "_undominated", counting)
    cost, error = solved(rows, budget)
    assert cost <= budget
    assert error <= (30 * 1e9 - budget) * 1.001
    assert max(followed) <= 50 * 12


@pytest.mark.parametrize(
    ("rows", "budget", "expected"),
    [
        ([], 0, []),
        ([[(5, 0.1)]], 5, [0]),
        ([[(5, 0.1), (5, 0.1), (4, 0.1)]], 5, [2]),  # as good and cheaper
        ([[(9, 0.0), (1, 0.0)], [(9, 0.0), (8, 0.5)]], 10, [1, 0]),
        ([[(9, 0.0), (1, 5.0)], [(9, 0.0), (1, 2.0)]], 17, [0, 1]),
        ([[(0, 0.2), (0, 0.1)]], 0, [1]),
        # Errors so small that a MAC has no price.
        ([[(2, 0.0), (1, 5e-324)], [(2, 0.0), (1, 1e-323)]], 3, [1, 0]),
        ([[(0.1, 0.0), (0.05, 1.0)]] * 3, 0.3, [0, 0, 0]),  # though 0.1 + 0.1 + 0.1 > 0.3
    ],
)
def test_by_hand(rows: Rows, budget: float, expected: list[int]) -> None:
    costs, errors = ([[entry[i] for entry in row] for row in rows] for i in (0, 1))
    assert least_error(costs, errors, budget) == expected
