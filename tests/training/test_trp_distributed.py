"""TRP in two processes: the layers are shared out, and the bits are those of one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from tests.training.processes import together
from trpexport.training import projection
from trpexport.training.distributed import Workers
from trpexport.training.sharing import Team
from trpexport.training.trp import TrainedRankPruning


def _train(workers: Workers) -> dict[str, Any]:
    """Return what two ways of training end with, and which layers this process decomposed."""
    names: set[str] = set()
    whole = projection.Stack.decompose

    def noting(stack: projection.Stack, *arguments: Any) -> Any:
        names.update(layer.name for layer in stack.layers)
        return whole(stack, *arguments)

    # The process ends soon.
    projection.Stack.decompose = noting  # type: ignore[method-assign, assignment]
    runs = []
    steered: dict[str, Any] = {"target_macs": 0.6, "total_steps": 6}
    for steering in ({}, steered):
        torch.manual_seed(0)
        sizes = [(6 + i % 3, 6 + (i + 1) % 3) for i in range(8)]
        model = nn.Sequential(*(nn.Conv2d(*size, 3, padding=1) for size in sizes))
        network = workers.wrap(model)
        trp = TrainedRankPruning(
            network, input_shape=(1, 6, 8, 8), energy=0.8, period=2, **steering
        )
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        for _ in range(5):
            optimizer.zero_grad()
            network(torch.ones(2, 6, 8, 8)).square().mean().backward()
            trp.before_step()
            optimizer.step()
            trp.after_step()
        trp.project()
        state = {**model.state_dict(), **trp.state_dict(), "macs": trp.status.macs_ratio}
        runs.append({name: torch.as_tensor(value).numpy() for name, value in state.items()})
    return {"decomposed": names, "runs": runs}


def test_two_processes_find_the_bits_of_one() -> None:
    (alone,), (first, second) = together(_train, count=1), together(_train)
    assert first["decomposed"] | second["decomposed"] == alone["decomposed"]
    assert not first["decomposed"] & second["decomposed"]
    assert first["decomposed"]
    assert second["decomposed"]
    for other in (first, second):
        for expected, found in zip(alone["runs"], other["runs"], strict=True):
            assert found.keys() == expected.keys()
            assert all(np.array_equal(found[name], expected[name]) for name in found)


def test_the_dearest_work_is_given_out_first() -> None:
    assert Team(0, 2).owners([1, 5, 3, 3]) == [0, 0, 1, 1]
    assert Team().owners([1, 2]) == [0, 0]
