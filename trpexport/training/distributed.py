"""Several processes that train one network, started by ``torchrun``."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

# Read while there is no group: the defaults of its functions would hold the group for ever, and
# what averages gradients has it read.
from torch.distributed.nn import functional as _functional  # noqa: F401
from torch.distributed.rendezvous import rendezvous

from trpexport.errors import TrainingError, TrpexportError
from trpexport.networks.torch.devices import device_named
from trpexport.training.sync_batch_norm import synchronised

_ARRIVED, _FAILURES = "trpexport/arrived", "trpexport/failures"
_MOMENT = 0.02  # seconds between two looks for the others; a signal is heard in between


@dataclass(frozen=True)
class Workers:
    """This process among those that train together.

    Attributes:
        rank: its number; the one with number 0 writes files and speaks.
        count: how many there are.
        device: where this one computes.
    """

    rank: int
    count: int
    device: torch.device

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes files and speaks."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum of a tensor over all workers."""
        if self.count > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> Tensor:
        """Return the tensors of all workers, (workers, ...)."""
        if self.count == 1:
            return values[None]
        parts = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(parts, values)
        return torch.stack(parts)

    def first_says(self, answer: bool) -> bool:
        """Return the first worker's answer: clocks differ, and all must do the same."""
        said = torch.tensor(int(answer and self.is_first), device=self.device)
        return bool(self.sum(said))

    def any_says(self, answer: bool) -> bool:
        """Return whether any worker's answer is yes."""
        return bool(self.sum(torch.tensor(int(answer), device=self.device)))

    def first_does(self, action: Callable[[], object]) -> None:
        """Have the first worker do something; the others wait, and raise what it raises.

        Raises:
            TrpexportError: what ``action`` raises.
        """
        failure: list[TrpexportError | None] = [None]
        if self.is_first:
            try:
                action()
            except TrpexportError as error:
                failure = [error]
        if self.count > 1:
            dist.broadcast_object_list(failure)
        if failure[0] is not None:
            raise failure[0]

    @torch.no_grad()
    def share_buffers(self, model: nn.Module) -> None:
        """Give all workers the first one's buffers: each has batch-norm statistics of its own."""
        if self.count > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def synchronise(self, model: nn.Module) -> nn.Module:
        """Return ``model`` with batch-norm statistics taken over all workers."""
        return synchronised(model, self.device) if self.count > 1 else model

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return ``model`` with gradients averaged over all workers."""
        if self.count == 1:
            return model
        devices = [self.device] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=devices)


@contextmanager
def joined(device: str) -> Iterator[Workers]:
    """Join the processes that ``torchrun`` started; a process that it did not start is alone.

    What goes wrong is raised by the worker that it went wrong for first, and ends the others
    without a word.

    Args:
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.

    Raises:
        TrainingError: the other processes can't be reached.
        DeviceError: there is no such device.
    """
    count = _from_environment("WORLD_SIZE", 1)
    if count == 1:
        yield Workers(0, 1, _device(device, 0))
        return
    try:
        store, rank, count = next(rendezvous("env://", timeout=dist.default_pg_timeout))
    except (ValueError, RuntimeError) as error:
        raise TrainingError(
            f"can't reach the other processes ({_first_line(error)}): start them with torchrun"
        ) from error
    with _one_voice(store):
        _meet(store, rank, count)
        place = _device(device, _from_environment("LOCAL_RANK", rank))
        on_cuda = place.type == "cuda"
        if on_cuda:
            torch.cuda.set_device(place)
        dist.init_process_group(
            "nccl" if on_cuda else "gloo", store=store, rank=rank, world_size=count
        )
        try:
            yield Workers(rank, count, place)
        finally:
            dist.destroy_process_group()
            # What averages gradients holds the group too, in a cycle. A thread of the group that
            # lets go of a tensor while the interpreter goes down aborts the process.
            gc.collect()


def _meet(store: Any, rank: int, count: int) -> None:
    """Wait for every worker: one that torchrun ends because another failed would say so."""
    store.set(f"{_ARRIVED}/{rank}", "")
    everyone = [f"{_ARRIVED}/{number}" for number in range(count)]
    until = time.monotonic() + dist.default_pg_timeout.total_seconds()
    while not store.check(everyone) and time.monotonic() < until:
        time.sleep(_MOMENT)


@contextmanager
def _one_voice(store: Any) -> Iterator[None]:
    """Let the worker that fails first speak; the others end without a word.

    One that fails leaves the rest in the middle of talking to it, so that they fail as well.
    """
    try:
        yield
    except (TrpexportError, RuntimeError, KeyboardInterrupt) as error:
        lost = isinstance(error, RuntimeError) and _is_lost_connection(error)
        if not _is_first_failure(store):
            raise SystemExit(getattr(error, "exit_code", 2)) from None
        if lost:
            raise TrainingError(
                "another of the processes that train together was killed: run the same command "
                "again to go on"
            ) from error
        raise


def _is_first_failure(store: Any) -> bool:
    try:
        return bool(store.add(_FAILURES, 1) == 1)
    except RuntimeError:  # where there is no torchrun, the store went with the first worker
        return False


def _is_lost_connection(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistError) or "gloo" in text or "connection" in text


def _device(name: str, local: int) -> torch.device:
    """Return the device of the process with a number on its machine."""
    device = device_named(name)
    if device.type == "cpu":
        return device
    if local >= torch.cuda.device_count():
        raise TrainingError(
            f"there are {torch.cuda.device_count()} CUDA devices for {local + 1} or more "
            "processes: start fewer with --nproc-per-node"
        )
    # A run that is resumed has to choose the same algorithms again, not the fastest of the moment.
    torch.backends.cudnn.deterministic = True
    return torch.device("cuda", local)


def _from_environment(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise TrainingError(f"{name} is {text!r} and not a number: start with torchrun")
    return int(text)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
