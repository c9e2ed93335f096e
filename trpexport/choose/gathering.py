"""From images to the moments of a layer: what it really gets, and what it should have given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from math import gcd, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trpexport.errors import DataError
from trpexport.lowrank.fit.moments import LayerMoments, Moments
from trpexport.lowrank.fit.patches import linear_map, patches, pixels
from trpexport.networks.torch.curvature import output_metrics, scale_metric
from trpexport.networks.torch.images import checked_images
from trpexport.networks.torch.observation import Observation
from trpexport.networks.torch.replay import Cuts, Replay
from trpexport.networks.torch.trace import CONVOLUTIONS
from trpexport.plan import ConvSpec

# Patches that are formed at once, in elements: 16 MB in float32, twice that in float64, which
# malloc keeps and hands out again without asking the system for clean pages.
_PATCH_ELEMENTS = 4_000_000
# Output pixels that are used, at least and for each element of a patch, if there are so many: the
# error of a regression grows by one part in so many.
_PIXELS, _PIXELS_PER_INPUT = 65_536, 64
# Channels that a batch norm scales by less, relative to the largest, pass no shortcut on.
_DEAD_SCALE = 1e-3
CACHE_BYTES = 3 << 28


class Gatherer:
    """Gathers the moments of a network's layers, in the order in which they run.

    Args:
        model: the original network.
        images: (images, channels, *size), normalised.
        input_shape: shape of the network's input, batch first.
        cache_bytes: bytes of intermediate results to keep of each network.

    Raises:
        DataError: the images do not fit the network.
    """

    def __init__(
        self,
        model: nn.Module,
        images: NDArray[np.floating[Any]] | Tensor,
        input_shape: Sequence[int],
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.images = checked_images(model, images, input_shape)
        self._cuts = Cuts(model, input_shape)
        self._cache_bytes = cache_bytes
        self._original = Replay(model, self._cuts, cache_bytes, is_final=True)

    def replay(self, model: nn.Module) -> Replay:
        """Return a replay of a network that was made from the original one."""
        return Replay(model, self._cuts, self._cache_bytes)

    def outputs(self) -> Iterable[Tensor]:
        """Return what the original network gives, batch after batch: (images, elements), float64.

        It is kept if it is small, as that of a classifier is.
        """
        if self._cuts.output_elements * len(self.images.values) * 8 > self._cache_bytes:
            return self._original.outputs(self.images)
        return self._outputs

    def gather(self, name: str, conv: ConvSpec, candidate: Replay | None = None) -> LayerMoments:
        """Return the moments of one layer.

        The inputs are those that the layer gets in ``candidate``, the targets what it gives in the
        original network ("asymmetric reconstruction", Zhang et al., arXiv 1505.06798, section
        3.3), so that it makes up for the errors of the layers before it. Where a shortcut is added
        behind it, also for those of the shortcut: the target is then the sum, less the shortcut.

        Args:
            name: the layer.
            conv: its attributes.
            candidate: the network to be calibrated, up to here; the original one where it is None.

        Raises:
            DataError: the network makes NaN or infinity of these images.
        """
        fit, held_out, scale = self._sums(name, conv, candidate)
        if candidate is None:
            # What a layer makes of its inputs itself was not summed up: it follows from them.
            module = self._original.model.get_submodule(name)
            assert isinstance(module, CONVOLUTIONS)
            kernels, bias = linear_map(module, conv)
            fit, held_out = (Moments.of_outputs(some, kernels, bias) for some in (fit, held_out))
        if not (fit.is_finite and held_out.is_finite):
            raise DataError(
                f"{name} gets or gives NaN or infinity on calibration images: check how they are "
                "normalised"
            )
        metric = self._metrics.get(name)
        if metric is None and scale is not None:
            metric = scale_metric(scale, conv)
        return LayerMoments(fit, held_out, metric)

    def _sums(
        self, name: str, conv: ConvSpec, candidate: Replay | None
    ) -> tuple[Moments, Moments, Tensor | None]:
        """Return the moments of images to fit to and of those held out, and the scale behind.

        Without a candidate there are no targets in them.
        """
        replays = [self._original] if candidate is None else [self._original, candidate]
        for replay in replays:
            replay.advance(name, self.images)
        inputs = conv.in_channels // conv.groups * prod(conv.kernel_size)
        outputs = 0 if candidate is None else conv.out_channels // conv.groups
        fit, held_out = (
            Moments.zeros(conv.groups, inputs, outputs, self.images.like.device) for _ in range(2)
        )
        scale = None
        for index in range(self.images.batches):
            x = self.images.batch(index)
            wanted, *given = (replay.observe(name, index, x) for replay in replays)
            actual = given[0] if given else wanted
            aims = targets(wanted, actual) if given else [y[:, :0] for y in wanted.outputs]
            scale = wanted.scale
            is_held_out = self.images.held_out(index)
            pairs = list(zip(actual.inputs, aims, strict=True))
            for seen, target in pairs:
                count = prod(target.shape[2:]) * len(self.images.values) * len(pairs)
                step = _pixel_step(count, target.shape[-1], inputs)
                fit = _add(fit, conv, seen[~is_held_out], target[~is_held_out], step)
                held_out = _add(held_out, conv, seen[is_held_out], target[is_held_out], step)
        return fit, held_out, scale

    @cached_property
    def _outputs(self) -> list[Tensor]:
        return list(self._original.outputs(self.images))

    @cached_property
    def _metrics(self) -> dict[str, Tensor]:
        return output_metrics(self._original.model, self.images)


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


def _add(moments: Moments, conv: ConvSpec, x: Tensor, y: Tensor, step: int) -> Moments:
    """Add every ``step``-th pixel of each image."""
    used = -(-prod(y.shape[2:]) // step)
    few = max(1, _PATCH_ELEMENTS // (used * conv.in_channels * prod(conv.kernel_size)))
    for start in range(0, len(x), few):
        some = slice(start, start + few)
        moments = moments.add(patches(x[some], conv, step), pixels(y[some], conv.groups, step))
    return moments


def _pixel_step(count: int, width: int, inputs: int) -> int:
    """Return which output pixels to use: every so many, all columns of an image alike.

    Args:
        count: of output pixels in all images.
        width: of the output.
        inputs: elements of a patch.
    """
    step = max(1, count // max(_PIXELS, _PIXELS_PER_INPUT * inputs))
    while gcd(step, width) > 1:
        step -= 1
    return step
