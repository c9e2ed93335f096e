"""An edited plan, made whole again for the network that it was made for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from trpexport.choose.planner import LayerSpectrum, guarded
from trpexport.errors import PlanError
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.torch.factorize import CALIBRATION
from trpexport.networks.torch.trace import CONVOLUTIONS, TracedConv, conv_spec, trace
from trpexport.plan import LayerPlan, Plan


def revise_plan(
    model: nn.Module,
    edited: Plan,
    *,
    input_shape: Sequence[int] | None = None,
    keep_expensive: bool = False,
    source: str = "the plan",
) -> Plan:
    """Derive a whole plan for ``model`` from the schemes and ranks of an edited one.

    The result is the plan of SVD's factors, also where the edited one was of a calibrated network.

    Args:
        model: the network that the plan was made for.
        edited: a plan whose layers' ``scheme`` and ``rank`` count; the rest is derived again.
        input_shape: shape of the network's input, batch first; the plan's by default.
        keep_expensive: rewrite a layer even where that does not make it cheaper.
        source: where the plan comes from, for messages.

    Raises:
        PlanError: it is another network's, or a rank is below 1 or above the full rank.
    """
    _check_same_network(model, edited.layers, source)
    shape = tuple(input_shape or edited.input_shape)
    traced = trace(model, shape)
    wanted = {layer.name: layer for layer in edited.layers}
    layers = tuple(
        _revise_layer(layer, wanted[layer.name], keep_expensive, source) for layer in traced.layers
    )
    same = [*map(_bare, layers)] == [*map(_bare, edited.layers)]
    options = {key: value for key, value in edited.options.items() if key != CALIBRATION}
    return replace(
        edited,
        criterion=edited.criterion if same else f"edited plan {source}",
        input_shape=shape,
        layers=layers,
        other_macs=traced.other_macs,
        options={**options, "keep_expensive": keep_expensive},
    )


def _bare(layer: LayerPlan) -> LayerPlan:
    """Return the plan of a layer without what calibration changes of it."""
    factors = tuple(replace(factor, bias=False) for factor in layer.factors)
    return replace(layer, factors=factors, weight_error=None)


def _revise_layer(
    layer: TracedConv, wanted: LayerPlan, keep_expensive: bool, source: str
) -> LayerPlan:
    bare = LayerSpectrum(layer.name, layer.conv, layer.input_sizes, None, None)
    if wanted.scheme is None:
        return replace(
            bare.kept(wanted.reason or "kept by the plan"),
            full_rank=wanted.full_rank,
            spectrum=wanted.spectrum,
        )
    scheme = SCHEMES[wanted.scheme]
    reason = layer.untouchable or scheme.unsupported_reason(layer.conv)
    if not layer.input_sizes:
        reason = "the network never runs it"
    if reason:
        raise PlanError(
            f"{source}: {layer.name} can't be rewritten: {reason}; set its scheme to null"
        )
    full = scheme.full_rank(layer.conv)
    if wanted.rank is None or not 1 <= wanted.rank <= full:
        raise PlanError(
            f"{source}: {layer.name} has rank {wanted.rank}, it must be from 1 to {full}"
        )
    values = scheme.spectrum(layer.module.weight, layer.conv).cpu().numpy()
    return guarded(replace(bare, values=values), scheme, wanted.rank, keep_expensive)


def _check_same_network(model: nn.Module, planned: Sequence[LayerPlan], source: str) -> None:
    here = {
        name: conv_spec(module)
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS)
    }
    there = {layer.name: layer.conv for layer in planned}
    for name in [*there, *here]:
        if name not in here:
            detail = f"it has a layer {name}, the network has none"
        elif name not in there:
            detail = f"the network has a layer {name}, it has none"
        elif here[name] != there[name]:
            detail = f"{name} is {there[name]} in it and {here[name]} in the network"
        else:
            continue
        raise PlanError(f"{source} is for another network: {detail}")
