"""Judging networks by a metric, several at once on the same samples. No torch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trpexport.errors import DataError, ModelError
from trpexport.files import sha256_of
from trpexport.judge.examples import Examples, Judged
from trpexport.judge.metrics.base import Metric, Outcome, Values
from trpexport.judge.paired import CONFIDENCE, PairedDrop, Share
from trpexport.judge.resampling import ResampledLoss, resampled
from trpexport.runtime.session import run_in_batches
from trpexport.shown import Shown
from trpexport.tensors import Arrays, Shapes, shape_text
from trpexport.text import number

_BATCH = 32  # samples at a time, where the network leaves that open


@dataclass(frozen=True, eq=False, repr=False)
class Score(Shown):
    """What a metric says of a network.

    Attributes:
        label: what the network is called.
        sha256: of its file.
        data: the data as the user typed them.
        split: which part of them.
        samples: how many.
        metric: the metric.
        outcome: its value, and the terms that it comes from.
        seconds: time spent in the network.
        fingerprint: tells whether two scores are of the same samples with the same targets.
    """

    label: str
    sha256: str
    data: str
    split: str
    samples: int
    metric: Metric
    outcome: Outcome
    seconds: float
    fingerprint: str

    @property
    def value(self) -> float:
        """The metric."""
        return self.outcome.value

    @property
    def samples_per_second(self) -> float:
        """Samples that the network takes in a second, reading them not included."""
        return self.samples / self.seconds if self.seconds > 0 else float("inf")

    def interval(self) -> tuple[float, float] | None:
        """Return the 95 % interval; None for a function of all samples at once.

        Where each sample is right or wrong it is Wilson's, else from a bootstrap over samples.
        """
        terms = self.outcome.terms
        if terms is None or not np.isfinite(self.value):
            return None
        if terms.are_shares:
            return Share(self.samples, float(terms.numerators.sum())).interval()
        low, high = np.nanquantile(
            resampled([terms])[0], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
        )
        return float(low), float(high)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON-ready data; what is not finite becomes None."""
        low, high = self.interval() or (None, None)
        speed = self.samples_per_second
        return {
            "model": self.label,
            "sha256": self.sha256,
            "data": self.data,
            "split": self.split,
            "images": self.samples,
            "metric": self.metric.name,
            "value": self.value if np.isfinite(self.value) else None,
            "low": low,
            "high": high,
            "lower_is_better": self.metric.lower_is_better,
            "images_per_second": speed if np.isfinite(speed) else None,
        }

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        return {
            "model": self.label,
            "data": self.data,
            self.metric.name: number(self.value),
            "samples": self.samples,
        }


@dataclass(frozen=True)
class Scores:
    """Several networks on the same samples.

    Attributes:
        models: what the metric says of each.
        inputs: shapes of the inputs of one sample as each took them, by name, batch first.
    """

    models: tuple[Score, ...]
    inputs: tuple[Shapes, ...]


def loss_between(before: Score, after: Score) -> PairedDrop | ResampledLoss | float:
    """Return how much worse the second is by the metric: a sample, or a number without interval."""
    return loss_of(before.metric, before.outcome, after.outcome)


def loss_of(metric: Metric, before: Outcome, after: Outcome) -> PairedDrop | ResampledLoss | float:
    """Return what :func:`loss_between` does, of what the metric says of the same samples."""
    earlier, later = before.terms, after.terms
    if earlier is None or later is None:
        return (before.value - after.value) * (-1 if metric.lower_is_better else 1)
    if earlier.are_shares and later.are_shares and not metric.lower_is_better:
        lost = int((earlier.numerators > later.numerators).sum())
        won = int((earlier.numerators < later.numerators).sum())
        return PairedDrop(len(earlier.numerators), lost, won)
    found = ResampledLoss.between(earlier, later, lower_is_better=metric.lower_is_better)
    if metric.is_share and not found.error:  # none differs: as where all are right or wrong
        return PairedDrop(int(found.n), 0, 0)
    return found


def score(
    models: Sequence[Judged],
    examples: Examples,
    metric: Metric,
    *,
    batch: int | None = None,
    advance: Callable[[int], None] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Scores:
    """Judge networks on the same samples, in the same order, batch by batch.

    Args:
        models: the networks, at least one.
        examples: what to run them on.
        metric: judges what they put out.
        batch: samples in memory at a time; also the network's batch, where it leaves that open.
        advance: called with the number of samples after each batch.
        clock: returns seconds.

    Raises:
        DataError: the samples do not fit a network, or its outputs the metric.
        ModelError: a network can't be run, or does not put out one entry a sample.
        TrpexportError: a metric of the user's own fails.
    """
    if batch is not None and batch < 1:
        raise DataError(f"a batch can't be {batch}: choose 1 or more", parameters=("batch",))
    size = batch or _BATCH
    tallies = [metric.tally() for _ in models]
    seconds = [0.0] * len(models)
    shapes: list[Shapes] = [{} for _ in models]
    for start in range(0, len(examples.indices), size):
        which = examples.indices[start : start + size]
        for place, model in enumerate(models):
            feeds = examples.feeds(model, which)
            shapes[place] = {name: array.shape for name, array in feeds.items()}
            started = clock()
            outputs = run_in_batches(model.session, feeds)
            seconds[place] += clock() - started
            targets = examples.targets(model, which)
            if model.output is not None:
                outputs = {model.output: outputs[model.output]}
            tallies[place].add(predictions(model.label, outputs, targets, len(which)), targets)
        if advance is not None:
            advance(len(which))
    fingerprint = examples.sha256()
    found = [
        Score(
            label=model.label,
            sha256=sha256_of(model.path),
            data=examples.data,
            split=examples.split,
            samples=len(examples.indices),
            metric=metric,
            outcome=tally.outcome(),
            seconds=spent,
            fingerprint=fingerprint,
        )
        for model, tally, spent in zip(models, tallies, seconds, strict=True)
    ]
    return Scores(tuple(found), tuple(shapes))


def predictions(label: str, outputs: Arrays, targets: Values, count: int) -> Values:
    """Return what a network put out as metrics take it: one array of one output, else by name.

    Args:
        label: what the network is called.
        outputs: by name.
        targets: what should have come out.
        count: of how many samples.

    Raises:
        DataError: there is a target for no output.
        ModelError: an output does not have one entry a sample.
    """
    if isinstance(targets, Mapping) and not targets.keys() <= {*outputs}:
        raise DataError(
            f"there are targets for {', '.join(targets)}, {label} puts out "
            f"{', '.join(outputs)}: save them under the names of outputs"
        )
    for name, array in outputs.items():
        if array.shape[:1] != (count,):
            raise ModelError(
                f"the output {name} of {label} is {shape_text(array.shape) or 'a scalar'} "
                f"for {count} samples, not one entry a sample: choose another output, or have it "
                "padded to one",
                parameters=("output",),
            )
    return outputs if len(outputs) > 1 else next(iter(outputs.values()))
