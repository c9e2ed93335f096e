"""How far the outputs of two networks are apart, and what one layer's error does to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from trpexport.networks.torch.trace import Conv


def flat(outputs: Any) -> Tensor:
    """Return what a network returns for a batch as (images, elements), float64."""
    return torch.cat([leaf.double().flatten(1) for leaf in tensor_leaves(outputs)], dim=1)


def tensor_leaves(outputs: Any) -> list[Tensor]:
    """Return the tensors of what a network returns, however they are nested."""
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]


def relative_distance(expected: Iterable[Tensor], actual: Iterable[Tensor]) -> float:
    """Return the RMS difference of outputs, relative to how much the expected ones vary.

    Args:
        expected: outputs, batch after batch.
        actual: the others, in the same batches.
    """
    difference = power = 0.0
    total: Tensor | None = None
    count = 0
    for wanted, given in zip(expected, actual, strict=True):
        difference += float((given - wanted).square().sum())
        power += float(wanted.square().sum())
        total = wanted.sum(0) if total is None else total + wanted.sum(0)
        count += len(wanted)
    if total is None:
        return 0.0
    variation = power - float(total.square().sum()) / count
    # All images the same: there is no variation to compare with.
    scale = variation if variation > 1e-12 * power else power
    return (difference / scale) ** 0.5 if scale else float(difference > 0)


@contextmanager
def kernel_replaced(module: Conv, kernels: Tensor, bias: Tensor) -> Iterator[None]:
    """Let a convolution compute with another kernel and bias within the block.

    Args:
        module: the convolution.
        kernels: as many elements as its weight has, in the same order.
        bias: (out_channels,) in any shape.
    """
    weight = kernels.reshape(module.weight.shape).to(module.weight)
    flat = bias.reshape(-1, *[1] * len(module.kernel_size)).to(module.weight)

    def replace(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> Tensor:
        output: Tensor = module._conv_forward(inputs[0], weight, None) + flat
        return output

    handle = module.register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()
