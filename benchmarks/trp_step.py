"""What the TRP step costs: against the original's way, and against plain training.

    python -m benchmarks.trp_step [--networks resnet20 resnet18 resnet50] [--rounds 9]

**Step.** The original code takes an SVD of every layer, one after the other, at every step. Here
both ways get the same weights, in turn, on the spatial scheme with energy 0.9: those of a random
network (its first projection), and those of a network trained with TRP for some periods, 20
optimizer steps after its last projection, as nearly all projections of a run find them. The step
is the cheaper the lower the ranks, so there are several such numbers of periods.

**Overhead.** Blocks of 20 training steps of ResNet-20 at batch 128, with one projection and the
nuclear norm, or plain; in turn.

Speed-ups are medians over rounds with bootstrap intervals. Writes ``results/trp_step.json``.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.environment import RESULTS, environment, run
from benchmarks.networks import random_network
from trpexport.lowrank.schemes.spatial import Spatial
from trpexport.measure.statistics import Interval, ratio_interval
from trpexport.networks.torch.trace import TorchLayer, trace
from trpexport.training.trp import TrainedRankPruning

TARGET = RESULTS / "trp_step.json"
SPATIAL = Spatial()
SHAPE = (1, 3, 32, 32)  # weights do not depend on it, and small images train quickly
ENERGY = 0.9
PERIOD = 20
GOALS = {"step": 10.0, "overhead": 1.03}


def original_step(layers: list[TorchLayer]) -> None:
    """Take the step as the original code does: an SVD of each layer's matrix, both products."""
    for layer in layers:
        matrix = SPATIAL.unfold(layer.module.weight.detach(), layer.op)[0]
        u, s, vt = torch.linalg.svd(matrix, full_matrices=False)
        energy = s.square().cumsum(0)
        rank = int((energy < ENERGY * energy[-1]).sum()) + 1
        u, s, vt = u[:, :rank], s[:rank], vt[:rank]
        low, both = u @ torch.diag(s) @ vt, u @ vt
        layer.module.weight.data.copy_(SPATIAL.fold(low[None], layer.op))
        SPATIAL.fold(both[None], layer.op).clone()


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    batch: int,
    trp: TrainedRankPruning | None,
) -> None:
    """Take steps on random images with random labels."""
    for _ in range(steps):
        x, y = torch.randn(batch, *SHAPE[1:]), torch.randint(0, 10, (batch,))
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        if trp is not None:
            trp.before_step()
        optimizer.step()
        if trp is not None:
            trp.after_step()


def seconds(action: Callable[[], object]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return how long one call takes."""
    start = time.perf_counter()
    action()
    return np.array([time.perf_counter() - start])


def compare_step(model: nn.Module, trp: TrainedRankPruning, rounds: int) -> dict[str, Any]:
    """Time both ways on the weights as they are; they are the same again afterwards."""
    ranks = trp.status.mean_rank_share
    chosen = trp.status.ranks
    layers = [layer for layer in trace(model, SHAPE).layers if layer.name in chosen]
    weights: dict[str, Tensor] = copy.deepcopy(model.state_dict())
    state = trp.state_dict()
    base, ours = [], []
    for _ in range(rounds + 1):
        base.append(seconds(lambda: original_step(layers)))
        model.load_state_dict(weights)
        ours.append(seconds(trp.project))
        model.load_state_dict(weights)
        trp.load_state_dict(state)
    # The first round warms up.
    return {
        "mean_rank_share": ranks,
        "original_ms": 1e3 * float(np.median(base[1:])),
        "ours_ms": 1e3 * float(np.median(ours[1:])),
        "speedup": facts(ratio_interval(base[1:], ours[1:])),
    }


def facts(interval: Interval) -> dict[str, float]:
    """Return an interval as JSON-ready data."""
    return {"low": interval.low, "mid": interval.mid, "high": interval.high}


def measure_step(name: str, rounds: int, periods: Sequence[int]) -> dict[str, Any]:
    """Compare the two ways on a network before and during TRP training."""
    torch.manual_seed(0)
    model = random_network(name, 10).train()
    trp = TrainedRankPruning(model, energy=ENERGY, period=PERIOD, rank_multiple=1)
    optimizer = torch.optim.SGD(model.parameters(), 0.02, momentum=0.9, weight_decay=1e-4)
    first = compare_step(model, trp, rounds)
    later, steps = {}, 0
    for count in periods:
        train(model, optimizer, (count + 1) * PERIOD - 1 - steps, 16, trp)
        steps = (count + 1) * PERIOD - 1
        later[str(count)] = compare_step(model, trp, rounds)
    return {"first_projection": first, "after_periods": later}


def measure_overhead(rounds: int, periods: int) -> dict[str, Any]:
    """Time blocks of one period of training, with TRP and without."""
    blocks: list[Callable[[], object]] = []
    for with_trp in (True, False):
        torch.manual_seed(0)
        model = random_network("resnet20", 10).train()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
        trp = None
        if with_trp:
            trp = TrainedRankPruning(model, energy=ENERGY, period=PERIOD, rank_multiple=1)
        train(model, optimizer, periods * PERIOD, 16, trp)

        def block(
            model: nn.Module = model,
            optimizer: torch.optim.Optimizer = optimizer,
            trp: TrainedRankPruning | None = trp,
        ) -> None:
            train(model, optimizer, PERIOD, 128, trp)

        blocks.append(block)
    times: tuple[list[Any], list[Any]] = ([], [])
    for turn in range(rounds + 1):
        for which in (0, 1) if turn % 2 else (1, 0):
            times[which].append(seconds(blocks[which]))
    return {
        "plain_ms_per_step": 1e3 * float(np.median(times[1][1:])) / PERIOD,
        "trp_over_plain": facts(ratio_interval(times[0][1:], times[1][1:])),
    }


def main() -> None:
    """Measure both, print and write the ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", nargs="+", default=["resnet20", "resnet18", "resnet50"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--periods",
        type=int,
        nargs="+",
        default=[8, 16, 30],
        help="of TRP training before measuring, rising",
    )
    args = parser.parse_args()
    steps = {}
    for name in args.networks:
        steps[name] = measure_step(name, args.rounds, args.periods)
        print(name, json.dumps(steps[name], indent=2), flush=True)
    overhead = measure_overhead(args.rounds, args.periods[0])
    print(json.dumps(overhead, indent=2))
    found = {
        "environment": environment(),
        "threads": torch.get_num_threads(),
        "period": PERIOD,
        "energy": ENERGY,
        "goals": GOALS,
        "step": steps,
        "overhead": overhead,
    }
    TARGET.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
