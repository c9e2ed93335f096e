"""Several processes that train one network."""

from __future__ import annotations

import copy
import importlib
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy

from tests.training.processes import start, start_workers, together
from trpexport.errors import DeviceError, OutputError, TrainingError
from trpexport.training.distributed import Workers, joined
from trpexport.training.sync_batch_norm import SyncBatchNorm, synchronised

CPU = torch.device("cpu")


def _train_in_float64(workers: Workers) -> dict[str, Any]:
    """Train a ResNet-20 alone and together; return how far the two are apart."""
    torch.manual_seed(0)
    zoo = importlib.import_module("trpexport.models_zoo")
    alone = zoo.parse_architecture("resnet20", num_classes=10, in_channels=1).build().double()
    model = workers.synchronise(copy.deepcopy(alone))
    nets = [(alone, alone), (model, workers.wrap(model))]
    images, labels = torch.randn(24, 1, 8, 8, dtype=torch.float64), torch.randint(0, 10, (24,))
    for own, net in nets:
        mine = slice(None) if own is alone else slice(workers.rank, None, workers.count)
        optimizer = torch.optim.SGD(own.parameters(), 0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            cross_entropy(net(images[mine]), labels[mine]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    found, expected = model.state_dict(), alone.state_dict()
    assert list(found) == list(expected)
    norms = sum(isinstance(module, SyncBatchNorm) for module in model.modules())
    apart = {name: (found[name] - expected[name]).abs().max().item() for name in expected}
    return {"apart": max(apart.values()), "norms": norms}


def _say_and_do(workers: Workers) -> dict[str, Any]:
    rank = workers.rank
    model = nn.BatchNorm1d(2)
    model.running_mean.fill_(rank)  # type: ignore[union-attr]
    workers.share_buffers(model)

    def fail() -> None:
        raise OutputError("no space left")

    try:
        workers.first_does(fail)
    except OutputError as error:
        failure = str(error)
    done: list[int] = []
    workers.first_does(lambda: done.append(rank))
    return {
        "sum": workers.sum(torch.tensor([1.0 + rank])).tolist(),
        "gather": workers.gather(torch.tensor([rank])).tolist(),
        "first": [workers.first_says(rank == 0), workers.first_says(rank == 1)],
        "mean": model.running_mean.tolist(),  # type: ignore[union-attr]
        "failure": failure,
        "done": done,
    }


def _average_gradients(workers: Workers) -> dict[str, Any]:
    net = workers.wrap(nn.Linear(2, 2))
    net(torch.ones(1, 2)).sum().backward()
    return {"gradients": workers.count}


def test_nothing_is_left_of_the_group() -> None:
    together(_average_gradients, how="spawn")  # in processes that have imported nothing yet


def test_batch_norm_over_two_workers_is_that_of_the_whole_batch() -> None:
    for result in together(_train_in_float64):
        assert result["norms"] > 18
        assert result["apart"] < 1e-10


def test_the_first_worker_speaks_for_all() -> None:
    first, second = together(_say_and_do)
    common = {
        "sum": [3.0], "gather": [[0], [1]], "first": [True, False], "mean": [0.0, 0.0],
        "failure": "no space left",
    }  # fmt: skip
    assert first == {**common, "done": [0]}
    assert second == {**common, "done": []}


def test_one_worker_alone_changes_nothing() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    alone = Workers(0, 1, CPU)
    assert alone.wrap(model) is alone.synchronise(model) is model
    assert isinstance(model[1], nn.BatchNorm2d)
    assert alone.gather(torch.tensor([1])).tolist() == [[1]]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_synchronised_norms_evaluate_as_before(momentum: float | None, affine: bool) -> None:
    norm = nn.BatchNorm2d(3, momentum=momentum, affine=affine)
    norm(torch.randn(4, 3, 5, 5))
    norm.eval()
    images = torch.randn(2, 3, 5, 5)
    expected, names = norm(images), list(norm.state_dict())
    replaced = synchronised(nn.Sequential(norm), CPU)[0]  # type: ignore[index]
    assert isinstance(replaced, SyncBatchNorm)
    assert list(replaced.state_dict()) == names
    assert torch.equal(replaced(images), expected)
    assert list(map(id, replaced.parameters())) == list(map(id, norm.parameters()))


def test_a_failure_waits_for_workers_that_still_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torchrun ends them otherwise, and each says that it was ended."""
    server = dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    for name, value in {
        "MASTER_ADDR": "localhost", "MASTER_PORT": server.port, "WORLD_SIZE": 2,
        "TORCHELASTIC_USE_AGENT_STORE": True, "TORCHELASTIC_RESTART_COUNT": 0,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    raised: list[type[BaseException]] = []

    def join() -> None:
        try:
            with joined("tpu"):
                pass
        except (DeviceError, SystemExit) as error:
            raised.append(type(error))

    workers = [threading.Thread(target=join, daemon=True) for _ in range(2)]
    monkeypatch.setenv("RANK", "0")
    workers[0].start()
    workers[0].join(0.5)
    assert workers[0].is_alive()
    monkeypatch.setenv("RANK", "1")
    workers[1].start()
    for worker in workers:
        worker.join(20)
    assert sorted(error.__name__ for error in raised) == ["DeviceError", "SystemExit"]


def test_devices_that_there_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DeviceError, match="unknown device 'tpu': choose"), joined("tpu"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(TrainingError, match="start them with torchrun"), joined("cpu"):
        pass
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(TrainingError, match="not a number"), joined("cpu"):
        pass


def test_two_workers_train_what_one_does(tmp_path: Path, digits: str) -> None:
    common = (
        "train", "--arch", "resnet20", "--data", digits, "--epochs", 2, "--batch", 32,
        "--lr", 0.001, "--trp", "--trp-period", 3, "--nuclear-weight", 3e-4, "--sync-bn",
    )  # fmt: skip
    alone = start((*common, "-o", tmp_path / "one"), tmp_path / "one.err")
    both = start_workers((*common, "-o", tmp_path / "two"), tmp_path / "two.err")
    for process in (alone, *both):
        ended = process.wait()
        assert ended.code == 0, ended.err
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    assert list(one) == list(two)
    weights = [name for name in one if name.endswith("weight")]
    apart = sum(float((one[name] - two[name]).square().sum()) for name in weights)
    size = sum(float(one[name].square().sum()) for name in weights)
    assert (apart / size) ** 0.5 < 1e-3
    # The second one says nothing, and what the first wrote is a plain ResNet-20.
    assert (tmp_path / "two.err.1").read_text() == ""
    from trpexport.checkpoints import load_checkpoint

    assert str(load_checkpoint(tmp_path / "two/last.safetensors").architecture) == "resnet20"


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--data", "digitz"), "unknown data set 'digitz'"),
        (("--batch", "33"), "can't be shared out among 2 workers"),
        (("-o", "/proc/run"), "can't write /proc/run"),
        (("--lr", "1e30"), "became"),
    ],
)
def test_what_is_wrong_is_said_once(
    tmp_path: Path, digits: str, options: tuple[str, str], line: str
) -> None:
    given = {
        "--arch": "resnet20", "--data": digits, "--batch": "32", "--epochs": "1",
        "-o": str(tmp_path / "run"), **dict([options]),
    }  # fmt: skip
    arguments = ("train", *(text for pair in given.items() for text in pair))
    ended = [worker.wait() for worker in start_workers(arguments, tmp_path / "err")]
    assert [end.code for end in ended] == [2, 2]
    (said,) = [text for end in ended for text in end.err.splitlines() if "epoch" not in text[:6]]
    assert line in said
