"""From images to the moments of a layer: what it really gets, and what it should have given."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from trpexport.available import give_back
from trpexport.choose.sampling import Sampling, share_of
from trpexport.errors import DataError
from trpexport.lowrank.fit.moments import (
    BLOCK_ELEMENTS,
    LayerMoments,
    Moments,
    MomentSums,
    scale_metric,
)
from trpexport.lowrank.fit.narrowing import MAX_UNKNOWNS, Narrowing, is_wide
from trpexport.lowrank.fit.patches import Patches, grouped, kernel_order, linear_map
from trpexport.lowrank.fit.rows import LayerRows, Rows
from trpexport.networks.base import Candidate, Network, Observation, Watch
from trpexport.ops import Layer

# Channels that a batch norm scales by less, relative to the largest, pass no shortcut on.
_DEAD_SCALE = 1e-3


class Gatherer:
    """Gathers the moments of a network's layers, in the order in which they run.

    Args:
        network: the original network.
        watch: what it does to the images.
    """

    def __init__(self, network: Network, watch: Watch) -> None:
        self.watch = watch
        self._network = network

    def gather(self, layer: Layer, candidate: Candidate | None = None) -> LayerMoments | LayerRows:
        """Return the moments of one layer, or what it sees where that is less.

        Nothing is held out where there is no candidate: the layer itself is the best fit.

        The inputs are those that the layer gets in ``candidate``, the targets what it gives in the
        original network ("asymmetric reconstruction", Zhang et al., arXiv 1505.06798, section
        3.3), so that it makes up for the errors of the layers before it. Where a shortcut is added
        behind it, also for those of the shortcut: the target is then the sum, less the shortcut.

        Args:
            layer: the layer.
            candidate: the network to be calibrated, up to here; the original one where it is None.

        Raises:
            DataError: the network makes NaN or infinity of these images.
        """
        give_back()  # what the factors of the layer before left
        # First of all: it takes memory of its own, before any batch is kept.
        metric = self.watch.metric(layer.name)
        self.watch.advance(layer.name)
        if candidate is not None:
            candidate.advance(layer.name)
        give_back()  # before the sums take as much
        if self._sees_few_rows(layer):
            return self._rows(layer, candidate, metric)
        narrowing = self._narrowing(layer, candidate, metric) if is_wide(layer.op) else None
        # What a layer makes of its inputs itself need not be summed up: it follows from them,
        # unless the inputs are cut.
        implied = candidate is None and narrowing is None
        (fit, *others), scale = self._sums(layer, candidate, narrowing, implied)
        if implied:
            kernels, bias = linear_map(*self._network.weights(layer.name), layer.op)
            fit = Moments.of_outputs(fit, kernels, bias)
        everything = sum(others, start=fit)
        del others  # they follow from the two, and take as much
        if not everything.is_finite:
            raise _not_finite(layer)
        if metric is None and scale is not None:
            metric = scale_metric(scale, layer.op.groups)
        return LayerMoments(fit, everything, metric, narrowing)

    def _seen(
        self, layer: Layer, candidate: Candidate | None, index: int
    ) -> tuple[Observation, Observation]:
        """Return what a layer does to a batch in the original network, and in the candidate."""
        wanted = self.watch.observe(layer.name, index)
        if candidate is None:
            return wanted, wanted
        if wanted.shortcut is None:  # what it gives there is of no account
            return wanted, Observation(list(candidate.inputs(layer.name, index)))
        return wanted, candidate.observe(layer.name, index)

    def _sees_few_rows(self, layer: Layer) -> bool:
        """Say whether a layer is a matrix product of fewer rows than it has input channels."""
        rows = len(self.watch.samples) * sum(call.places for call in layer.calls)
        return layer.op.ndim == 0 and rows < min(layer.op.in_channels, MAX_UNKNOWNS)

    def _rows(self, layer: Layer, candidate: Candidate | None, metric: Tensor | None) -> LayerRows:
        """Return all rows that a matrix product sees."""
        found: dict[bool, list[Rows]] = {False: [], True: []}
        scale = None
        for index in range(self.watch.samples.batches):
            wanted, actual = self._seen(layer, candidate, index)
            scale = wanted.scale
            aims = targets(wanted, actual)
            sampling = Sampling.of(self.watch.samples, index, len(layer.calls))
            for place, (p, y) in enumerate(zip(actual.inputs, aims, strict=True)):
                out = sampling.is_held_out(len(p), place, len(aims)).to(p.device)
                for is_held_out, several in found.items():
                    some = out == is_held_out
                    several.append(Rows(p[some], y[some].to(torch.float64)))
        fit, held_out = (Rows.joined(some) for some in found.values())
        if not (fit.is_finite and held_out.is_finite):
            raise _not_finite(layer)
        if metric is None and scale is not None:
            metric = scale_metric(scale, 1)
        return LayerRows(fit, held_out, None if metric is None else metric[0])

    def _narrowing(
        self, layer: Layer, candidate: Candidate | None, metric: Tensor | None
    ) -> Narrowing:
        """Return how to cut a wide layer's input channels, by the images to fit to."""
        op, samples = layer.op, self.watch.samples
        kernels = grouped(self._network.weights(layer.name)[0], op)
        channels = op.in_channels // op.groups
        if channels > MAX_UNKNOWNS:
            return Narrowing.onto_rows(kernels)
        squares = kernels.new_zeros(op.groups, channels, channels)
        for index in range(samples.batches):
            sampling = Sampling.of(samples, index, len(layer.calls))
            if candidate is None:
                inputs: Sequence[Tensor] = self.watch.observe(layer.name, index).inputs
            else:
                inputs = candidate.inputs(layer.name, index)
            for place, seen in enumerate(inputs):
                size = prod(seen.shape[2:])
                count = size * len(seen) * len(inputs) * len(samples) // sampling.images
                share = share_of(count, channels)
                some, _ = sampling.pixels(len(seen), size, place, len(inputs), share)
                rows = some.outputs(seen, op.groups).to(squares)
                squares.baddbmm_(rows.mT, rows)
        if not torch.isfinite(squares).all():
            raise _not_finite(layer)
        return Narrowing.of(kernels, squares, metric, op)

    def _sums(
        self,
        layer: Layer,
        candidate: Candidate | None,
        narrowing: Narrowing | None,
        implied: bool,
    ) -> tuple[list[Moments], Tensor | None]:
        """Return the moments of images to fit to, of those held out, and the scale behind.

        Args:
            layer: the layer.
            candidate: the network to be calibrated, if there is one.
            narrowing: how the input channels are cut.
            implied: leave the targets out, and hold nothing out.
        """
        op, samples = layer.op, self.watch.samples
        outputs = 0 if implied else op.out_channels // op.groups
        if narrowing is not None:
            op = narrowing.op(op)
        inputs = op.in_channels // op.groups * prod(op.kernel)
        device = self._network.weights(layer.name)[0].device
        several = [MomentSums(op.groups, inputs, outputs, device) for _ in range(2 - implied)]
        scale = None
        for index in range(samples.batches):
            wanted, actual = self._seen(layer, candidate, index)
            aims = [y[:, :0] for y in wanted.outputs] if implied else targets(wanted, actual)
            scale = wanted.scale
            sampling = Sampling.of(samples, index, len(layer.calls))
            pairs = list(zip(actual.inputs, aims, strict=True))
            for place, (seen, target) in enumerate(pairs):
                size = prod(target.shape[2:])
                count = size * len(seen) * len(pairs) * len(samples) // sampling.images
                share = share_of(count, inputs, implied=implied)
                some = sampling.pixels(len(seen), size, place, len(pairs), share)
                if narrowing is not None:
                    seen = narrowing.inputs(seen)  # noqa: PLW2901
                patches = Patches(seen, op)
                for sums, pixels in zip((several[0], several[-1]), some, strict=True):
                    for few in pixels.split(max(1, BLOCK_ELEMENTS // (inputs * op.groups))):
                        sums.add(patches.at(few), few.outputs(target, op.groups))
        give_back()  # what running the network left: the sums are copied
        return [sums.moments().ordered(kernel_order(op)) for sums in several], scale


def _not_finite(layer: Layer) -> DataError:
    return DataError(
        f"{layer.name} gets or gives NaN or infinity on calibration images: check how they are "
        "normalised"
    )


def targets(wanted: Observation, actual: Observation) -> list[Tensor]:
    """Return what the layer should give for each of its calls, the shortcut made up for."""
    if wanted.shortcut is None or actual.shortcut is None:
        return wanted.outputs
    missing = wanted.shortcut - actual.shortcut
    if wanted.scale is not None:
        scale = wanted.scale.reshape(-1, *[1] * (missing.ndim - 2))
        alive = scale.abs() > _DEAD_SCALE * scale.abs().max()
        missing = torch.where(alive, missing / torch.where(alive, scale, 1.0), 0.0)
    return [wanted.outputs[0] + missing]
