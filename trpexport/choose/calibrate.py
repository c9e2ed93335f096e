"""Calibrated decomposition: layer after layer, each factor fitted to the layer's own outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from trpexport.available import give_back
from trpexport.choose.distance import distance, worst
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.fits import Fit, FitStore, LayerCalibration
from trpexport.choose.gathering import Gatherer
from trpexport.errors import PlanError
from trpexport.lowrank.chain import Chain
from trpexport.lowrank.fit.layer import layer_fit
from trpexport.lowrank.fit.moments import LayerMoments
from trpexport.lowrank.fit.narrowing import MAX_UNKNOWNS, is_fitted
from trpexport.lowrank.fit.rows import LayerRows
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Candidate, Network
from trpexport.networks.samples import Samples
from trpexport.ops import Layer
from trpexport.plan import CALIBRATION, LayerPlan, Plan
from trpexport.stages import Countdown

_TOO_WIDE = "their ranks are above what is fitted for layers so wide"
_UNFITTED = f"layers of more than {MAX_UNKNOWNS} outputs are not fitted"


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
    store: FitStore | None = None,
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
        store: of the same network on the same images: layers that it knows are not fitted again.
        announce: called with a line on each layer when it is done.

    Raises:
        DataError: the network makes NaN or infinity of the images.
        PlanError: the plan is for another network, or a weight holds NaN or infinity.
    """
    samples, candidate = gatherer.watch.samples, gatherer.watch.candidate()
    store = store or FitStore(None, network, samples)
    alone = _alone(network, plan)
    fits = store.recalled(plan, alone)
    unknown = replace(plan, layers=tuple(x for x in plan.layers if fits.get(x.name) is None))
    planned = truncations(network, unknown, factorizer)
    countdown = Countdown(len(alone), done=len(fits))
    if fits and announce is not None:
        announce(f"{len(fits)} of {len(alone)}: fitted before")
    chains: dict[str, Chain] = {}
    for row in plan.rewritten:
        if row.name in alone and row.name not in fits:
            fit = None
            if is_fitted(row.op):
                fit = _fitted(network, gatherer, candidate, row, planned[row.name])
                store.keep(plan, row.name, fit)
            fits[row.name] = fit
            if announce is not None:
                what = f"{row.name}: not fitted" if fit is None else str(fit[1])
                announce(f"{countdown.step()}: {what}")
        known = fits.get(row.name)
        chains[row.name] = planned[row.name] if known is None else known[0]
        candidate.put(row.name, chains[row.name])
    errors = store.errors(plan)
    if errors is None:
        errors = distance(gatherer.watch, candidate, samples.batches)
        store.keep_errors(plan, errors)
    done = {row.name: fit[1] for row in plan.rewritten if (fit := fits.get(row.name)) is not None}
    notes = [] if gatherer.watch.note is None else [gatherer.watch.note]
    notes += _unfitted([row for row in plan.rewritten if row.name in alone - done.keys()])
    told = _told(plan, chains, done, samples)
    return Calibrated(chains, told, tuple(done.values()), errors, tuple(notes))


def _alone(network: Network, plan: Plan) -> frozenset[str]:
    """Return the names of the layers of a plan that are fitted, if any: they share no weight."""
    shared = {layer.shares for layer in network.layers} | {
        layer.name for layer in network.layers if layer.shares
    }
    return frozenset(row.name for row in plan.rewritten) - shared


def _fitted(
    network: Network, gatherer: Gatherer, candidate: Candidate, row: LayerPlan, chain: Chain
) -> Fit | None:
    """Return the fit of a layer; None where its rank can't be fitted.

    Args:
        network: the original network.
        gatherer: of the same network, on the images.
        candidate: decomposed up to this layer.
        row: the layer's scheme and rank.
        chain: the SVD's factors.
    """
    (layer,) = (layer for layer in network.layers if layer.name == row.name)
    evidence = gatherer.gather(layer, candidate)
    return fit_layer(chain, network.weights(row.name), row, evidence)


def _told(
    plan: Plan, chains: Mapping[str, Chain], done: Mapping[str, LayerCalibration], samples: Samples
) -> Plan:
    """Return a plan that says what its layers became, on which images."""
    rows = (
        replace(row, factors=chains[row.name].ops, weight_error=done[row.name].weight_error)
        if row.name in done
        else row
        for row in plan.layers
    )
    facts = {
        "images": len(samples),
        "images_sha256": samples.digest,
        "layers": [layer.to_json() for layer in done.values()],
    }
    return replace(plan, layers=tuple(rows), options={**plan.options, CALIBRATION: facts})


def _unfitted(rows: Sequence[LayerPlan]) -> list[str]:
    """Return notes on the layers that were not fitted, by why."""
    names: dict[str, list[str]] = {_TOO_WIDE: [], _UNFITTED: []}
    for row in rows:
        names[_TOO_WIDE if is_fitted(row.op) else _UNFITTED].append(row.name)
    return [
        f"not fitted to the images: {', '.join(some)} ({why}; they have the SVD's factors)"
        for why, some in names.items()
        if some
    ]


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
) -> Fit | None:
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
    give_back()  # what is held out is formed
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
