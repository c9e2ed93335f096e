"""How images lie in memory: the channels of a pixel together, as convolutions on a CPU like it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.running import RUN_ERRORS, evaluating, tensor_leaves

_IMAGE_RANK = 4
# How far outputs may be apart, relative to the largest number: sums are added up in another order.
_ROUNDING = 1e-3


def has_images(batch: Arguments) -> bool:
    """Whether an input is of images, (images, channels, height, width)."""
    return any(x.ndim == _IMAGE_RANK for x in batch.tensors.values())


def channels_last(batch: Arguments) -> Arguments:
    """Return inputs with the channels of images last in memory, as copies."""
    return batch.map(
        lambda x: x.clone(memory_format=torch.channels_last) if x.ndim == _IMAGE_RANK else x.clone()
    )


def runs_channels_last(model: nn.Module, x: Arguments, expected: Sequence[Tensor]) -> bool:
    """Say whether a network gives the same where the channels of images are last, on a CPU.

    What it computes is no matter of the layout, but a forward may flatten by ``view``, which takes
    one layout alone, or look at strides.

    Args:
        model: the network.
        x: inputs.
        expected: what it makes of them as they are.
    """
    on_cpu = all(tensor.device.type == "cpu" for tensor in x.tensors.values())
    if not (on_cpu and has_images(x)):
        return False
    try:
        with evaluating(model):
            found = tensor_leaves(channels_last(x).call(model))
    except RUN_ERRORS:
        return False
    return len(found) == len(expected) and all(map(_is_same, found, expected))


def _is_same(found: Tensor, expected: Tensor) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not expected.is_floating_point():  # an index of the largest of equal numbers, say
        return True
    if not expected.numel():
        return True
    # NaN is never the same.
    return bool((found - expected).abs().max() <= _ROUNDING * expected.abs().max())
