"""Raw tensors as a run trains and is tested on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trpexport.datasets.calibration import fitted_to
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.datasets.tensors import TensorSet
from trpexport.inputs import Inputs
from trpexport.tensors import Array, Arrays
from trpexport.training.batches import Batch, Batches
from trpexport.training.distributed import Workers

_TEST_BATCH = 100


@dataclass(frozen=True)
class TensorData:
    """Raw tensors of a run, of which one sample in five is tested on, of few all.

    Attributes:
        dataset: the tensors.
        inputs: the network's.
        known: how images become its input, which the run's checkpoints keep; None for unknown.
    """

    dataset: TensorSet
    inputs: Inputs
    known: Preprocessing | None = None

    @property
    def has_labels(self) -> bool:
        """Whether it is known what should come out."""
        return bool(self.dataset.targets)

    @property
    def has_classes(self) -> bool:
        """Whether what should come out is one class a sample."""
        return self.dataset.has_classes

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input of one sample, batch first."""
        return (1, *self.inputs.first.shape[1:])

    def facts(self) -> dict[str, Any]:
        """Return what a checkpoint says of them, JSON-ready."""
        known = {} if self.known is None else {"preprocessing": self.known.to_json()}
        kind = self.dataset.name.partition(":")[0]
        return {**self.inputs.with_batch(1).to_json(), "dataset": kind, **known}

    def batches(
        self, batch_size: int, seed: int, augment: bool, workers: Workers, decoders: int | None
    ) -> Batches:
        """Return the training batches of one worker; tensors are never changed at random.

        Raises:
            DataError: a batch is larger than the data, or can't be shared out.
        """
        return _TensorBatches(self._samples(workers), self._fitted, batch_size, seed, workers)

    def test_batches(
        self, workers: Workers, decoders: int | None = None
    ) -> Callable[[], Iterator[Batch]]:
        """Return what yields one worker's share of the test samples, each time from the start."""
        samples = self._samples(workers)
        everything = np.arange(len(self.dataset))
        left = np.setdiff1d(everything, self._fitted)
        mine = (left if len(left) else everything)[workers.rank :: workers.count]

        def batches() -> Iterator[Batch]:
            for start in range(0, len(mine), _TEST_BATCH):
                yield samples(mine[start : start + _TEST_BATCH])

        return batches

    @cached_property
    def _fitted(self) -> NDArray[np.int64]:
        return fitted_to(np.arange(len(self.dataset)))

    def _samples(self, workers: Workers) -> Callable[[NDArray[np.int64]], Batch]:
        arrays = self.inputs.named(self.dataset.inputs_of(self.inputs), self.dataset.name)
        targets = self.dataset.targets

        def samples(which: NDArray[np.int64]) -> Batch:
            return (
                _tensors(arrays, which, workers.device),
                _tensors(targets, which, workers.device) if targets else None,
            )

        return samples


class _TensorBatches(Batches):
    def __init__(
        self,
        samples: Callable[[NDArray[np.int64]], Batch],
        fitted: NDArray[np.int64],
        batch_size: int,
        seed: int,
        workers: Workers,
    ) -> None:
        super().__init__(fitted, batch_size, seed, workers.rank, workers.count)
        self._samples, self._fitted = samples, fitted

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield (inputs, targets) of the steps of an epoch, from step ``first`` on."""
        order = self.order(epoch).numpy()
        for step in range(first, len(self)):
            yield self._samples(self._fitted[order[step][self.rank :: self.workers]])


def _tensors(
    arrays: Arrays, which: NDArray[np.int64], device: torch.device
) -> Tensor | dict[str, Tensor]:
    """Return some rows of arrays as tensors: of one without its name."""
    found = {name: _tensor(array[which]).to(device) for name, array in arrays.items()}
    return found if len(found) > 1 else next(iter(found.values()))


def _tensor(array: Array) -> Tensor:
    if array.dtype.kind == "f":
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))
    return torch.from_numpy(np.ascontiguousarray(array, np.int64 if array.dtype != bool else bool))
