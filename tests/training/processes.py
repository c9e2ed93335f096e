"""Runs in processes of their own, which can be killed, and in processes that are joined.

They are forked from a server that has imported everything, so that each starts at once.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trpexport.training.distributed import Workers

# The first optimizer of a process imports torch._dynamo.
PRELOADED = ["trpexport.cli", "trpexport.training.train", "torch._dynamo", "sklearn.datasets"]
_SECONDS = 240


@dataclass(frozen=True)
class Ended:
    """What a process left behind; a negative code is a signal."""

    code: int
    err: str

    @property
    def errors(self) -> list[str]:
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


@dataclass(frozen=True)
class Started:
    """A process under way."""

    process: BaseProcess
    err: Path

    def wait(self) -> Ended:
        self.process.join(_SECONDS)
        assert self.process.exitcode is not None, "it hangs"
        return Ended(self.process.exitcode, self.err.read_text())

    def kill_when(self, ready: Callable[[], bool]) -> bool:
        """Kill the process as soon as something holds; say whether it was still running."""
        while not ready():
            if not self.process.is_alive():
                return False
            time.sleep(0.002)
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join(_SECONDS)
        return self.process.exitcode == -signal.SIGKILL


def start(
    arguments: tuple[object, ...], err: Path, environment: Mapping[str, str] = MappingProxyType({})
) -> Started:
    """Start ``trpexport`` with some arguments; what it says on standard error goes to ``err``."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    texts = [str(argument) for argument in arguments]
    process = context.Process(target=_main, args=(texts, str(err), dict(environment)))
    process.start()
    return Started(process, err)


def start_workers(arguments: tuple[object, ...], err: Path, count: int = 2) -> list[Started]:
    """Start processes that train together, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    return [
        start(
            arguments,
            err.with_name(f"{err.name}.{rank}"),
            {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(count)
    ]


def _main(arguments: list[str], err: str, environment: Mapping[str, str]) -> None:
    import torch

    os.environ.update(environment)
    torch.set_num_threads(1)
    with Path(err).open("w", buffering=1) as stream:
        sys.stderr, sys.stdout = stream, stream
        sys.exit(importlib.import_module("trpexport.cli").run(arguments))


def together(
    function: Callable[[Workers], dict[str, Any]], count: int = 2, *, how: str = "forkserver"
) -> list[dict[str, Any]]:
    """Run a function in processes that are joined by gloo, and return what each returned."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context(how)
    context.set_forkserver_preload(PRELOADED)
    with context.Pool(count, maxtasksperchild=1) as pool:
        tasks = [(function, rank, count, port) for rank in range(count)]
        return pool.starmap_async(_one, tasks, chunksize=1).get(timeout=200)


def _one(
    function: Callable[[Workers], dict[str, Any]], rank: int, count: int, port: int
) -> dict[str, Any]:
    import torch

    from trpexport.training.distributed import joined

    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torchrun = {**address, "WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in torchrun.items()})
    with joined("cpu") as workers:
        result = function(workers)
        assert _is_talking() == (count > 1)
    # A thread of the group that outlives Python aborts the process, now and then.
    assert not _is_talking()
    return result


def _is_talking() -> bool:
    """Whether this process has threads that wait for others to talk to it."""
    return any("gloo" in path.read_text() for path in Path("/proc/self/task").glob("*/comm"))


def write_digits(path: Path) -> str:
    """Write 128 digits for training and 100 for testing; return them as ``--data`` has it."""
    import numpy as np
    from sklearn.datasets import load_digits

    found = load_digits()
    images = (found.images * 255 / 16).astype(np.uint8)
    np.savez(
        path,
        train_images=images[:128],
        train_labels=found.target[:128],
        test_images=images[1000:1100],
        test_labels=found.target[1000:1100],
    )
    return f"npz:{path}"
