"""One tree of exceptions; every message is one line that says what is wrong and what to do next.

::

    TrpexportError                 exit code 2: the input can't be used
    ├── CheckpointError            a checkpoint file can't be read, or isn't one
    │   ├── UnsafeCheckpointError  it holds pickled code
    │   └── ArchitectureError      its architecture is unknown or ambiguous
    ├── PlanError                  a plan is malformed, or belongs to another network
    ├── ModelError                 an ONNX file or bundle can't be read or run
    ├── DataError                  a data set can't be read, or does not fit the network
    ├── TrainingError              a run can't go on: it diverged, or its state belongs elsewhere
    ├── OutputError                the output place can't be written
    │   └── OccupiedError          a bundle stands there, and replacing it was not asked for
    ├── DeviceError                what should compute is not there, or can't
    ├── MissingDependencyError     a package is not installed; names the command to type
    ├── NothingToDoError           exit code 3: no layer would get cheaper
    └── VerificationError          exit code 4: two networks that must agree do not
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from trpexport.text import printable

_MAX_MESSAGE = 1000  # characters


class TrpexportError(Exception):
    """Base of all errors that a user can cause and mend.

    Args:
        message: what is wrong and what to do, in words that hold for everybody who calls this
            library. What a parameter is called elsewhere, as an option of a command for one, is
            added there.
        parameters: names of the parameters that mend it.

    Attributes:
        parameters: as given.
        exit_code: of a command that ends with it.
    """

    exit_code: ClassVar[int] = 2
    parameters: tuple[str, ...] = ()

    def __init__(self, message: str = "", *, parameters: Iterable[str] = ()) -> None:
        # Names come from files of strangers; the remedy stands at the end, which is kept.
        super().__init__(printable(message, _MAX_MESSAGE))
        if parameters:
            self.parameters = tuple(parameters)


class CheckpointError(TrpexportError):
    """A checkpoint file can't be read, or is not a checkpoint."""


class UnsafeCheckpointError(CheckpointError):
    """A checkpoint holds pickled code, which is only loaded when asked for by name."""

    parameters: tuple[str, ...] = ("unsafe_pickle",)


class ArchitectureError(CheckpointError):
    """The architecture of a checkpoint is unknown or ambiguous."""

    parameters: tuple[str, ...] = ("arch", "model")


class PlanError(TrpexportError):
    """A plan is malformed, or belongs to another network."""


class ModelError(TrpexportError):
    """An ONNX file or a bundle can't be read or run."""


class DataError(TrpexportError):
    """A data set can't be read, or does not fit the network."""


class TrainingError(TrpexportError):
    """A training run can't go on: it diverged, or its state belongs to another run."""


class OutputError(TrpexportError):
    """The output place can't be written, or holds something that must not be harmed."""


class OccupiedError(OutputError):
    """A bundle stands in the output place, and replacing it was not asked for."""

    parameters: tuple[str, ...] = ("out", "replace")


class DeviceError(TrpexportError):
    """What should compute is not there, or can't compute what it should."""

    parameters: tuple[str, ...] = ("device",)


class MissingDependencyError(TrpexportError):
    """A package is not installed."""


class NothingToDoError(TrpexportError):
    """No layer of the network would get cheaper, or not within the limits.

    Attributes:
        architecture: what the network is called, where that is known.
    """

    exit_code = 3
    architecture: str | None = None


class VerificationError(TrpexportError):
    """Two networks that must compute the same do not."""

    exit_code = 4
