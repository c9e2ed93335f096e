"""Anybody's own metric, named as ``package.module:function``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from trpexport.errors import DataError, TrpexportError
from trpexport.foreign import told
from trpexport.importing import importable_working_directory, imported
from trpexport.judge.metrics.base import Outcome, Tally, Values, mean_terms
from trpexport.supervision import MEMORY_VARIABLE, memory_allowance
from trpexport.tensors import Array


@dataclass(frozen=True)
class OwnMetric:
    """A function or a class of the user's.

    A function is called once, with the predictions and the targets of all samples: arrays of
    NumPy, or dicts of them by output where there are several. It returns a number; or one for each
    sample, (samples,), of which the mean is taken and an interval told. A class without arguments
    is called batch by batch, ``update(predictions, targets)``, then ``compute()`` returns a number.

    Attributes:
        name: what the user typed.
        function: the function or the class.
        lower_is_better: whether a smaller number is the better one.
        is_share: never: numbers are in a unit of their own.
    """

    name: str
    function: Callable[..., Any]
    lower_is_better: bool = False
    is_share: bool = False

    @classmethod
    def imported(cls, text: str, *, lower_is_better: bool = False) -> OwnMetric:
        """Import what ``package.module:function`` names, from the current directory too.

        Raises:
            TrpexportError: there is no such function or class.
        """
        with importable_working_directory():
            usage = "package.module:function, as in metrics:mean_dice"
            function = imported(text, partial(_refused, text), usage)
        return cls(text, function, lower_is_better)

    def tally(self) -> Tally:
        """Begin."""
        if isinstance(self.function, type):
            accumulator = _called(self.name, self.function)
            if all(callable(getattr(accumulator, name, None)) for name in ("update", "compute")):
                return _Accumulating(self.name, accumulator)
            raise _refused(self.name, "a class needs update(predictions, targets) and compute()")
        return _Keeping(self.name, self.function)


@dataclass
class _Accumulating:
    name: str
    accumulator: Any

    def add(self, predictions: Values, targets: Values) -> None:
        _called(self.name, self.accumulator.update, predictions, targets)

    def outcome(self) -> Outcome:
        return Outcome(_number(self.name, _called(self.name, self.accumulator.compute)))


@dataclass
class _Keeping:
    """Keeps all predictions and targets for a function of all of them."""

    name: str
    function: Callable[..., Any]
    predictions: list[Values] = field(default_factory=list)
    targets: list[Values] = field(default_factory=list)
    kept: int = 0

    def add(self, predictions: Values, targets: Values) -> None:
        for values in (predictions, targets):
            arrays = values.values() if isinstance(values, Mapping) else (values,)
            self.kept += sum(array.nbytes for array in arrays)
        if self.kept > (limit := memory_allowance(0)):
            raise DataError(
                f"predictions and targets are over {limit / 2**30:.0f} GiB, which {self.name} "
                "would get at once: write it as a class with update and compute, take fewer "
                f"samples, or allow more, as in {MEMORY_VARIABLE}=16G",
                parameters=("limit",),
            )
        self.predictions.append(predictions)
        self.targets.append(targets)

    def outcome(self) -> Outcome:
        predictions, targets = _joined(self.predictions), _joined(self.targets)
        samples = sum(_samples(part) for part in self.targets)
        found = _called(self.name, self.function, predictions, targets)
        values = np.asarray(found)
        if values.ndim == 0:
            return Outcome(_number(self.name, found))
        if values.shape != (samples,) or values.dtype.kind not in "fiub":
            raise _refused(
                self.name,
                f"it returned {values.dtype} of shape {values.shape}, not a number, nor one for "
                f"each of {samples} samples",
            )
        terms = mean_terms(values)
        return Outcome(float(terms.value()[0]), terms)


def _samples(values: Values) -> int:
    return len(next(iter(values.values())) if isinstance(values, Mapping) else values)


def _joined(parts: list[Values]) -> Values:
    """Return the arrays of all batches in one, by output where there are several."""
    first = parts[0]
    if isinstance(first, Mapping):
        return {name: _joined([part[name] for part in parts]) for name in first}  # type: ignore
    arrays: list[Array] = [part for part in parts if isinstance(part, np.ndarray)]
    return np.concatenate(arrays)


def _called(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (Exception, SystemExit) as error:  # foreign code
        raise _refused(name, f"calling it raised {told(error)}") from error


def _number(name: str, found: Any) -> float:
    values = np.asarray(found)
    if values.shape != () or values.dtype.kind not in "fiub":
        raise _refused(name, f"it returned {type(found).__name__}, not a number")
    return float(values)


def _refused(name: str, reason: str) -> TrpexportError:
    return TrpexportError(f"metric {name}: {reason}", parameters=("metric",))
