"""Calibrated decomposition: layer after layer, each factor fitted to the layer's own outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from trpexport.choose.distance import distance, worst
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.gathering import Gatherer
from trpexport.errors import PlanError
from trpexport.lowrank.chain import Chain
from trpexport.lowrank.fit.layer import layer_fit
from trpexport.lowrank.fit.moments import LayerMoments
from trpexport.lowrank.fit.narrowing import MAX_UNKNOWNS, is_fitted
from trpexport.lowrank.fit.rows import LayerRows
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.ops import Layer
from trpexport.plan import CALIBRATION, LayerPlan, Plan
from trpexport.stages import Countdown

_TOO_WIDE = "their ranks are above what is fitted for layers so wide"
_UNFITTED = f"layers of more than {MAX_UNKNOWNS} outputs are not fitted"


@dataclass(frozen=True)
class LayerCalibration:
    """What calibration did to one layer. Errors are relative; outputs are those on the images.

    What counts of an output error is what it does to the network's: see
    :mod:`~trpexport.networks.torch.curvature`.

    Attributes:
        name: the layer.
        scheme: name of its scheme.
        rank: its rank.
        ridge: weight of the original kernel in the regression, relative to an input's variance.
        weight_error: kernel of the factors against the original one, Frobenius. It may be large:
            what the images never excite is free.
        error_before: output of the SVD's factors against the target, RMS.
        error_after: output of the calibrated factors against the target, RMS.
    """

    name: str
    scheme: str
    rank: int
    ridge: float
    weight_error: float
    error_before: float
    error_after: float

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.name}: output error {self.error_before:.3f} -> {self.error_after:.3f}"


@dataclass(frozen=True)
class Calibrated:
    """What stands in for the layers of a network, fitted to images.

    Attributes:
        chains: by layer, in the order in which they run.
        plan: the plan; the last factor of each fitted layer has a bias, its weight error is that
            of the fitted factors, and ``options["calibration"]`` says on which images.
        layers: one entry a fitted layer, in the order in which they run.
        errors: of each output of the network against the original one's, on the images that it was
            fitted to: RMS, relative to its variation over them.
        notes: how the network was watched, where there is more than one way.
    """

    chains: Mapping[str, Chain]
    plan: Plan
    layers: tuple[LayerCalibration, ...]
    errors: Mapping[str, float]
    notes: tuple[str, ...] = ()

    @property
    def error(self) -> float:
        """That of the worst output."""
        return worst(self.errors)


def calibrate(
    network: Network,
    plan: Plan,
    gatherer: Gatherer,
    *,
    factorizer: Factorizer | None = None,
    announce: Callable[[str], None] | None = None,
) -> Calibrated:
    """Decompose a network by a plan so that it keeps its outputs on some images, without labels.

    Layer after layer, with the inputs that the already decomposed network gives and the outputs of
    the original one as targets ("asymmetric reconstruction", Zhang et al., arXiv 1505.06798), each
    chain is fitted by ridge regression, and its bias with it. The ridge is chosen on a quarter of
    the images. Time grows with the number of images, memory does not. Layers that share a weight
    keep the SVD's factors, and go on to share them; so do very wide ones, at ranks above what is
    fitted under Tucker-2 (:mod:`~trpexport.lowrank.fit.narrowing`), or of too many outputs.

    Args:
        network: the original network.
        plan: which layers are rewritten, how, and at which ranks.
        gatherer: of the same network, on the images.
        factorizer: of the same network, where it knows SVDs.
        announce: called with a line on each layer when it is done.

    Raises:
        DataError: the network makes NaN or infinity of the images.
        PlanError: the plan is for another network, or a weight holds NaN or infinity.
    """
    candidate = gatherer.watch.candidate()
    layers = {layer.name: layer for layer in network.layers}
    planned = truncations(network, plan, factorizer)
    shared = {layer.shares for layer in network.layers} | {
        layer.name for layer in network.layers if layer.shares
    }
    chains: dict[str, Chain] = {}
    done: dict[str, LayerCalibration] = {}
    countdown = Countdown(sum(row.is_rewritten and row.name not in shared for row in plan.layers))
    rows, unfitted = [], dict[str, list[str]]({_TOO_WIDE: [], _UNFITTED: []})
    for row in plan.layers:
        if row.is_rewritten:
            chains[row.name] = planned.pop(row.name)
            if row.name not in shared:
                fitted = None
                if is_fitted(row.op):
                    evidence = gatherer.gather(layers[row.name], candidate)
                    weights = network.weights(row.name)
                    fitted = fit_layer(chains[row.name], weights, row, evidence)
                if fitted is not None:
                    chains[row.name], done[row.name] = fitted
                    row = replace(  # noqa: PLW2901
                        row,
                        factors=chains[row.name].ops,
                        weight_error=done[row.name].weight_error,
                    )
                else:
                    unfitted[_TOO_WIDE if is_fitted(row.op) else _UNFITTED].append(row.name)
                if announce is not None:
                    what = done.get(row.name, f"{row.name}: not fitted")
                    announce(f"{countdown.step()}: {what}")
            candidate.put(row.name, chains[row.name])
        rows.append(row)
    samples = gatherer.watch.samples
    facts = {
        "images": len(samples),
        "images_sha256": samples.digest,
        "layers": [layer.to_json() for layer in done.values()],
    }
    plan = replace(plan, layers=tuple(rows), options={**plan.options, CALIBRATION: facts})
    errors = distance(gatherer.watch, candidate, samples.batches)
    notes = [] if gatherer.watch.note is None else [gatherer.watch.note]
    notes += [
        f"not fitted to the images: {', '.join(names)} ({why}; they have the SVD's factors)"
        for why, names in unfitted.items()
        if names
    ]
    return Calibrated(chains, plan, tuple(done.values()), errors, tuple(notes))


def truncations(
    network: Network, plan: Plan, factorizer: Factorizer | None = None
) -> dict[str, Chain]:
    """Return the factors that the SVD gives the layers of a plan.

    Layers that share a weight share the factors' kernels.

    Args:
        network: the network.
        plan: which layers are rewritten, how, and at which ranks.
        factorizer: of the same network, where it knows SVDs.

    Raises:
        PlanError: the plan is for another network, or a weight holds NaN or infinity.
    """
    factorizer = factorizer or Factorizer(network)
    layers = {layer.name: layer for layer in network.layers}
    found: dict[str, Chain] = {}
    for row in plan.rewritten:
        layer = _planned(layers.get(row.name), row)
        assert row.scheme is not None
        assert row.rank is not None
        owner = found.get(layer.shares or "")
        if owner is not None and (owner.scheme, owner.op.kernel) == (row.scheme, row.op.kernel):
            ops = SCHEMES[row.scheme].factor_ops(row.op, row.rank)
            if [op.out_channels for op in ops] == [op.out_channels for op in owner.ops]:
                _, bias = network.weights(row.name)
                found[row.name] = replace(owner, op=row.op, ops=ops, bias=bias)
                continue
        found[row.name] = factorizer.chain(layer, row.scheme, row.rank)
    return found


def fit_layer(
    chain: Chain,
    weights: tuple[Tensor, Tensor | None],
    row: LayerPlan,
    evidence: LayerMoments | LayerRows,
) -> tuple[Chain, LayerCalibration] | None:
    """Fit the factors of one layer; the last one has a bias, which corrects the mean error.

    Args:
        chain: the SVD's factors.
        weights: kernel and bias of the layer.
        row: its scheme and rank.
        evidence: what the images say.

    Returns:
        None where the layer is so wide, and the rank so high, that the scheme can't take it.
    """
    assert row.rank is not None
    fit = layer_fit(weights[0], chain.op, chain.scheme, evidence)
    if not fit.can_take(row.rank):
        return None
    ridge = fit.best_ridge(row.rank)
    fitted = fit.chain(row.rank, ridge)
    return fitted, LayerCalibration(
        name=row.name,
        scheme=chain.scheme,
        rank=row.rank,
        ridge=ridge,
        weight_error=fitted.distance(weights[0]) ** 0.5,
        error_before=fit.relative_error(chain, weights[1]),
        error_after=fit.relative_error(fitted, fitted.bias),
    )


def _planned(layer: Layer | None, row: LayerPlan) -> Layer:
    if layer is None or layer.op != row.op:
        raise PlanError(f"the plan is for another network: it has no layer {row.name} of {row.op}")
    return layer
