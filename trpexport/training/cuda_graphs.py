"""Passes through a network recorded as CUDA graphs: one launch instead of hundreds."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from trpexport.errors import TrainingError
from trpexport.training.distributed import Workers


class Recorded(nn.Module):
    """A network whose forward and backward pass in training are one launch each.

    Batches must have the shape that it was recorded with. In evaluation nothing is replayed.

    Args:
        net: the network, on a CUDA device.
        shape: of a batch of this worker.
        bf16: run the forward pass in bfloat16 where that is safe.
        workers: the processes that train together.

    Raises:
        TrainingError: the device is no CUDA device, or several processes train together.
    """

    def __init__(
        self, net: nn.Module, shape: tuple[int, ...], *, bf16: bool, workers: Workers
    ) -> None:
        super().__init__()
        device = workers.device
        if device.type != "cuda" or workers.count > 1:
            raise TrainingError(
                "CUDA graphs need one process on a CUDA device: leave them out here",
                parameters=("cuda_graphs",),
            )
        self.net, self.bf16 = net, bf16
        # Recording runs the network, which moves the statistics of its batch norms.
        before = [(buffer, buffer.clone()) for buffer in net.buffers()]
        sample = torch.randn(shape, device=device)
        if sample.ndim == 4:
            sample = sample.to(memory_format=torch.channels_last)
        self.train()
        torch.cuda.make_graphed_callables(self, (sample,))
        with torch.no_grad():
            for buffer, value in before:
                buffer.copy_(value)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        # A cast of a weight that is kept from one pass for the next would be an old one.
        with torch.autocast("cuda", torch.bfloat16, enabled=self.bf16, cache_enabled=False):
            logits: Tensor = self.net(images)
        return logits
