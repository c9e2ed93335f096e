"""How much worse a decomposed network is than the original, by a metric, on held-out samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from trpexport.datasets.calibration import public_name
from trpexport.datasets.labelled import LabelledSamples
from trpexport.errors import DataError
from trpexport.inputs import images_of, rows
from trpexport.judge.metrics import METRICS, Metric
from trpexport.judge.metrics.base import Outcome, Values
from trpexport.judge.scoring import loss_of, predictions
from trpexport.networks.base import Network
from trpexport.networks.torch.outputs import picked
from trpexport.tensors import Arrays


class Judged(Protocol):
    """What can be judged: a network, or a file in its place."""

    @property
    def outputs(self) -> Sequence[str]:
        """Globs of the names of the outputs that count; all where there are none."""

    def run(self, feeds: Arrays) -> Arrays:
        """Return its outputs by name for inputs by name."""


class NetworkJudge:
    """Holds networks against the original one by a metric.

    Args:
        network: the original network; of its outputs those that count are judged.
        samples: what it should make of samples that nothing is calibrated on.
        metric: judges; None counts images whose class is right.
        max_batch: how many samples the network takes at a time.
    """

    def __init__(
        self,
        network: Network,
        samples: LabelledSamples,
        metric: Metric | None = None,
        *,
        max_batch: int | None = None,
    ) -> None:
        self._network = network
        self._samples = samples
        self._classes = None if metric is not None else samples.classes
        self._max_batch = max_batch
        self.metric = METRICS["top1"] if metric is None else metric

    @property
    def unit(self) -> str:
        """Unit of a loss and what it is of, for messages."""
        return f"points of {self.metric.name}" if self.metric.is_share else f"of {self.metric.name}"

    def loss(self, network: Judged) -> float:
        """Return how much worse than the original one a network is, negative where it is better.

        In points of a share, else in the metric's own unit; NaN where it has no value.

        Raises:
            DataError: the samples do not fit the network, or its outputs the metric.
        """
        return self.lost(self._outcome(network).value)

    def lost(self, value: float) -> float:
        """Return how much worse than that of the original one a value of the metric is.

        In points of a share, else in the metric's own unit.
        """
        sign = 1 if self.metric.lower_is_better else -1
        return (value - self._before.value) * sign * self._scale

    def facts(self, network: Judged) -> dict[str, Any]:
        """Return what the metric says of the original network and of another one, JSON-ready.

        The loss is paired, sample by sample, in the metric's own unit; its 95 % interval is None
        for a function of all samples at once.
        """
        after = self._outcome(network)
        loss = loss_of(self.metric, self._before, after)
        return {
            "metric": self.metric.name,
            "is_share": self.metric.is_share,
            "before": self._before.value,
            "after": after.value,
            "loss": loss if isinstance(loss, float) else loss.estimate,
            "interval": None if isinstance(loss, float) else list(loss.interval()),
            "images": sum(images_of(inputs) for inputs, _ in self._samples.batches()),
            "data": public_name(self._samples.data),
            "split": self._samples.name,
        }

    @property
    def _scale(self) -> float:
        return 100.0 if self.metric.is_share else 1.0

    @cached_property
    def _before(self) -> Outcome:
        """What the metric says of the original network.

        Raises:
            DataError: it has no value.
        """
        found = self._outcome(self._network)
        if not math.isfinite(found.value):
            raise DataError(
                f"{self.metric.name} of the network as it is is {found.value} on "
                f"{self._samples.name} samples of {self._samples.data}: a drop of that can't be "
                "told"
            )
        return found

    def _outcome(self, network: Judged) -> Outcome:
        tally = self.metric.tally()
        for inputs, targets in self._samples.batches():
            given = self._network.inputs.named(inputs, "samples to judge by")
            count = images_of(given)
            size = min(count, self._max_batch or count)
            for start in range(0, count, size):
                some = slice(start, start + size)
                # A network may take whole batches alone: the last one is filled up, and cut again.
                outputs = network.run(rows(given, np.arange(start, start + size) % count))
                outputs = picked(outputs, network.outputs)
                if self._classes is not None:
                    outputs = _of_classes(outputs, self._classes)
                wanted = _targets_of(outputs, rows(targets, some))
                found = predictions("the network", outputs, wanted, size)
                tally.add(rows(found, slice(images_of(wanted))), wanted)
        return tally.outcome()


@dataclass(frozen=True)
class DropLimit:
    """What a network may lose by a metric.

    Attributes:
        judge: tells what it loses.
        limit: how much that may be, in points of a share, else in the metric's own unit.
    """

    judge: NetworkJudge
    limit: float

    def admits(self, facts: Mapping[str, Any]) -> bool:
        """Whether a network loses no more, by what :meth:`NetworkJudge.facts` says of it."""
        return self.judge.lost(facts["after"]) <= self.limit


def _of_classes(outputs: Arrays, classes: int) -> Arrays:
    """Return the one output that has a number for each class.

    Raises:
        DataError: there is none, or several.
    """
    found = {name: array for name, array in outputs.items() if array.shape[1:] == (classes,)}
    if len(found) != 1:
        first = next(iter(outputs.values()))
        shown = list(first.shape[1:]) if len(outputs) == 1 else f"{len(outputs)} outputs"
        raise DataError(
            f"the network puts out {shown} an image, the data has {classes} classes: a drop needs "
            "the data set that the network was trained on, and a single output that tells them",
            parameters=("metric", "output"),
        )
    return found


def _targets_of(outputs: Arrays, targets: Values) -> Values:
    """Return the targets of the only output, where there are those of several."""
    (name, *others) = outputs
    if isinstance(targets, Mapping) and not others and name in targets:
        return targets[name]
    return targets
