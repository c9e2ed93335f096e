"""Running networks on arrays from a file, in a process elsewhere: an emulator, another machine."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trpexport.arrays import read_arrays, write_arrays
from trpexport.runtime.session import Session, import_onnxruntime, open_session, run_in_batches
from trpexport.tensors import Arrays

# Closing these file descriptors marks the stretch whose instructions arm/icount.c counts.
_COUNT_BEGIN, _COUNT_END = -7001, -7002
_WARM_UP = 2  # runs: the first ones allocate memory and choose kernels


@dataclass(frozen=True)
class ReplaySettings:
    """What to run.

    Attributes:
        models: paths of ONNX files.
        inputs: path of a file of :func:`~trpexport.arrays.write_arrays`: an array for every input
            of each network, whose first dimension counts images.
        outputs: where each model's outputs go, in the order of ``models``.
        counted_runs: further runs of one batch (one image where the batch size is free) between
            the markers that a counting emulator looks for; 0 for none.
    """

    models: tuple[str, ...]
    inputs: str
    outputs: tuple[str, ...]
    counted_runs: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON-ready data."""
        return {"kind": "replay", **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ReplaySettings:
        """Return the settings that :meth:`to_json` wrote."""
        return cls(
            models=tuple(data["models"]),
            inputs=data["inputs"],
            outputs=tuple(data["outputs"]),
            counted_runs=data["counted_runs"],
        )


def replay(settings: ReplaySettings) -> dict[str, Any]:
    """Run every network on one thread, write its outputs, and return where that happened.

    Raises:
        ModelError: a network or the inputs can't be read, or do not fit each other.
        MissingDependencyError: ONNX Runtime is not installed.
    """
    inputs = read_arrays(Path(settings.inputs))
    for model, target in zip(settings.models, settings.outputs, strict=True):
        session = open_session(Path(model), threads=1)
        write_arrays(Path(target), run_in_batches(session, inputs))
        if settings.counted_runs:
            _run_between_markers(session, inputs, settings.counted_runs)
    return {
        "kind": "replay",
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": str(import_onnxruntime().__version__),
    }


def _run_between_markers(session: Session, inputs: Arrays, runs: int) -> None:
    batch = {name: array[: session.batch_size or 1] for name, array in inputs.items()}
    for _ in range(_WARM_UP):
        session.run(batch)
    gc.collect()
    gc.disable()  # a collection would fall into some counts and not into others
    try:
        _mark(_COUNT_BEGIN)
        for _ in range(runs):
            session.run(batch)
        _mark(_COUNT_END)
    finally:
        gc.enable()


def _mark(descriptor: int) -> None:
    with suppress(OSError):  # it is never open
        os.close(descriptor)
