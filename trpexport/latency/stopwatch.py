"""Who runs networks to time them: this machine, or another one that is asked to."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, Self

from trpexport.device.remote import run_on_host
from trpexport.inputs import Inputs
from trpexport.measure.bench import bench
from trpexport.measure.doctor import small_network
from trpexport.measure.machine import fingerprint, machine_facts
from trpexport.measure.profile.jobs import ProfileJob, profiled_apart, profiles_of
from trpexport.measure.profile.profile import Profile, ProfileSettings, profile_models
from trpexport.measure.settings import BenchSettings, ModelFile
from trpexport.measure.statistics import Interval
from trpexport.runtime.providers import NO_OPTIONS, PROVIDERS, Options, find_provider
from trpexport.runtime.session import open_session
from trpexport.tensors import NO_SHAPES, Shapes

Session = Mapping[str, str | bool]
"""Options of a session that are not ONNX Runtime's default."""


@dataclass(frozen=True)
class Conditions:
    """Under which networks are timed.

    Attributes:
        provider: a name in :data:`trpexport.runtime.providers.PROVIDERS`.
        provider_options: its options.
        threads: threads that one operator is spread over.
        batch: images at a time; None for as many as the network's input has.
        shapes: whole input shapes by name.
    """

    provider: str = "cpu"
    provider_options: Options = field(default_factory=lambda: NO_OPTIONS)
    threads: int = 1
    batch: int | None = None
    shapes: Shapes = field(default_factory=lambda: NO_SHAPES)

    def at(self, inputs: Inputs) -> Conditions:
        """Return them with whole input shapes, in batches of their own if they have any."""
        sized = inputs if self.batch is None else inputs.with_batch(self.batch)
        return replace(self, shapes={name: one.shape for name, one in sized.items()})

    def to_json(self) -> dict[str, Any]:
        """Return them as JSON-ready data."""
        return {
            "provider": self.provider,
            "provider_options": dict(self.provider_options),
            "threads": self.threads,
            "batch": self.batch,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
        }


@dataclass(frozen=True)
class Timed:
    """A network that was timed in turns with others.

    Attributes:
        seconds: median time of a run.
        speedup: how many times faster than the first one it is.
    """

    seconds: float
    speedup: Interval


class Stopwatch(Protocol):
    """Times networks on some machine."""

    @property
    def conditions(self) -> Conditions:
        """Under which it does."""

    @property
    def instruction_sets(self) -> Collection[str] | None:
        """Those of the machine, where it is another one; None for this one."""

    def at(self, inputs: Inputs) -> Stopwatch:
        """Return one that runs files with these inputs: some leave their sizes open.

        How many images they are the conditions say, if anything.
        """

    def check(self) -> None:
        """Refuse what can be told to be missing before any work is done.

        Raises:
            TrpexportError: the provider is not there.
        """

    def facts(self) -> Mapping[str, Any]:
        """Return what times hold for, JSON-ready: the machine, its ONNX Runtime, the conditions."""

    def profiles(self, files: Sequence[Path], runs: int) -> list[Profile]:
        """Return where networks spend their time, in turns.

        Raises:
            TrpexportError: one can't be run.
        """

    def race(
        self, files: Sequence[Path], seconds: float, sessions: Sequence[Session] = ()
    ) -> list[Timed]:
        """Time networks against the first one, in turns.

        Args:
            files: ONNX files.
            seconds: least time for each; up to five times that on a busy machine.
            sessions: what is not ONNX Runtime's default of the session with each; of none if empty.

        Raises:
            TrpexportError: one can't be run.
        """


class LocalStopwatch:
    """Times networks in this process.

    Args:
        conditions: under which.
    """

    instruction_sets = None

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions

    def at(self, inputs: Inputs) -> LocalStopwatch:
        """Return one that runs files with these inputs: some leave their sizes open."""
        return LocalStopwatch(self.conditions.at(inputs))

    def check(self) -> None:
        """Refuse a provider that does not run a small network here."""
        name = find_provider(self.conditions.provider).name
        open_session(
            small_network(), provider=name, provider_options=self.conditions.provider_options
        )

    def facts(self) -> Mapping[str, Any]:
        """Return what times hold for: this machine, its ONNX Runtime, the conditions."""
        return {"device": device_of(machine_facts()), **self.conditions.to_json()}

    def profiles(self, files: Sequence[Path], runs: int) -> list[Profile]:
        """Return where networks spend their time, in turns."""
        if PROVIDERS[self.conditions.provider].environment:
            return profiled_apart(profile_job(self.conditions, files, runs))
        return profile_models(files, profile_settings(self.conditions, runs))

    def race(
        self, files: Sequence[Path], seconds: float, sessions: Sequence[Session] = ()
    ) -> list[Timed]:
        """Time networks against the first one, in turns."""
        return raced(bench, self.conditions, files, seconds, sessions)


class ElsewhereStopwatch(ABC):
    """Times networks on a device that must be asked what it is, which is done once.

    Args:
        conditions: under which.
    """

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions

    def at(self, inputs: Inputs) -> Self:
        """Return one that runs files with these inputs: some leave their sizes open."""
        other = copy(self)
        other.conditions = self.conditions.at(inputs)
        return other

    def check(self) -> None:
        """Refuse a provider that is unknown; whether it is there tells the first run."""
        _ = PROVIDERS[self.conditions.provider]

    @property
    def instruction_sets(self) -> Collection[str]:
        """Those of the device."""
        return list(self._device["instruction_sets"])

    def facts(self) -> Mapping[str, Any]:
        """Return what times hold for: the device, its ONNX Runtime, the conditions."""
        return {"device": self._device, **self.conditions.to_json()}

    @functools.cached_property
    def _device(self) -> Mapping[str, Any]:
        return self._asked()

    @abstractmethod
    def _asked(self) -> Mapping[str, Any]:
        """Ask the device for its facts: see :func:`device_of`."""


class RemoteStopwatch(ElsewhereStopwatch):
    """Times networks on another machine, over ssh; nothing stays there.

    Args:
        conditions: under which.
        host: what ssh knows it by.
        python: the Python to run there.
        say: called with a line on each step.
        ssh: the program and its leading arguments.
    """

    def __init__(
        self,
        conditions: Conditions,
        host: str,
        *,
        python: str = "python3",
        say: Callable[[str], None] | None = None,
        ssh: Sequence[str] = ("ssh",),
    ) -> None:
        super().__init__(conditions)
        self._run = functools.partial(run_on_host, host, python=python, announce=say, ssh=ssh)

    def _asked(self) -> Mapping[str, Any]:
        return device_of(self._run(ProfileJob((), self.conditions.provider))["machine"])

    def profiles(self, files: Sequence[Path], runs: int) -> list[Profile]:
        """Return where networks spend their time, in turns."""
        return profiles_of(self._run(profile_job(self.conditions, files, runs)))

    def race(
        self, files: Sequence[Path], seconds: float, sessions: Sequence[Session] = ()
    ) -> list[Timed]:
        """Time networks against the first one, in turns."""
        return raced(self._run, self.conditions, files, seconds, sessions)


def device_of(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a machine's facts tells times on it from times elsewhere."""
    return {
        **fingerprint(machine),
        "instruction_sets": sorted(machine["instruction_sets"]),
        "onnxruntime": machine["versions"]["onnxruntime"],
    }


def profile_job(conditions: Conditions, files: Sequence[Path], runs: int) -> ProfileJob:
    """Return networks to run under the profiler in another process, or on another machine."""
    return ProfileJob(
        tuple(ModelFile(str(file), file.stem) for file in files),
        conditions.provider,
        conditions.provider_options,
        conditions.threads,
        conditions.batch,
        conditions.shapes,
        runs,
    )


def profile_settings(conditions: Conditions, runs: int) -> ProfileSettings:
    """Return how networks run under the profiler."""
    return ProfileSettings(
        provider=conditions.provider,
        provider_options=conditions.provider_options,
        threads=conditions.threads,
        batch=conditions.batch,
        shapes=conditions.shapes,
        runs=runs,
    )


def raced(
    run: Callable[[BenchSettings], Mapping[str, Any]],
    conditions: Conditions,
    files: Sequence[Path],
    seconds: float,
    sessions: Sequence[Session] = (),
) -> list[Timed]:
    """Return what a bench says of networks.

    Args:
        run: runs a bench and returns its record.
        conditions: under which.
        files: ONNX files.
        seconds: least time for each.
        sessions: what is not the default of the session with each; of none if empty.
    """
    advice = {"provider": conditions.provider, "threads": conditions.threads}
    record = run(
        BenchSettings(
            models=tuple(
                ModelFile(str(file), file.stem, advice={**advice, "options": session})
                for file, session in zip(files, sessions or [{}] * len(files), strict=True)
            ),
            provider=conditions.provider,
            provider_options=conditions.provider_options,
            threads=(conditions.threads,),
            batch=conditions.batch,
            shapes=conditions.shapes,
            min_time=seconds,
            max_time=5 * seconds,
            memory=False,
        )
    )
    (result,) = record["results"]
    return [
        Timed(
            entry["seconds"]["median"],
            Interval(1.0, 1.0, 1.0)
            if entry["ratio"] is None
            else Interval(*(entry["ratio"][key] for key in ("low", "mid", "high"))),
        )
        for entry in result["models"]
    ]
