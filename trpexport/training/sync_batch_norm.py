"""Batch norm whose statistics are those of the global batch, on the CPU as well.

PyTorch's own refuses CPU tensors, so that nobody could try a run at home, or test one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """Return ``model`` with batch norms that take their statistics over all workers.

    Parameters, buffers and their names stay the same.

    Args:
        model: its batch norms are replaced within it.
        device: where it runs; CUDA has PyTorch's own.
    """
    if device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return converted
    return _converted(model)


def _converted(module: nn.Module) -> nn.Module:
    if isinstance(module, _BatchNorm):
        return SyncBatchNorm.of(module)
    for name, child in module.named_children():
        setattr(module, name, _converted(child))
    return module


class SyncBatchNorm(_BatchNorm):
    """Batch norm over the images of all workers; any number of dimensions, channels second."""

    @classmethod
    def of(cls, norm: _BatchNorm) -> SyncBatchNorm:
        """Return the same as ``norm``, with its parameters and buffers, not copies of them."""
        new = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        new._parameters, new._buffers = norm._parameters, norm._buffers
        return new.train(norm.training)

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002  the base class calls it so
        """Take any."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  the base class calls it so
        """Normalise (n, channels, ...) by the mean and variance of all workers' images."""
        if not self.training and self.running_mean is not None:
            normalised: Tensor = super().forward(input)
            return normalised
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        dims = [0, *range(2, x.dim())]
        count = x.new_tensor([x.numel() // x.shape[1]])
        *_, total = sums = _sum(torch.cat([x.sum(dims), count]))
        shape = (1, -1, *(1,) * (x.dim() - 2))
        mean = sums[:-1] / total
        centred = x - mean.reshape(shape)
        # Of the deviations, not of the squares: those would cancel.
        variance = _sum(centred.square().sum(dims)) / total
        if self.training:
            self._track(mean.detach(), variance.detach() * total.detach() / (total.detach() - 1))
        scale = (variance + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        result = centred * scale.reshape(shape)
        if self.bias is not None:
            result = result + self.bias.reshape(shape)
        output: Tensor = result.to(input.dtype)
        return output

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = self.momentum
        if share is None:  # the mean over all batches so far
            share = 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all workers; each worker's loss depends on each worker's part."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum(values: Tensor) -> Tensor:
    result: Tensor = _Sum.apply(values)  # type: ignore[no-untyped-call]
    return result
