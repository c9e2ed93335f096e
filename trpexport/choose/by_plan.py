"""Ranks of an edited plan, made whole again for the network that it was made for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trpexport.choose.base import CalibrationImages, Choice, applied
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.spectra import LayerSpectrum, guarded, keep_all
from trpexport.errors import PlanError
from trpexport.inputs import Inputs
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.base import Network
from trpexport.ops import Layer, LinearOp
from trpexport.plan import CALIBRATION, LayerPlan, Plan, read_plan
from trpexport.stages import Stages


@dataclass(frozen=True)
class ByPlan:
    """Takes schemes and ranks of each layer from a plan.

    Attributes:
        plan: the plan, or the file that it stands in.
        keep_expensive: rewrite a layer even where that does not make it cheaper.
        cache: as for :class:`~trpexport.ByCriterion`.
    """

    plan: Plan | str | Path
    keep_expensive: bool = False
    cache: str | Path | None = None

    @property
    def label(self) -> str:
        """What names a bundle that was made so."""
        return self._read().scheme

    @property
    def inputs(self) -> Inputs | None:
        """The network's inputs, where the choice was made for some; else None."""
        return self._read().inputs

    def check(self) -> None:
        """Refuse what can't be before any work is done.

        Raises:
            PlanError: the file can't be read, or is no plan.
        """
        self._read()

    def __call__(
        self, network: Network, images: CalibrationImages | None, stages: Stages, label: str | None
    ) -> Choice:
        """Choose for a network.

        Raises:
            NothingCheaperError: no layer would get cheaper.
            PlanError: it is another network's plan, or a rank is below 1 or above the full rank.
        """
        edited = self._read()
        source = "the plan" if isinstance(self.plan, Plan) else str(self.plan)
        factorizer = Factorizer(network)
        with stages("compute spectra"):
            plan = revised(
                network,
                edited,
                keep_expensive=self.keep_expensive,
                source=source,
                factorizer=factorizer,
            )
        choice = applied(network, plan, images, stages, factorizer, cache=self.cache)
        if images is None and CALIBRATION in edited.options:
            note = (
                f"{source} is of a calibrated network, these factors are plain SVD: give images to "
                "calibrate them again"
            )
            return replace(choice, notes=(*choice.notes, note))
        return choice

    def _read(self) -> Plan:
        return self.plan if isinstance(self.plan, Plan) else read_plan(Path(self.plan))


def revised(
    network: Network,
    edited: Plan,
    *,
    keep_expensive: bool = False,
    source: str = "the plan",
    factorizer: Factorizer | None = None,
) -> Plan:
    """Derive a whole plan for a network from the schemes and ranks of an edited one.

    The result is the plan of SVD's factors, also where the edited one was of a calibrated network.

    Args:
        network: the network that the plan was made for.
        edited: a plan whose layers' ``scheme`` and ``rank`` count; the rest is derived again.
        keep_expensive: rewrite a layer even where that does not make it cheaper.
        source: where the plan comes from, for messages.
        factorizer: of the same network, which then knows the SVDs.

    Raises:
        PlanError: it is another network's, or a rank is below 1 or above the full rank.
    """
    _check_same_network(network.ops, edited.layers, source)
    wanted = {layer.name: layer for layer in edited.layers}
    # Bases are only worth their memory to one who goes on to truncate.
    layers = tuple(
        _revise_layer(
            factorizer or Factorizer(network), layer, wanted[layer.name], keep_expensive, source
        )
        if layer.name in wanted
        else LayerSpectrum(layer, None, None).kept("the plan does not name it")
        for layer in network.layers
    )
    same = [*map(_bare, layers)] == [*map(_bare, edited.layers)]
    bare = keep_all(network, architecture=edited.architecture)
    options = {key: value for key, value in edited.options.items() if key != CALIBRATION}
    return replace(
        bare,
        scheme=edited.scheme,
        criterion=edited.criterion if same else f"edited plan {source}",
        layers=layers,
        options={**options, "keep_expensive": keep_expensive},
    )


def _bare(layer: LayerPlan) -> LayerPlan:
    """Return the plan of a layer without what calibration changes of it."""
    factors = tuple(replace(factor, bias=False) for factor in layer.factors)
    return replace(layer, factors=factors, weight_error=None)


def _revise_layer(
    factorizer: Factorizer, layer: Layer, wanted: LayerPlan, keep_expensive: bool, source: str
) -> LayerPlan:
    bare = LayerSpectrum(layer, None, None)
    if wanted.scheme is None:
        return replace(
            bare.kept(wanted.reason or "kept by the plan"),
            full_rank=wanted.full_rank,
            spectrum=wanted.spectrum,
        )
    scheme = SCHEMES[wanted.scheme]
    reason = layer.fixed or scheme.unsupported_reason(layer.op)
    if not layer.calls:
        reason = "the network never runs it"
    if reason:
        raise PlanError(
            f"{source}: {layer.name} can't be rewritten: {reason}; set its scheme to null"
        )
    full = scheme.full_rank(layer.op)
    if wanted.rank is None or not 1 <= wanted.rank <= full:
        raise PlanError(
            f"{source}: {layer.name} has rank {wanted.rank}, it must be from 1 to {full}"
        )
    values = factorizer.spectrum(layer, scheme)
    return guarded(replace(bare, values=values), scheme, wanted.rank, keep_expensive)


def _check_same_network(
    ops: Mapping[str, LinearOp], planned: Sequence[LayerPlan], source: str
) -> None:
    there = {layer.name: layer.op for layer in planned}
    for name in [*there, *ops]:
        if name not in ops:
            detail = f"it has a layer {name}, the network has none"
        elif name not in there and (ops[name].window.transposed or not ops[name].ndim):
            continue  # plans once were of convolutions alone
        elif name not in there:
            detail = f"the network has a layer {name}, it has none"
        elif ops[name] != there[name]:
            detail = f"{name} is {there[name]} in it and {ops[name]} in the network"
        else:
            continue
        raise PlanError(f"{source} is for another network: {detail}")
