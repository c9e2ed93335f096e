"""Time per node, from ONNX Runtime's profiler."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from trpexport.errors import ModelError, TrpexportError
from trpexport.measure.inputs import check_batch
from trpexport.measure.profile.trace import Run, read_trace
from trpexport.measure.statistics import summarize
from trpexport.runtime.session import Session, open_session
from trpexport.tensors import Arrays, Shape, Shapes, TensorInfo, shapes_by_network

_WARMUP_RUNS = 5
_TURN = 5  # runs of one network before the next one's turn; the first of them is not kept


@dataclass(frozen=True)
class ProfileSettings:
    """How to run networks under the profiler.

    Attributes:
        provider: name of the provider to run on.
        provider_options: its options.
        threads: threads that one operator is spread over; None leaves it to ONNX Runtime.
        graph_optimization: how far ONNX Runtime may rewrite the graph.
        allow_spinning: whether idle threads wait busily; None leaves it to ONNX Runtime.
        runs: runs of each network that are kept.
        batch: the first dimension of the inputs, where it is dynamic; None for 1.
        shapes: whole input shapes by name, needed where a later dimension is dynamic; of networks
            that are made for different sizes, for those whose inputs can have them.
        inputs: arrays by input name; random ones if None.
        seed: seed of the random inputs and of the order of the turns.
    """

    provider: str = "cpu"
    provider_options: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = 1
    graph_optimization: str = "all"
    allow_spinning: bool | None = None
    runs: int = 60
    batch: int | None = None
    shapes: Shapes = field(default_factory=dict)
    inputs: Arrays | None = None
    seed: int = 0


@dataclass(frozen=True)
class NodeTime:
    """What one node of the optimized graph costs.

    Attributes:
        name: its name in the optimized graph.
        operator: its operator, without the domain.
        provider: ONNX Runtime's name for the provider that it ran on.
        input_shapes: shapes of the tensors that went in, weights included.
        output_shapes: shapes of what came out.
        samples: seconds in its kernel, one a run.
    """

    name: str
    operator: str
    provider: str
    input_shapes: tuple[Shape, ...]
    output_shapes: tuple[Shape, ...]
    samples: tuple[float, ...] = field(repr=False)

    @property
    def seconds(self) -> float:
        """Median time of a run."""
        return float(np.median(self.samples))

    @property
    def mad(self) -> float:
        """Median absolute deviation of the time of a run, in seconds."""
        return summarize(np.array(self.samples)).mad

    def to_json(self) -> dict[str, Any]:
        """Return the node as JSON-ready data, without the single runs."""
        return {
            "name": self.name,
            "operator": self.operator,
            "provider": self.provider,
            "output_shapes": self.output_shapes,
            "seconds": self.seconds,
            "mad": self.mad,
        }


@dataclass(frozen=True)
class Profile:
    """Where a network spends its time.

    A kernel's time is that of its call. On a provider that runs asynchronously (CUDA, TensorRT)
    the call only queues the work, and the time shows where the queue is waited for: there the
    placement of the nodes can be believed, their times can not.

    Attributes:
        model: what the network is called in messages: its path.
        provider: the provider that was asked for.
        threads: threads that one operator was spread over; None if ONNX Runtime chose.
        shapes: shape of every input, by name.
        nodes: the nodes, in the order in which they ran.
        wall_samples: seconds of each run inside ONNX Runtime. The profiler itself costs some
            microseconds a node, so that this is no latency.
        optimized: the graph that ran as ONNX, its large weights left out; None if a provider
            compiled parts of it, which can't be written as ONNX.
    """

    model: str
    provider: str
    threads: int | None
    shapes: Mapping[str, Shape]
    nodes: tuple[NodeTime, ...]
    wall_samples: tuple[float, ...] = field(repr=False)
    optimized: bytes | None = field(default=None, repr=False)

    @property
    def runs(self) -> int:
        """Number of runs that were kept."""
        return len(self.wall_samples)

    @property
    def wall_seconds(self) -> float:
        """Median wall time of a run."""
        return float(np.median(self.wall_samples))

    @property
    def node_seconds(self) -> float:
        """Sum of the nodes' times."""
        return sum(node.seconds for node in self.nodes)

    @property
    def overhead_seconds(self) -> float:
        """What of the wall time is in no node: the session's own work, and the profiler's."""
        return self.wall_seconds - self.node_seconds

    @property
    def coverage(self) -> float:
        """Sum of the nodes' times, relative to the wall time; 0 if that is too short to tell."""
        return self.node_seconds / self.wall_seconds if self.wall_seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the profile as JSON-ready data, the totals first."""
        return {
            "model": self.model,
            "provider": self.provider,
            "threads": self.threads,
            "shapes": dict(self.shapes),
            "runs": self.runs,
            "wall_seconds": self.wall_seconds,
            "wall_mad": summarize(np.array(self.wall_samples)).mad,
            "node_seconds": self.node_seconds,
            "overhead_seconds": self.overhead_seconds,
            "coverage": self.coverage,
            "nodes": [node.to_json() for node in self.nodes],
        }


_DEFAULT = ProfileSettings()


def profile_model(model: Path, settings: ProfileSettings = _DEFAULT) -> Profile:
    """Time every node of one network; as :func:`profile_models`."""
    (profile,) = profile_models([model], settings)
    return profile


def profile_models(
    models: Sequence[Path],
    settings: ProfileSettings = _DEFAULT,
    sessions: Sequence[Mapping[str, Any]] = (),
) -> list[Profile]:
    """Time every node of networks that are to be compared.

    They take turns in one process, in shuffled order, so that a slow spell of the machine meets
    all of them. A turn is five runs; its first finds the caches full of the other networks' data
    and is not kept. Runs to warm up come before.

    Args:
        models: ONNX files.
        settings: how to run them.
        sessions: arguments of :func:`trpexport.runtime.session.open_session` for each of them,
            which go before the settings; none if empty.

    Returns:
        A profile a network, in the order of ``models``.

    Raises:
        ModelError: a network can't be run, or its trace can't be read.
        MissingDependencyError: ONNX Runtime or the provider is not installed.
        TrpexportError: a setting can't be.
    """
    if settings.runs < 1:
        raise TrpexportError(f"can't profile {settings.runs} runs: choose 1 or more")
    with tempfile.TemporaryDirectory(prefix="trpexport-profile-") as name:
        recorders = [
            _Recorder(model, Path(name) / str(index), settings, session)
            for index, (model, session) in enumerate(
                zip(models, sessions or [{}] * len(models), strict=True)
            )
        ]
        shapes = shapes_by_network([recorder.takes for recorder in recorders], settings.shapes)
        for recorder, own in zip(recorders, shapes, strict=True):
            recorder.warm_up(own)
        generator = np.random.default_rng(settings.seed)
        for kept in _turns(settings.runs):
            for index in generator.permutation(len(recorders)):
                recorders[index].take_turn(kept)
        return [recorder.finish() for recorder in recorders]


def _turns(runs: int) -> Iterator[int]:
    """Yield how many runs to keep of each turn."""
    while runs > 0:
        yield min(runs, _TURN - 1)
        runs -= _TURN - 1


class _Recorder:
    """One network under the profiler, and which of its runs to keep.

    Args:
        model: an ONNX file.
        directory: a directory to make, for what the profiler writes.
        settings: how to run it.
        options: of its session, which go before the settings.
    """

    def __init__(
        self, model: Path, directory: Path, settings: ProfileSettings, options: Mapping[str, Any]
    ) -> None:
        directory.mkdir()
        self._settings = settings
        self._options = {
            "provider": settings.provider,
            "provider_options": settings.provider_options,
            "threads": settings.threads,
            "graph_optimization": settings.graph_optimization,
            "allow_spinning": settings.allow_spinning,
            **options,
        }
        self._graph = directory / "optimized.onnx"
        self._session = self._open(model, directory / "trace")
        self._inputs: Arrays = settings.inputs or {}
        self._kept: list[bool] = []

    @property
    def takes(self) -> tuple[TensorInfo, ...]:
        """The inputs of the network."""
        return self._session.inputs

    def warm_up(self, shapes: Shapes) -> None:
        """Draw inputs of these shapes, if there are none, and run until the machine is warm."""
        if not self._inputs:
            settings, session = self._settings, self._session
            check_batch(session, settings.batch)
            self._inputs = session.random_inputs(settings.batch or 1, settings.seed, shapes)
        for _ in range(_WARMUP_RUNS):
            self._run(keep=False)

    def take_turn(self, kept: int) -> None:
        """Run once to fill the caches, then ``kept`` times."""
        for index in range(kept + 1):
            self._run(keep=index > 0)

    def finish(self) -> Profile:
        """Stop the profiler and gather what it saw."""
        label = self._session.label
        trace = read_trace(self._session.end_profiling(), label)
        if len(trace) != len(self._kept):
            raise ModelError(
                f"the profiler saw {len(trace)} of the {len(self._kept)} runs of {label}: it "
                "stops after a million events; ask for fewer runs"
            )
        runs = [run for run, keep in zip(trace, self._kept, strict=True) if keep]
        return Profile(
            model=label,
            provider=self._settings.provider,
            threads=self._settings.threads,
            shapes={name: array.shape for name, array in self._inputs.items()},
            nodes=_node_times(runs, label),
            wall_samples=tuple(run.seconds for run in runs),
            optimized=self._graph.read_bytes() if self._graph.is_file() else None,
        )

    def _open(self, model: Path, trace: Path) -> Session:
        opening = functools.partial(open_session, model, profile_prefix=trace, **self._options)
        try:
            return opening(optimized_path=self._graph)
        except ModelError:
            # A graph that a provider has compiled can't be written. Any other cause comes again.
            return opening()

    def _run(self, *, keep: bool) -> None:
        self._session.run(self._inputs)
        self._kept.append(keep)


def _node_times(runs: Sequence[Run], label: str) -> tuple[NodeTime, ...]:
    """Gather the times of each node over the runs, all of which ran the same nodes."""
    names = [[(node.name, node.provider) for node in run.nodes] for run in runs]
    if any(other != names[0] for other in names):
        raise ModelError(f"the runs of {label} differ in their nodes: profile it again")
    return tuple(
        NodeTime(
            name=events[0].name,
            operator=events[0].operator,
            provider=events[0].provider,
            input_shapes=events[0].input_shapes,
            output_shapes=events[0].output_shapes,
            samples=tuple(event.seconds for event in events),
        )
        for events in zip(*(run.nodes for run in runs), strict=True)
    )
