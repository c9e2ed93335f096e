"""Work shared out among the processes of a distributed run: who does what, and telling the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import distributed as dist


@dataclass(frozen=True)
class Team:
    """The processes that share the work of a run.

    Attributes:
        rank: which of them this is.
        count: how many they are; 1 where nothing is distributed.
    """

    rank: int = 0
    count: int = 1

    def owners(self, costs: Sequence[float]) -> list[int]:
        """Say who does each piece of work: the dearest first, each to whom has least to do.

        Graham, "Bounds on multiprocessing timing anomalies" (1969). Every process finds the same.
        """
        load = [0.0] * self.count
        owners = [0] * len(costs)
        for piece in sorted(range(len(costs)), key=lambda i: -costs[i]):
            owners[piece] = load.index(min(load))
            load[owners[piece]] += costs[piece]
        return owners

    def combine(self, parts: Tensor) -> Tensor:
        """Fill in what the others found: a place that is not this process's own holds 0."""
        if self.count > 1:
            dist.all_reduce(parts)  # x + 0 is x to the last bit
        return parts

    def tell(self, found: Tensor, owner: int) -> Tensor:
        """Give everyone the owner's tensor, in the place of their own."""
        if self.count > 1:
            dist.broadcast(found, src=owner)
        return found


def team_of_this_run() -> Team:
    """Return the processes of the run that this one belongs to."""
    if dist.is_available() and dist.is_initialized():
        return Team(dist.get_rank(), dist.get_world_size())
    return Team()


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the network inside of DistributedDataParallel, DataParallel and torch.compile."""
    while True:
        if isinstance(model, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), torch.nn.Module):
            model = model._orig_mod  # type: ignore[assignment]
        else:
            return model
