"""From a network to a plan: spectra once, then ranks by any criterion, then the guard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trpexport.cost import macs
from trpexport.errors import PlanError
from trpexport.lowrank.criteria import DEFAULT, Criterion, parse_criterion
from trpexport.lowrank.schemes import SCHEMES, MatrixScheme, Scheme
from trpexport.lowrank.spectrum import relative_error
from trpexport.networks.torch.trace import Trace, TracedConv, trace
from trpexport.plan import ConvSpec, LayerPlan, Plan


@dataclass(frozen=True)
class LayerSpectrum:
    """A convolution and its singular values under one scheme.

    Attributes:
        name: the module's dotted name.
        conv: its attributes.
        input_sizes: spatial input size of each call, in pixels.
        values: singular values (batch, full rank), largest first; None for a layer that stays.
        reason: why the layer stays whatever the criterion says, or None.
    """

    name: str
    conv: ConvSpec
    input_sizes: tuple[tuple[int, ...], ...]
    values: NDArray[np.float64] | None
    reason: str | None

    def macs(self, convs: Sequence[ConvSpec]) -> int:
        """Return the MACs for one image of ``convs`` in the place of this layer."""
        return sum(macs(convs, size) for size in self.input_sizes)

    def kept(self, reason: str) -> LayerPlan:
        """Return the plan that leaves this layer as it is."""
        dense = self.macs((self.conv,))
        return LayerPlan(
            name=self.name,
            conv=self.conv,
            input_sizes=self.input_sizes,
            scheme=None,
            rank=None,
            full_rank=None if self.values is None else self.values.shape[1],
            factors=(),
            reason=reason,
            weight_error=None,
            macs=dense,
            factor_macs=dense,
            spectrum=self.envelope,
        )

    def rewritten(self, scheme: Scheme, rank: int) -> LayerPlan:
        """Return the plan that rewrites this layer at ``rank``."""
        assert self.values is not None
        factors = scheme.factor_specs(self.conv, rank)
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
        input_shape: shape of the network's input, batch first.
        layers: its convolutions in the order in which they run.
        other_macs: MACs for one image of what is not a convolution.
        options: the switches that chose the layers.
        architecture: what the network is called, for the reader.
    """

    scheme: Scheme
    input_shape: tuple[int, ...]
    layers: tuple[LayerSpectrum, ...]
    other_macs: int
    options: Mapping[str, Any]
    architecture: str | None = None

    def rank(self, layer: LayerSpectrum, criterion: Criterion) -> int:
        """Return the rank of a layer: the largest that ``criterion`` asks for over its batch.

        Raises:
            PlanError: the criterion can't judge what the scheme cuts.
        """
        assert layer.values is not None
        shape = None
        if isinstance(self.scheme, MatrixScheme):
            _, *shape = self.scheme.matrix_shape(layer.conv)
        return max(criterion.rank(values, shape) for values in layer.values)

    def plan(self, criterion: Criterion, *, keep_expensive: bool = False) -> Plan:
        """Choose every layer's rank by ``criterion``.

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
        return self._assemble(
            str(criterion),
            tuple(
                layer.kept(layer.reason or "")
                if layer.values is None
                else guarded(layer, self.scheme, ranks[layer.name], keep_expensive)
                for layer in self.layers
            ),
            keep_expensive,
        )

    def _assemble(
        self, criterion: str, layers: tuple[LayerPlan, ...], keep_expensive: bool
    ) -> Plan:
        return Plan(
            scheme=self.scheme.name,
            criterion=criterion,
            input_shape=self.input_shape,
            layers=layers,
            other_macs=self.other_macs,
            architecture=self.architecture,
            options={**self.options, "keep_expensive": keep_expensive},
        )


def guarded(layer: LayerSpectrum, scheme: Scheme, rank: int, keep_expensive: bool) -> LayerPlan:
    """Rewrite a layer at ``rank``, unless that does not make it cheaper.

    Args:
        layer: the layer; its spectrum is known.
        scheme: how to rewrite it.
        rank: the rank that was chosen.
        keep_expensive: turn the guard off.
    """
    full = scheme.full_rank(layer.conv)
    if rank > full:
        return layer.kept(f"rank {rank} is above its full rank {full}")
    candidate = layer.rewritten(scheme, rank)
    if candidate.factor_macs < candidate.macs or keep_expensive:
        return candidate
    cheaper = scheme.break_even_rank(layer.conv, layer.input_sizes[0])
    advice = f"cheaper up to rank {cheaper}" if cheaper else "no rank is cheaper"
    ratio = candidate.factor_macs / candidate.macs
    return layer.kept(f"rank {rank} of {full} costs {ratio:.2f}x the MACs, {advice}")


def analyse(
    model: nn.Module,
    *,
    input_shape: Sequence[int],
    scheme: str = "spatial",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    stride_1_only: bool = False,
    architecture: str | None = None,
) -> Analysis:
    """Compute the spectra of the convolutions that ``scheme`` may rewrite.

    The stem (the convolution that runs first) and a convolutional classifier (one that runs last,
    with no linear layer after it) stay as they are, as in the paper, unless ``include`` names them.

    Args:
        model: the network; it is not changed.
        input_shape: shape of its input, batch first.
        scheme: name of the scheme.
        include: glob patterns; only layers that match one are rewritten. Empty for all.
        exclude: glob patterns of layers that stay, whatever ``include`` says.
        stride_1_only: leave strided convolutions as they are, as the original TRP code does.
        architecture: what the network is called, for the reader of the plan.

    Raises:
        TrpexportError: the scheme is unknown.
        PlanError: the network can't run such an input, holds NaN or infinity, or a pattern matches
            no convolution.
    """
    chosen = SCHEMES[scheme]
    traced = trace(model, input_shape)
    reasons = reasons_to_stay(traced, chosen, include, exclude, stride_1_only)
    layers = []
    for layer in traced.layers:
        reason = reasons[layer.name]
        values = None
        if reason is None:
            values = chosen.spectrum(layer.module.weight, layer.conv).cpu().numpy()
        layers.append(LayerSpectrum(layer.name, layer.conv, layer.input_sizes, values, reason))
    return Analysis(
        scheme=chosen,
        input_shape=tuple(input_shape),
        layers=tuple(layers),
        other_macs=traced.other_macs,
        options={
            "include": list(include),
            "exclude": list(exclude),
            "stride_1_only": stride_1_only,
        },
        architecture=architecture,
    )


def make_plan(
    model: nn.Module,
    *,
    input_shape: Sequence[int],
    scheme: str = "spatial",
    criterion: str | Criterion = DEFAULT,
    keep_expensive: bool = False,
    **options: Any,
) -> Plan:
    """Decide what happens to each convolution of ``model``.

    Args:
        model: the network; it is not changed.
        input_shape: shape of its input, batch first.
        scheme: name of the scheme.
        criterion: ``NAME:VALUE``, or a criterion.
        keep_expensive: rewrite a layer even where that does not make it cheaper.
        options: ``include``, ``exclude``, ``stride_1_only``, ``architecture`` of :func:`analyse`.

    Raises:
        TrpexportError: the scheme or the criterion is unknown, or a value is out of range.
        PlanError: the network can't run such an input, or a pattern matches nothing.
    """
    if isinstance(criterion, str):
        criterion = parse_criterion(criterion)
    analysis = analyse(model, input_shape=input_shape, scheme=scheme, **options)
    return analysis.plan(criterion, keep_expensive=keep_expensive)


def keep_all(
    model: nn.Module, *, input_shape: Sequence[int], architecture: str | None = None
) -> Plan:
    """Return the plan that leaves every convolution of ``model`` as it is.

    Raises:
        PlanError: the network can't run such an input.
    """
    traced = trace(model, input_shape)
    return Plan(
        scheme="none",
        criterion="none",
        input_shape=tuple(input_shape),
        layers=tuple(
            LayerSpectrum(layer.name, layer.conv, layer.input_sizes, None, None).kept(
                "exported as it is"
            )
            for layer in traced.layers
        ),
        other_macs=traced.other_macs,
        architecture=architecture,
    )


def reasons_to_stay(
    traced: Trace,
    scheme: Scheme,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    stride_1_only: bool = False,
) -> dict[str, str | None]:
    """Say of each convolution of a network why it stays as it is; None where it may be rewritten.

    Args:
        traced: the network's convolutions.
        scheme: the scheme that would rewrite them.
        include: as in :func:`analyse`.
        exclude: as in :func:`analyse`.
        stride_1_only: as in :func:`analyse`.

    Raises:
        PlanError: a pattern matches no convolution.
    """
    _check_patterns([layer.name for layer in traced.layers], include=include, exclude=exclude)
    left_alone = {traced.stem: "the stem", traced.head: "the classifier"}
    return {
        layer.name: layer.untouchable
        or (None if layer.input_sizes else "the network never runs it")
        or _not_selected(layer, left_alone.get(layer.name), include, exclude, stride_1_only)
        or scheme.unsupported_reason(layer.conv)
        for layer in traced.layers
    }


def _check_patterns(names: Sequence[str], **patterns: Sequence[str]) -> None:
    for option, globs in patterns.items():
        for pattern in globs:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise PlanError(
                    f"--{option} {pattern!r} matches no convolution; the names look like "
                    f"{', '.join(names[:3])}"
                )


def _not_selected(
    layer: TracedConv,
    special: str | None,
    include: Sequence[str],
    exclude: Sequence[str],
    stride_1_only: bool,
) -> str | None:
    """Say why a layer is not among those to rewrite, or None."""
    included = any(fnmatchcase(layer.name, pattern) for pattern in include)
    if any(fnmatchcase(layer.name, pattern) for pattern in exclude):
        return "excluded by --exclude"
    if include and not included:
        return "not in --include"
    if special and not included:
        return f"{special} is left alone unless --include names it"
    if stride_1_only and any(s != 1 for s in layer.conv.stride):
        return "strided, and --stride-1-only was given"
    return None
