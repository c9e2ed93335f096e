"""What a metric is: a number that says how good predictions are, from sums over samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trpexport.errors import DataError
from trpexport.registry import Registry
from trpexport.tensors import Array, Arrays, shape_text

Values = Array | Arrays  # of one output, or of several by name
Finish = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Terms:
    """What each sample adds to a metric: the mean over columns of the ratios of two sums.

    Attributes:
        numerators: (samples, columns).
        denominators: (samples, columns); a column whose sum is 0 does not count.
        finish: what is made of the mean, a square root say, element by element.
    """

    numerators: NDArray[np.float64]
    denominators: NDArray[np.float64]
    finish: Finish = np.asarray

    @classmethod
    def joined(cls, parts: Sequence[Terms]) -> Terms:
        """Return those of several batches; one that knows fewer columns has zeros in the others."""
        columns = max(part.numerators.shape[1] for part in parts)

        def widened(array: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.pad(array, ((0, 0), (0, columns - array.shape[1])))

        return cls(
            np.concatenate([widened(part.numerators) for part in parts]),
            np.concatenate([widened(part.denominators) for part in parts]),
            parts[0].finish,
        )

    @property
    def are_shares(self) -> bool:
        """Whether each sample is simply right or wrong."""
        right = np.isin(self.numerators, (0, 1)).all()
        return bool(self.numerators.shape[1] == 1 and right and (self.denominators == 1).all())

    def value(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return the metric, or one for each row of weights (rows, samples) of the samples."""
        if weights is None:
            weights = np.ones((1, len(self.numerators)))
        above, below = weights @ self.numerators, weights @ self.denominators
        counts = below != 0
        ratios = np.divide(above, below, out=np.zeros_like(above), where=counts)
        with np.errstate(invalid="ignore"):
            means = ratios.sum(axis=1) / counts.sum(axis=1)
        return self.finish(means)


@dataclass(frozen=True)
class Outcome:
    """What a metric says of all samples.

    Attributes:
        value: the metric.
        terms: what it comes from; None for a function of all samples, which has no interval.
    """

    value: float
    terms: Terms | None = None


class Tally(Protocol):
    """Takes predictions in, batch by batch."""

    def add(self, predictions: Values, targets: Values) -> None:
        """Take a batch in.

        Raises:
            DataError: predictions and targets do not fit each other, or the metric.
        """

    def outcome(self) -> Outcome:
        """Return what they come to.

        Raises:
            DataError: the metric can't be computed.
        """


class Metric(Protocol):
    """How good predictions are."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def is_share(self) -> bool:
        """Whether it is from 0 to 1 and shown in %, its differences in points."""

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller number is the better one."""

    def tally(self) -> Tally:
        """Begin."""


@dataclass(frozen=True)
class RatioMetric:
    """A metric that sums over samples make: see :class:`Terms`.

    Attributes:
        name: what a user types.
        summary: what it is, in a few words.
        terms: gives those of a batch from predictions and targets of one output.
        is_share: whether it is from 0 to 1.
        lower_is_better: whether a smaller number is the better one.
    """

    name: str
    summary: str
    terms: Callable[[Array, Array], Terms]
    is_share: bool = True
    lower_is_better: bool = False

    def tally(self) -> Tally:
        """Begin."""
        return _RatioTally(self)


@dataclass
class _RatioTally:
    metric: RatioMetric
    parts: list[Terms] = field(default_factory=list)

    def add(self, predictions: Values, targets: Values) -> None:
        name = self.metric.name
        if not isinstance(predictions, np.ndarray):
            raise DataError(
                f"{name} judges one output, the network has {', '.join(predictions)}: choose one",
                parameters=("output",),
            )
        if not isinstance(targets, np.ndarray):
            raise DataError(
                f"{name} judges one output, there are targets for {', '.join(targets)}: choose one",
                parameters=("output",),
            )
        self.parts.append(self.metric.terms(predictions, targets))

    def outcome(self) -> Outcome:
        terms = Terms.joined(self.parts)
        return Outcome(float(terms.value()[0]), terms)


METRICS: Registry[RatioMetric] = Registry("metric")


def misfit(name: str, predictions: Array, targets: Array, wanted: str) -> DataError:
    """Return what to say of predictions and targets that do not belong together."""

    def said(array: Array) -> str:
        return f"{array.dtype} of {shape_text(('n', *array.shape[1:]))}"

    return DataError(
        f"{name} can't hold predictions, {said(predictions)}, against targets, {said(targets)}: "
        f"{wanted}"
    )


def mean_terms(values: Any) -> Terms:
    """Return the terms of a mean over samples, from the value of each, (samples,)."""
    values = np.asarray(values, np.float64)[:, None]
    return Terms(values, np.ones_like(values))
