"""Where a decomposed network is faster than its original, layer by layer."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from trpexport.errors import PlanError
from trpexport.measure.profile.attribution import Attribution, LayerTime
from trpexport.measure.profile.trace import MICROSECOND
from trpexport.measure.statistics import Verdict
from trpexport.plan import Plan

if TYPE_CHECKING:
    LayerVerdict = Verdict | Literal["not measured"]

_MEDIAN_ERROR = 1.2533 * 1.4826  # standard error of a median x sqrt(n) / MAD, for normal noise
_STANDARD_ERRORS = 3.0


@dataclass(frozen=True)
class LayerComparison:
    """One original layer in two networks.

    Attributes:
        name: its name in the plan.
        is_rewritten: whether the plan rewrites it.
        base_seconds: its time in the first network.
        other_seconds: its time in the second.
        noise_seconds: the least difference that is more than noise.
        verdict: what the second network is for this layer.
    """

    name: str
    is_rewritten: bool
    base_seconds: float
    other_seconds: float
    noise_seconds: float
    verdict: LayerVerdict

    @property
    def speedup(self) -> float | None:
        """Time in the first network relative to the second; above 1 the second is faster."""
        return self.base_seconds / self.other_seconds if self.other_seconds else None

    def to_json(self) -> dict[str, Any]:
        """Return the row as JSON-ready data."""
        return asdict(self) | {"speedup": self.speedup}


def compare_profiles(
    base: Attribution, other: Attribution, plan: Plan
) -> tuple[LayerComparison, ...]:
    """Compare each original layer in two networks, in the order of the plan.

    A difference counts if it is more than three standard errors of the two medians, plus the
    microsecond to which the profiler cuts the time of each node. The error of a median is taken
    from the median absolute deviation as for normal noise: 1.2533 x 1.4826 x MAD / sqrt(runs).
    Slow spells of the machine are in it only if the networks took turns:
    :func:`~trpexport.measure.profile.profile.profile_models`.

    Args:
        base: the original network, attributed with the same plan.
        other: the decomposed network.
        plan: its plan.

    Raises:
        PlanError: one of them was attributed with another plan.
    """
    rows = []
    for layer in plan.layers:
        before, after = _row(base, layer.name), _row(other, layer.name)
        noise = _noise(before, base.runs, after, other.runs)
        rows.append(
            LayerComparison(
                name=layer.name,
                is_rewritten=layer.is_rewritten,
                base_seconds=before.seconds,
                other_seconds=after.seconds,
                noise_seconds=noise,
                verdict=_verdict(before, after, noise),
            )
        )
    return tuple(rows)


def _row(attribution: Attribution, name: str) -> LayerTime:
    for layer in attribution.layers:
        if layer.name == name:
            return layer
    raise PlanError(
        f"the profile of {attribution.model} has no layer {name}: attribute it with the plan that "
        "is to be compared"
    )


def _noise(base: LayerTime, base_runs: int, other: LayerTime, other_runs: int) -> float:
    errors = (
        _MEDIAN_ERROR * base.mad / base_runs**0.5,
        _MEDIAN_ERROR * other.mad / other_runs**0.5,
    )
    return _STANDARD_ERRORS * math.hypot(*errors) + MICROSECOND * max(
        len(base.nodes), len(other.nodes)
    )


def _verdict(base: LayerTime, other: LayerTime, noise: float) -> LayerVerdict:
    if not (base.is_measured and other.is_measured):
        return "not measured"
    gained = base.seconds - other.seconds
    if abs(gained) <= noise:
        return "no measurable difference"
    return "faster" if gained > 0 else "slower"
