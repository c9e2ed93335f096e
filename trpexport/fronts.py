"""Which of several trade-offs no other beats in both."""

from __future__ import annotations

from collections.abc import Sequence


def front_of(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points that none beats in both, by their gain upwards.

    Args:
        points: of each the gain, where more is better, and the loss, where less is.
    """
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1])):
        if not front or points[place][1] < points[front[-1]][1]:
            front.append(place)
    return front[::-1]
