"""TRP in two processes: the layers are shared out, and the bits are those of one process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

from trpexport.training.sharing import Team

SCRIPT = """
import os
import sys
import torch
from torch import nn
from torch import distributed as dist
from trpexport.training import projection
from trpexport.training.trp import TrainedRankPruning

folder = sys.argv[1]
rank, count = 0, 1
if len(sys.argv) > 2:
    rank, count = int(sys.argv[2]), 2
    meeting = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
torch.set_num_threads(1)
decomposed = []
whole = projection.Stack.decompose
def noting(stack, *args):
    decomposed.extend(layer.name for layer in stack.layers)
    return whole(stack, *args)
projection.Stack.decompose = noting

result = {}
for steered in (False, True):
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Conv2d(6 + i % 3, 6 + (i + 1) % 3, 3, padding=1) for i in range(8)])
    network = nn.parallel.DistributedDataParallel(model) if count > 1 else model
    steering = {"target_macs": 0.6, "total_steps": 6} if steered else {}
    trp = TrainedRankPruning(network, input_shape=(1, 6, 8, 8), energy=0.8, period=2, **steering)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    for step in range(5):
        optimizer.zero_grad()
        network(torch.ones(2, 6, 8, 8)).square().mean().backward()
        trp.before_step()
        optimizer.step()
        trp.after_step()
    trp.project()
    facts = {"ratio": trp.status.macs_ratio, "state": trp.state_dict()}
    result[steered] = {**model.state_dict(), **facts}
result["decomposed"] = sorted(set(decomposed))
torch.save(result, f"{folder}/{count}-{rank}.pt")
if count > 1:
    dist.destroy_process_group()
    os._exit(0)  # past gloo's threads, which may abort a process that ends: joined() lets them go
"""


def start(folder: Path, *rank: int) -> subprocess.Popen[bytes]:
    root = Path(__file__).resolve().parent.parent.parent
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    command = [sys.executable, "-c", SCRIPT, str(folder), *map(str, rank)]
    return subprocess.Popen(command, env=environment)


def test_two_processes_find_the_bits_of_one(tmp_path: Path) -> None:
    processes = [start(tmp_path), start(tmp_path, 0), start(tmp_path, 1)]
    assert [process.wait(timeout=200) for process in processes] == [0, 0, 0]
    alone, first, second = (
        torch.load(tmp_path / name, weights_only=True) for name in ("1-0.pt", "2-0.pt", "2-1.pt")
    )
    names = set(alone["decomposed"])
    assert set(first["decomposed"]) | set(second["decomposed"]) == names
    assert not set(first["decomposed"]) & set(second["decomposed"])
    assert first["decomposed"]
    assert second["decomposed"]
    for steered in (False, True):
        for other in (first, second):
            assert other[steered]["ratio"] == alone[steered]["ratio"]
            assert other[steered].keys() == alone[steered].keys()
            for name, value in alone[steered]["state"].items():
                assert torch.equal(
                    torch.as_tensor(value), torch.as_tensor(other[steered]["state"][name])
                ), name
            for name, value in alone[steered].items():
                if isinstance(value, torch.Tensor):
                    assert torch.equal(value, other[steered][name]), name


def test_the_dearest_work_is_given_out_first() -> None:
    assert Team(0, 2).owners([1, 5, 3, 3]) == [0, 0, 1, 1]
    assert Team().owners([1, 2]) == [0, 0]
