"""Calibrated decomposition: layer after layer, each factor fitted to the layer's own outputs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trpexport.choose.gathering import Gatherer
from trpexport.errors import PlanError
from trpexport.lowrank.fit.moments import LayerMoments
from trpexport.lowrank.fit.patches import grouped, linear_map
from trpexport.lowrank.fit.regression import TYPICAL_RIDGE, Regression
from trpexport.lowrank.fit.tucker import fit_of
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.torch.factorize import CALIBRATION, make_conv, truncated_weight
from trpexport.networks.torch.network_error import relative_distance
from trpexport.networks.torch.trace import CONVOLUTIONS, Conv, conv_spec
from trpexport.plan import LayerPlan, Plan


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
    """A calibrated network.

    Attributes:
        network: the factorized network.
        plan: its plan; the last factor of each rewritten layer has a bias, its weight error is
            that of the calibrated factors, and ``options["calibration"]`` says on which images.
        layers: one entry a rewritten layer, in the order in which they run.
        error: output of the network against the original one's on the calibration images, RMS,
            relative to its variation over them.
    """

    network: nn.Module
    plan: Plan
    layers: tuple[LayerCalibration, ...]
    error: float


def calibrate(
    model: nn.Module,
    plan: Plan,
    images: NDArray[np.floating[Any]] | Tensor,
    *,
    gatherer: Gatherer | None = None,
    announce: Callable[[str], None] | None = None,
) -> Calibrated:
    """Decompose a network by a plan so that it keeps its outputs on some images, without labels.

    Layer after layer, with the inputs that the already decomposed network gives and the outputs of
    the original one as targets ("asymmetric reconstruction", Zhang et al., arXiv 1505.06798), each
    pair is fitted by ridge regression, and its bias with it. The ridge is chosen on a quarter of
    the images. Time grows with the number of images, memory does not.

    Args:
        model: the original network; it is not changed.
        plan: which layers are rewritten, how, and at which ranks.
        images: (images, *input shape), normalised as for the network, at least one.
        gatherer: of the same network and images, where several plans are tried.
        announce: called with a line on each layer when it is done.

    Raises:
        DataError: the images do not fit the network, or it makes NaN or infinity of them.
        PlanError: the plan is for another network, or a weight holds NaN or infinity.
    """
    gatherer = gatherer or Gatherer(model, images, plan.input_shape)
    network = copy.deepcopy(model)
    candidate = gatherer.replay(network)
    done: dict[str, LayerCalibration] = {}
    layers = []
    for layer in plan.layers:
        if layer.is_rewritten:
            module = _planned(network, layer)
            moments = gatherer.gather(layer.name, layer.conv, candidate)
            layer = with_bias(layer)  # noqa: PLW2901
            chain, done[layer.name] = fit_layer(module, layer, moments)
            layer = replace(layer, weight_error=done[layer.name].weight_error)  # noqa: PLW2901
            network = candidate.model = _with(network, layer.name, chain)
            if announce is not None:
                announce(str(done[layer.name]))
        layers.append(layer)
    facts = {
        "images": len(gatherer.images.values),
        "images_sha256": gatherer.images.digest,
        "layers": [layer.to_json() for layer in done.values()],
    }
    plan = replace(plan, layers=tuple(layers), options={**plan.options, CALIBRATION: facts})
    error = relative_distance(gatherer.outputs(), candidate.outputs(gatherer.images))
    return Calibrated(network, plan, tuple(done.values()), error)


def fit_layer(
    module: Conv, layer: LayerPlan, moments: LayerMoments
) -> tuple[nn.Sequential, LayerCalibration]:
    """Fit the factors of one layer.

    Args:
        module: the original convolution.
        layer: scheme and rank; its last factor has a bias.
        moments: what the images say.

    Raises:
        PlanError: the weight holds NaN or infinity.
    """
    assert layer.scheme is not None
    assert layer.rank is not None
    scheme = SCHEMES[layer.scheme]
    truncated = grouped(truncated_weight(module.weight, layer), layer.conv)
    weight, old_bias = linear_map(module, layer.conv)
    metric, everything = moments.metric, moments.fit + moments.held_out
    regression = Regression(everything, weight, TYPICAL_RIDGE, metric)
    problem = fit_of(regression, scheme, layer.conv)
    ridge = problem.best_ridge(layer.rank, moments)
    weights = problem.weights(layer.rank, ridge)
    kernels = problem.kernels(weights)
    bias = regression.bias(kernels)
    power = everything.power(metric)
    size = float(weight.norm())
    chain = nn.Sequential(*[make_conv(factor).to(module.weight) for factor in layer.factors])
    with torch.no_grad():
        for factor, kernel in zip(chain, weights, strict=True):
            factor.get_parameter("weight").copy_(kernel)
        chain[-1].get_parameter("bias").copy_(bias.reshape(-1))
    return chain.train(module.training), LayerCalibration(
        name=layer.name,
        scheme=layer.scheme,
        rank=layer.rank,
        ridge=ridge,
        weight_error=_relative(float((kernels - weight).norm()) ** 2, size**2),
        error_before=_relative(everything.squared_error(truncated, old_bias, metric), power),
        error_after=_relative(everything.squared_error(kernels, bias, metric), power),
    )


def with_bias(layer: LayerPlan) -> LayerPlan:
    """Return the plan of a layer whose last factor has a bias: it corrects the mean error.

    It costs nothing in the exported file, where a batch norm becomes a bias anyway.
    """
    *first, last = layer.factors
    return replace(layer, factors=(*first, replace(last, bias=True)))


def _planned(network: nn.Module, layer: LayerPlan) -> Conv:
    module = dict(network.named_modules()).get(layer.name)
    if not isinstance(module, CONVOLUTIONS) or conv_spec(module) != layer.conv:
        raise PlanError(
            f"the plan is for another network: it has no convolution {layer.name} of {layer.conv}"
        )
    if not torch.isfinite(module.weight).all():
        raise PlanError(f"the weight of {layer.name} holds NaN or infinity")
    return module


def _with(network: nn.Module, name: str, chain: nn.Module) -> nn.Module:
    """Return the network with the module ``name`` replaced wherever it stands."""
    old = network.get_submodule(name)
    memo: dict[int, Any] = {id(old): chain}
    # The old network is given up: its tensors need no copies.
    memo |= {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, memo)


def _relative(square: float, power: float) -> float:
    return (square / power) ** 0.5 if power else float(square > 0)
