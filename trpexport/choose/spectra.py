"""From a network to a plan: spectra once, then ranks by any criterion, then the guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from trpexport.choose.alignment import UNALIGNED, Alignment, no_multiple
from trpexport.choose.factorizer import Factorizer
from trpexport.choose.selection import Selection, together
from trpexport.cost import macs
from trpexport.errors import PlanError
from trpexport.lowrank.criteria import Criterion
from trpexport.lowrank.schemes import SCHEMES, MatrixScheme, Scheme
from trpexport.lowrank.spectrum import relative_error
from trpexport.networks.base import Network
from trpexport.ops import Layer, LinearOp
from trpexport.plan import LayerPlan, Plan


@dataclass(frozen=True)
class LayerSpectrum:
    """A layer and its singular values under one scheme.

    Attributes:
        layer: the layer.
        values: singular values (batch, full rank), largest first; None for a layer that stays.
        reason: why the layer stays whatever the criterion says, or None.
    """

    layer: Layer
    values: NDArray[np.float64] | None
    reason: str | None

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.layer.name

    @property
    def op(self) -> LinearOp:
        """What the layer computes."""
        return self.layer.op

    def macs(self, ops: Sequence[LinearOp]) -> int:
        """Return the MACs for one image of ``ops`` in the place of this layer."""
        return macs(ops, self.layer.calls)

    def kept(self, reason: str) -> LayerPlan:
        """Return the plan that leaves this layer as it is."""
        dense = self.macs((self.op,))
        return LayerPlan(
            name=self.name,
            op=self.op,
            calls=self.layer.calls,
            scheme=None,
            rank=None,
            full_rank=None if self.values is None else self.values.shape[1],
            factors=(),
            reason=reason,
            weight_error=None,
            macs=dense,
            factor_macs=dense,
            spectrum=self.envelope,
            shares=self.layer.shares,
        )

    def rewritten(self, scheme: Scheme, rank: int) -> LayerPlan:
        """Return the plan that rewrites this layer at ``rank``."""
        assert self.values is not None
        factors = scheme.factor_ops(self.op, rank)
        return replace(
            self.kept(""),
            scheme=scheme.name,
            rank=rank,
            factors=factors,
            reason=None,
            weight_error=relative_error(self.values, rank),
            factor_macs=self.macs(factors),
        )

    @property
    def envelope(self) -> tuple[float, ...]:
        """The largest singular value over the batch at each place."""
        return () if self.values is None else tuple(self.values.max(axis=0).tolist())


@dataclass(frozen=True)
class Analysis:
    """The spectra of a network under one scheme: the slow part, done once.

    Attributes:
        scheme: the scheme.
        layers: its layers in the order in which they run.
        bare: the plan that leaves all of them as they are.
        alignment: what the ranks of plans are rounded up to multiples of.
    """

    scheme: Scheme
    layers: tuple[LayerSpectrum, ...]
    bare: Plan
    alignment: Alignment = UNALIGNED

    def rank(self, layer: LayerSpectrum, criterion: Criterion) -> int:
        """Return the rank of a layer: the largest that ``criterion`` asks for over its batch.

        Raises:
            PlanError: the criterion can't judge what the scheme cuts.
        """
        assert layer.values is not None
        shape = None
        form = self.scheme.form(layer.op)
        if isinstance(form, MatrixScheme):
            _, *shape = form.matrix_shape(layer.op)
        return max(criterion.rank(values, shape) for values in layer.values)

    def plan(self, criterion: Criterion, *, keep_expensive: bool = False) -> Plan:
        """Choose every layer's rank by ``criterion``, rounded up where that is still cheaper.

        Args:
            criterion: the criterion.
            keep_expensive: rewrite a layer even where that does not make it cheaper.

        Raises:
            PlanError: the criterion's rank is above the full rank of every layer, or it can't
                judge what the scheme cuts.
        """
        ranks = {
            layer.name: self.rank(layer, criterion)
            for layer in self.layers
            if layer.values is not None
        }
        full = {
            layer.name: layer.values.shape[1] for layer in self.layers if layer.values is not None
        }
        if ranks and all(rank > full[name] for name, rank in ranks.items()):
            raise PlanError(
                f"{criterion} is above the full rank of every layer, which is at most "
                f"{max(full.values())}: ask for less"
            )
        found = self._aligned(ranks, full if keep_expensive else self._cheaper)

        def row(layer: LayerSpectrum) -> LayerPlan:
            if layer.values is None:
                return layer.kept(layer.reason or "")
            rank = found[layer.name]
            if rank is None:
                return layer.kept(no_multiple(self.alignment, ranks[layer.name]))
            return guarded(layer, self.scheme, rank, keep_expensive, self.alignment.most_kept)

        rows = [row(layer) for layer in self.layers]
        return replace(
            self.bare,
            scheme=self.scheme.name,
            criterion=str(criterion),
            layers=_together(self.layers, rows),
            options={
                **self.bare.options,
                "keep_expensive": keep_expensive,
                **self.alignment.to_json(),
            },
        )

    @cached_property
    def _cheaper(self) -> dict[str, int]:
        """The largest rank that makes each layer cheaper, by as much as it has to be."""
        dear = {
            layer.name: self.scheme.break_even_rank(layer.op, layer.layer.calls) + 1
            for layer in self.layers
            if layer.values is not None
        }
        return {
            name: min(rank - 1, int(self.alignment.most_kept * rank)) for name, rank in dear.items()
        }

    def _aligned(
        self, ranks: Mapping[str, int], largest: Mapping[str, int]
    ) -> dict[str, int | None]:
        """Round ranks up; layers that share a weight keep one rank."""
        limits: dict[str, int] = {}
        for layer in self.layers:
            if layer.name in ranks:
                weight = layer.layer.shares or layer.name
                limits[weight] = min(limits.get(weight, largest[layer.name]), largest[layer.name])
        return {
            layer.name: self.alignment.of(
                ranks[layer.name], limits[layer.layer.shares or layer.name]
            )
            for layer in self.layers
            if layer.name in ranks
        }


def guarded(
    layer: LayerSpectrum,
    scheme: Scheme,
    rank: int,
    keep_expensive: bool,
    most_kept: float = 1.0,
) -> LayerPlan:
    """Rewrite a layer at ``rank``, unless that does not make it cheaper.

    Args:
        layer: the layer; its spectrum is known.
        scheme: how to rewrite it.
        rank: the rank that was chosen.
        keep_expensive: turn the guard off.
        most_kept: the largest share of its MACs that it may keep.
    """
    full = scheme.full_rank(layer.op)
    if rank > full:
        return layer.kept(f"rank {rank} is above its full rank {full}")
    candidate = layer.rewritten(scheme, rank)
    share = candidate.factor_macs / candidate.macs
    if keep_expensive or (share < 1 and share <= most_kept):
        return candidate
    if share < 1:
        return layer.kept(
            f"rank {rank} of {full} saves {1 - share:.1%} of its MACs, less than a second operator "
            "takes in time"
        )
    cheaper = scheme.break_even_rank(layer.op, layer.layer.calls)
    advice = f"cheaper up to rank {cheaper}" if cheaper else "no rank is cheaper"
    return layer.kept(f"rank {rank} of {full} costs {share:.2f}x the MACs, {advice}")


def analyse(
    network: Network,
    scheme: str,
    selection: Selection | None = None,
    *,
    architecture: str | None = None,
    factorizer: Factorizer | None = None,
    alignment: Alignment = UNALIGNED,
) -> Analysis:
    """Compute the spectra of the layers that ``scheme`` may rewrite.

    Args:
        network: the network.
        scheme: name of the scheme.
        selection: the layers that may be rewritten.
        architecture: what the network is called, for the reader of the plan.
        factorizer: of the same network, which then knows the SVDs.
        alignment: what the ranks of plans are rounded up to multiples of.

    Raises:
        TrpexportError: the scheme is unknown.
        PlanError: the network can't run, holds NaN or infinity, or a pattern matches no layer.
    """
    chosen, selection = SCHEMES[scheme], selection or Selection()
    reasons = selection.reasons_to_stay(network, chosen)
    layers = []
    for layer in network.layers:
        reason = reasons[layer.name]
        values = None
        if reason is None:
            # Bases are only worth their memory to one who goes on to truncate.
            values = (factorizer or Factorizer(network)).spectrum(layer, chosen)
        layers.append(LayerSpectrum(layer, values, reason))
    bare = keep_all(network, architecture=architecture)
    return Analysis(chosen, tuple(layers), replace(bare, options=selection.options), alignment)


def keep_all(network: Network, *, architecture: str | None = None) -> Plan:
    """Return the plan that leaves every layer of ``network`` as it is.

    Raises:
        PlanError: the network can't run an input of its shape.
    """
    return Plan(
        scheme="none",
        criterion="none",
        inputs=network.inputs,
        layers=tuple(
            LayerSpectrum(layer, None, None).kept("exported as it is") for layer in network.layers
        ),
        other_macs=network.other_macs,
        architecture=architecture,
        uncounted=dict(network.cost.uncounted),
    )


def _together(layers: Sequence[LayerSpectrum], rows: Sequence[LayerPlan]) -> tuple[LayerPlan, ...]:
    """Let layers that share a weight stay where one of them does."""
    reasons = together([layer.layer for layer in layers], {row.name: row.reason for row in rows})
    return tuple(
        layer.kept(reason) if row.is_rewritten and reason is not None else row
        for layer, row, reason in zip(layers, rows, reasons.values(), strict=True)
    )
