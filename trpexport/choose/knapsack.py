"""The multiple-choice knapsack problem: one entry of each row, of least error within a budget.

Solved exactly, by dynamic programming over the choices that no other beats at both cost and error,
of which a bound leaves few: see Dyer, Riha and Walker, "A hybrid dynamic programming/branch-and-
bound algorithm for the multiple-choice knapsack problem", Journal of Computational and Applied
Mathematics 58, 1995.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Of a budget: what adding up numbers that are not whole may lose.
ROUNDING = 1e-13
# How far from the best a choice may stay, relative to it: what rounding can't tell apart.
_GAP = 1e-9
# Choices that are followed at a time. Where there are more, as where all entries save the same
# error for their cost, the least promising are given up, and the result is only nearly the best.
_MAX_CHOICES = 1 << 15


def least_error(
    cost: Sequence[Sequence[float]], error: Sequence[Sequence[float]], budget: float
) -> list[int]:
    """Return the place of one entry a row: least error in sum, at most ``budget`` cost in sum.

    Args:
        cost: of each entry of each row.
        error: likewise, not negative.
        budget: at least what the cheapest entries cost.
    """
    limit = budget + ROUNDING * abs(budget)
    rows = [_Row.of(*row) for row in zip(cost, error, strict=True)]
    price = _price(rows, limit)
    # What the rows that are not decided yet take at this price.
    rest = [row.best_at(price) for row in rows]
    rest_cost, rest_error = _sums(rows, rest)
    # Where no price is so small as to tell errors apart, that may not fit: what is cheapest does.
    chosen = rest if rest_cost <= limit else [0] * len(rows)
    _, best = _sums(rows, chosen)
    costs, errors = np.zeros(1), np.zeros(1)  # of the choices in the rows so far
    parents: list[NDArray[np.intp]] = []
    for index, (row, taken) in enumerate(zip(rows, rest, strict=True)):
        rest_cost -= row.costs[taken]
        rest_error -= row.errors[taken]
        costs, errors = np.add.outer(costs, row.costs), np.add.outer(errors, row.errors)
        costs, errors = costs.ravel(), errors.ravel()
        whole_costs, whole_errors = costs + rest_cost, errors + rest_error
        fitting = np.where(whole_costs <= limit, whole_errors, np.inf)
        first = int(fitting.argmin())
        if fitting[first] < best:
            best = float(fitting[first])
            chosen = [*_path(rows, parents, first), *rest[index + 1 :]]
        # No rows to come can do better: the Lagrangian relaxation.
        bounds = whole_errors + price * (whole_costs - limit)
        kept = _undominated(costs, errors, np.flatnonzero(bounds < best * (1 - _GAP)))
        if len(kept) > _MAX_CHOICES:
            kept = kept[np.argpartition(bounds[kept], _MAX_CHOICES)[:_MAX_CHOICES]]
        if not len(kept):
            break
        costs, errors = costs[kept], errors[kept]
        parents.append(kept)
    return [row.places[i] for row, i in zip(rows, chosen, strict=True)]


class _Row(NamedTuple):
    """The entries of a row that no other beats at both, cheapest first."""

    places: list[int]
    costs: Floats
    errors: Floats

    @classmethod
    def of(cls, cost: Sequence[float], error: Sequence[float]) -> _Row:
        costs, errors = np.array(cost, dtype=float), np.array(error, dtype=float)
        kept = _undominated(costs, errors, np.arange(len(costs)))
        return cls(kept.tolist(), costs[kept], errors[kept])

    def best_at(self, price: float) -> int:
        """Return the entry of least error where each unit of cost counts as so much error."""
        return int((self.errors + price * self.costs).argmin())

    def slopes(self) -> Floats:
        """Return how much error a unit of cost saves, from each entry to each dearer one."""
        i, j = np.triu_indices(len(self.costs), 1)
        found: Floats = (self.errors[i] - self.errors[j]) / (self.costs[j] - self.costs[i])
        return found


def _sums(rows: Sequence[_Row], entries: Sequence[int]) -> tuple[float, float]:
    """Return cost and error of one entry a row."""
    chosen = list(zip(rows, entries, strict=True))
    return sum(float(row.costs[i]) for row, i in chosen), sum(
        float(row.errors[i]) for row, i in chosen
    )


def _price(rows: Sequence[_Row], limit: float) -> float:
    """Return the smallest price of a unit of cost at which the best entries fit the limit."""
    slopes = np.sort(np.concatenate([np.zeros(1), *(row.slopes() for row in rows)]))
    # At twice the largest one, the cheapest entries are the best.
    prices = np.append(slopes, 2 * slopes[-1])

    def fits(price: float) -> bool:
        return _sums(rows, [row.best_at(price) for row in rows])[0] <= limit

    return float(prices[min(bisect_left(prices, True, key=fits), len(prices) - 1)])


def _undominated(costs: Floats, errors: Floats, among: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return the indices that no other one beats at both, cheapest first."""
    ordered = among[np.lexsort((errors[among], costs[among]))]
    least = np.minimum.accumulate(errors[ordered])
    return ordered[np.diff(least, prepend=np.inf) < 0]


def _path(rows: Sequence[_Row], parents: Sequence[NDArray[np.intp]], last: int) -> list[int]:
    """Return the entries of the first rows that led to a choice.

    Args:
        rows: all rows.
        parents: of each row but the last one decided, the choices that went on.
        last: the choice, counted among all extensions of those that went on.
    """
    entries = []
    for index in range(len(parents), -1, -1):
        last, entry = divmod(last, len(rows[index].costs))
        entries.append(entry)
        if index:
            last = int(parents[index - 1][last])
    return entries[::-1]
