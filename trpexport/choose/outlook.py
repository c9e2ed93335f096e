"""What low rank can win of a network at best, in MACs: said before any long work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from trpexport.choose.estimate import calibration_seconds, measured_pace
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.selection import Selection
from trpexport.choose.spectra import Analysis, analyse, keep_all
from trpexport.lowrank.criteria import parse_criterion
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.plan import LayerPlan, Plan
from trpexport.verdict import FAIR_RATIO, KindShare, macs_by_kind, why_dear

# Share of each kernel's energy that is kept, at any ranks. It tells networks apart: of the public
# ResNet-20, whose top-1 keeps within a point at half of the MACs once it is calibrated, that leaves
# 1.46x fewer MACs; of EfficientNet-Lite0, which loses 1.7 points at 1.16x, 1.17x.
ENERGY = 0.9
# Calibrations that a target takes: most are met by the first or the second one.
_CALIBRATIONS = 2
# Share of the MACs in plain convolutions from which on calibration may well save more than kernels
# promise: of random 3x3 kernels a half of the MACs, of 1x1 and depthwise ones hardly anything.
_MOST = 0.5


@dataclass(frozen=True)
class Outlook:
    """What low rank can win of a network at best.

    Attributes:
        plan: each layer in the cheapest way that keeps so much of its kernel.
        kinds: by kind of layer, its share of the MACs, and how much that saves of them.
        touchable: by kind of layer, the share of all MACs in layers that a scheme may rewrite.
        energy: share of each kernel's energy that the plan keeps.
        seconds: about how long it takes to calibrate; None where nothing is calibrated.
    """

    plan: Plan
    kinds: tuple[KindShare, ...]
    touchable: dict[str, float]
    energy: float = ENERGY
    seconds: float | None = None

    @property
    def ratio(self) -> float:
        """MACs before over after."""
        return self.plan.macs_before / max(1, self.plan.macs_after)

    @property
    def is_fair(self) -> bool:
        """Whether as much can be saved as is worth it."""
        return self.ratio >= FAIR_RATIO

    def __str__(self) -> str:
        by_weights = f"{self.ratio:.2f}x fewer MACs keep {self.energy:.0%} of each kernel"
        if self.is_fair:
            return (
                f"low rank can pay here: {by_weights}; images to calibrate on and training towards "
                "low rank save more"
            )
        if self._plain_macs >= _MOST * self.plan.macs_before:
            return (
                f"by its weights alone, low rank hardly pays here: {by_weights}; images to "
                "calibrate on or training towards low rank may save more"
            )
        dear = why_dear([kind for kind in self.kinds if not kind.is_fair])
        return f"low rank hardly pays here: {by_weights}; {dear}"

    @property
    def _plain_macs(self) -> int:
        """MACs in layers whose rank says little about what calibration can save of them."""
        return sum(
            row.macs
            for row in self.plan.layers
            if row.op.kind in self.touchable
            and row.op.ndim
            and row.op.groups == 1
            and not row.op.is_pointwise
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return {
            "architecture": self.plan.architecture,
            **self.plan.inputs.to_json(),
            "macs": self.plan.macs_before,
            "uncounted": dict(self.plan.uncounted),
            "energy": self.energy,
            "macs_ratio": self.ratio,
            "pays": self.is_fair,
            "kinds": [
                {**asdict(kind), "touchable": self.touchable.get(kind.kind, 0.0)}
                for kind in self.kinds
            ],
            "seconds": self.seconds,
        }


def outlook(
    network: Network,
    scheme: str = "auto",
    selection: Selection | None = None,
    *,
    label: str | None = None,
    factorizer: Factorizer | None = None,
) -> Outlook:
    """Return what low rank can win of a network at best, by the spectra of its kernels.

    Args:
        network: the network.
        scheme: name of the scheme; ``auto`` takes the best for each layer.
        selection: the layers that may be rewritten.
        label: what the network is called.
        factorizer: of the same network, which then knows the SVDs.

    Raises:
        PlanError: a kernel holds NaN or infinity, or a pattern matches no layer.
    """
    names = list(SCHEMES) if scheme == "auto" else [scheme]
    factorizer = factorizer or Factorizer(network)
    analyses = (analyse(network, name, selection, factorizer=factorizer) for name in names)
    found = outlook_of(network, analyses, label=label)
    return replace(found, plan=replace(found.plan, scheme=scheme))


def outlook_of(
    network: Network, analyses: Iterable[Analysis], *, label: str | None = None
) -> Outlook:
    """Return what low rank can win of a network by the best of some schemes for each layer.

    Args:
        network: the network.
        analyses: its spectra under each scheme.
        label: what the network is called.
    """
    criterion = parse_criterion(f"energy:{ENERGY}")
    best: dict[str, LayerPlan] = {}
    free: set[str] = set()
    for analysis in analyses:
        free |= {
            one.name
            for one in analysis.layers
            if one.values is not None and analysis.scheme.break_even_rank(one.op, one.layer.calls)
        }
        for row in analysis.plan(criterion).layers:
            if row.name not in best or row.factor_macs < best[row.name].factor_macs:
                best[row.name] = row
    bare = keep_all(network, architecture=label)
    rows = tuple(best[row.name] for row in bare.layers)
    plan = replace(bare, criterion=str(criterion), layers=rows)
    touchable: dict[str, float] = {}
    for row in plan.layers:
        if row.name in free and plan.macs_before:
            kind = row.op.kind
            touchable[kind] = touchable.get(kind, 0.0) + row.macs / plan.macs_before
    return Outlook(plan, macs_by_kind(plan), touchable)


def priced(found: Outlook, network: Network, images: int, *, has_target: bool) -> Outlook:
    """Return an outlook that says about how long its network takes to be calibrated.

    Args:
        found: the outlook.
        network: the network.
        images: to calibrate on.
        has_target: whether the ranks are chosen by what each of them loses on the images.
    """
    names = {row.name for row in found.plan.layers if row.op.kind in found.touchable}
    pace = measured_pace()
    seconds = calibration_seconds(network, names, images, pace=pace)
    if has_target:
        schemes = len([*SCHEMES]) if found.plan.scheme == "auto" else 1
        table = calibration_seconds(network, names, images, schemes=schemes, passes=1, pace=pace)
        seconds = table + _CALIBRATIONS * seconds
    return replace(found, seconds=seconds)
