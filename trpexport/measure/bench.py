"""Measuring networks against each other: latency, memory, size, and whether one is faster.

It needs numpy and ONNX Runtime only, so that it runs as it is on a device.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from trpexport.errors import ModelError, TrpexportError
from trpexport.files import sha256_of
from trpexport.measure.inputs import bench_inputs, image_count
from trpexport.measure.machine import machine_facts
from trpexport.measure.memory import baseline_memory, measure_peak_memory
from trpexport.measure.settings import BenchSettings, ModelFile, find_models
from trpexport.measure.statistics import ratio_interval, summarize
from trpexport.measure.timing import Clock, Measurement, Run, measure
from trpexport.onnxfile.recognition import check_onnx_file
from trpexport.runtime.session import Session, open_session
from trpexport.tensors import Arrays

__all__ = ["SCHEMA_VERSION", "BenchSettings", "ModelFile", "bench", "find_models"]

SCHEMA_VERSION = 1
Announce = Callable[[str], None]
_NANO = 1e-9


def bench(
    settings: BenchSettings,
    *,
    announce: Announce | None = None,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, Any]:
    """Measure networks in one process, in turns, with each number of threads.

    Args:
        settings: what to measure.
        announce: called with a line on each step.
        clock: returns nanoseconds.

    Returns:
        The record, JSON-ready. Times are in seconds, sizes in bytes; ``results`` has one entry a
        number of threads, and in it ``models`` one a network. ``ratio`` is the speed-up over the
        first network; what a network costs (``macs``, ``efficiency``) is None until
        :func:`trpexport.measure.records.attach_costs` fills it in.

    Raises:
        ModelError: a network can't be read or run, does not fit its inputs, or puts out what is
            not a finite number; or the provider does not run it.
        MissingDependencyError: ONNX Runtime is not installed, or lacks the provider.
        TrpexportError: a setting can't be used on this machine.
    """
    job = _Job(settings, announce or (lambda line: None), clock)
    for model in settings.models:  # before any of them is opened
        check_onnx_file(Path(model.path))
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "bench",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_facts(),
        "settings": settings.to_json(),
        "results": [
            {"threads": threads, "models": job.measure(threads)} for threads in settings.threads
        ],
    }


@dataclass(frozen=True)
class _Candidate:
    """A network that is open and has run once.

    Attributes:
        file: where it comes from.
        session: the network.
        inputs: what it runs on.
        run: runs it once.
        session_seconds: how long opening it took.
        first_run_seconds: how long its first run took.
    """

    file: ModelFile
    session: Session
    inputs: Arrays
    run: Run
    session_seconds: float
    first_run_seconds: float


class _Job:
    """One bench on its way."""

    def __init__(self, settings: BenchSettings, announce: Announce, clock: Clock) -> None:
        self._settings = settings
        self._announce = announce
        self._clock = clock
        self._baseline_memory: int | None = None

    def measure(self, threads: int) -> list[dict[str, Any]]:
        """Measure all networks with one number of threads, and return their entries."""
        labels = ", ".join(model.label for model in self._settings.models)
        self._announce(f"open {labels} with {threads} thread{'s' if threads > 1 else ''}")
        candidates = self._open_all(threads)
        self._announce(f"time {labels}, in turns")
        measurements = measure(
            [candidate.run for candidate in candidates], self._settings.method, clock=self._clock
        )
        entries = []
        for candidate, measurement in zip(candidates, measurements, strict=True):
            entry = _facts(candidate) | _times(measurement, image_count(candidate.inputs))
            entry["session"] = self._settings.session(candidate.file, threads)
            entry |= self._memory(candidate, self._options(threads, candidate.file))
            entry["ratio"] = None
            if measurement is not measurements[0]:
                ratio = ratio_interval(
                    measurements[0].rounds, measurement.rounds, seed=self._settings.seed
                )
                entry["ratio"] = {"to": candidates[0].file.label, **ratio.to_json()}
            entry |= {"macs": None, "macs_ratio": None, "efficiency": None}
            if self._settings.keep_samples:
                entry["samples"] = [counted.tolist() for counted in measurement.rounds]
            entries.append(entry)
        return entries

    def _options(self, threads: int, file: ModelFile) -> dict[str, Any]:
        settings = self._settings
        return {
            "threads": threads,
            "provider": settings.provider,
            "provider_options": dict(settings.provider_options),
            "graph_optimization": settings.graph_optimization or "all",
            "allow_spinning": settings.allow_spinning,
            **settings.session(file, threads),
        }

    def _open_all(self, threads: int) -> list[_Candidate]:
        files = self._settings.models
        opened = []
        for file in files:
            started = self._clock()
            session = open_session(Path(file.path), **self._options(threads, file))
            opened.append((session, self._seconds_since(started)))
        all_inputs = bench_inputs([session for session, _ in opened], self._settings)
        candidates = []
        for file, (session, seconds), inputs in zip(files, opened, all_inputs, strict=True):
            run = self._prepare(session, inputs)
            started = self._clock()
            with session.guarded(inputs):
                run()
            first = self._seconds_since(started)
            _check_finite(session, inputs)
            candidates.append(_Candidate(file, session, inputs, run, seconds, first))
        return candidates

    def _prepare(self, session: Session, inputs: Arrays) -> Run:
        device = session.provider.device
        if device is None or not self._settings.io_binding:
            return session.prepared(inputs)
        device_id = int(self._settings.provider_options.get("device_id", "0"))
        return session.prepared(inputs, device=device, device_id=device_id)

    def _memory(self, candidate: _Candidate, options: dict[str, Any]) -> dict[str, Any]:
        """Return the entries on the peak memory of a network, or why it could not be measured.

        That is no reason to throw away the times that were.
        """
        if not self._settings.memory:
            return {"memory": None}
        self._announce(f"peak memory of {candidate.file.label}")
        try:
            if self._baseline_memory is None:
                self._baseline_memory = baseline_memory()
            found = measure_peak_memory(
                Path(candidate.file.path), candidate.inputs, options, baseline=self._baseline_memory
            )
        except (TrpexportError, OSError) as error:
            return {"memory": None, "memory_failure": str(error)}
        return {"memory": found.to_json()}

    def _seconds_since(self, started: int) -> float:
        return (self._clock() - started) * _NANO


def _facts(candidate: _Candidate) -> dict[str, Any]:
    path = Path(candidate.file.path)
    return {
        "label": candidate.file.label,
        "path": path.name,
        "sha256": sha256_of(path),
        "file_bytes": path.stat().st_size,
        "inputs": {name: list(array.shape) for name, array in candidate.inputs.items()},
        "placement": candidate.session.placement,
        "session_seconds": candidate.session_seconds,
        "first_run_seconds": candidate.first_run_seconds,
    }


def _times(measurement: Measurement, images: int) -> dict[str, Any]:
    seconds = measurement.seconds
    summary = summarize(seconds)
    return {
        "warmup_runs": measurement.warm_up.runs,
        "warmup_is_steady": measurement.warm_up.is_steady,
        "runs": len(seconds),
        "rounds": len(measurement.rounds),
        "seconds": summary.to_json(),
        "throughput_per_second": images / summary.median,
    }


def _check_finite(session: Session, inputs: Arrays) -> None:
    """Refuse a network whose outputs are of no use: its speed would be, too."""
    for name, array in session.run(inputs).items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ModelError(
                f"the output {name} of {session.label} holds NaN or infinity: give real inputs "
                "as data, or export it again",
                parameters=("data",),
            )
