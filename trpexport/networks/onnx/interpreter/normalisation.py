"""Normalisations: by stored statistics, or by those of the input."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from trpexport.networks.onnx.interpreter.registry import MICROSOFT, Use, operator


@operator("BatchNormalization")
def _batch_normalization(
    use: Use, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    if use.get("training_mode", 0) and use.outputs > 1:
        raise ValueError("a batch normalization is in training mode")
    epsilon = use.get("epsilon", 1e-5)
    if use.get("training_mode", 0):
        return functional.batch_norm(x, None, None, scale, bias, training=True, eps=epsilon)
    return functional.batch_norm(x, mean, variance, scale, bias, training=False, eps=epsilon)


@operator("InstanceNormalization")
def _instance_normalization(use: Use, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    axes = tuple(range(2, x.ndim))
    shape = (-1, *[1] * (x.ndim - 2))
    normal = _standardized(x, axes, use.get("epsilon", 1e-5))[0]
    return normal * scale.reshape(shape) + bias.reshape(shape)


@operator("GroupNormalization")
def _group_normalization(use: Use, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups, channels = use.get("num_groups"), x.shape[1]
    if use.opset < 21 and len(scale) == groups:  # one a group, one a channel since
        scale, bias = (part.repeat_interleave(channels // groups) for part in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, use.get("epsilon", 1e-5))


@operator("LayerNormalization")
def _layer_normalization(
    use: Use, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> Tensor | tuple[Tensor, ...]:
    axis = use.get("axis", -1) % x.ndim
    epsilon = use.get("epsilon", 1e-5)
    if use.outputs == 1 and scale.shape == x.shape[axis:]:
        bias = None if bias is None else bias.expand(scale.shape)
        return functional.layer_norm(x, x.shape[axis:], scale, bias, epsilon)
    normal, mean, inverse = _standardized(x, tuple(range(axis, x.ndim)), epsilon)
    found = normal * scale
    return (found if bias is None else found + bias, mean, inverse)[: use.outputs]


@operator("RMSNormalization")
def _rms_normalization(use: Use, x: Tensor, scale: Tensor) -> Tensor:
    axes = tuple(range(use.get("axis", -1) % x.ndim, x.ndim))
    power = x.square().mean(axes, keepdim=True)
    return x * torch.rsqrt(power + use.get("epsilon", 1e-5)) * scale


@operator("SimplifiedLayerNormalization")
def _simplified_layer_normalization(use: Use, x: Tensor, scale: Tensor) -> Tensor:
    return _rms_normalization(use, x, scale)


@operator("SkipLayerNormalization", domain=MICROSOFT)
def _skip_layer_normalization(
    use: Use,
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    added: Tensor | None = None,
) -> Tensor | tuple[Tensor | None, ...]:
    total = x + skip if added is None else x + skip + added
    found = functional.layer_norm(total, scale.shape, scale, bias, use.get("epsilon", 1e-12))
    return found if use.outputs == 1 else (found, None, None, total)[: use.outputs]


@operator("LRN")
def _lrn(use: Use, x: Tensor) -> Tensor:
    size: int = use.get("size")
    squares = functional.pad(x.square().movedim(1, -1), ((size - 1) // 2, size // 2))
    sums = squares.unfold(-1, size, 1).sum(-1).movedim(-1, 1)
    alpha, beta, bias = use.get("alpha", 1e-4), use.get("beta", 0.75), use.get("bias", 1.0)
    return x / (bias + alpha / size * sums) ** beta


@operator("LpNormalization")
def _lp_normalization(use: Use, x: Tensor) -> Tensor:
    axis = use.get("axis", -1)
    norm: Tensor = torch.linalg.vector_norm(x, use.get("p", 2), axis, keepdim=True)
    return x / torch.where(norm == 0, torch.ones_like(norm), norm)


@operator("MeanVarianceNormalization")
def _mean_variance_normalization(use: Use, x: Tensor) -> Tensor:
    axes = tuple(use.get("axes", (0, 2, 3)))
    mean = x.mean(axes, keepdim=True)
    deviation = (x - mean).square().mean(axes, keepdim=True).sqrt()
    return (x - mean) / (deviation + 1e-9)


def _standardized(
    x: Tensor, axes: tuple[int, ...], epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return values of mean 0 and variance 1 along axes, their mean, one over their deviation."""
    mean = x.mean(axes, keepdim=True)
    variance = (x - mean).square().mean(axes, keepdim=True)
    inverse = torch.rsqrt(variance + epsilon)
    return (x - mean) * inverse, mean, inverse
