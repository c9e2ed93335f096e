"""A network to time, and a machine whose every time is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.random import Generator
from torch import Tensor, nn

from trpexport.inputs import Inputs
from trpexport.latency.stopwatch import Conditions, Session, Timed
from trpexport.measure.profile.profile import NodeTime, Profile
from trpexport.measure.statistics import ratio_interval
from trpexport.networks.torch.network import TorchNetwork

SHAPE = (1, 3, 16, 16)


class Twins(nn.Module):
    """A stem, two convolutions of one kind and surroundings, one of another, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.first = nn.Conv2d(16, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.wide = nn.Conv2d(16, 32, 3, padding=1)
        self.fc = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.second(torch.relu(self.first(x))))
        y: Tensor = self.fc(torch.relu(self.wide(x)).mean((2, 3)))
        return y


def twins() -> TorchNetwork:
    """Return the network, the same each time."""
    torch.manual_seed(0)
    return TorchNetwork.open(Twins().eval(), SHAPE)


class FakeStopwatch:
    """A machine on which a convolution takes as long as it says, and nothing else takes time.

    Args:
        seconds: by shape of a kernel, what a convolution with it takes; a microsecond for each
            1,000 weights without it.
        profiler_cost: what its profiler adds to each node.
        noise: standard deviation of the times of single runs, relative.
        seed: of the noise.
        conditions: under which it times.
        instruction_sets: its own, where it is another machine than this one.

    Attributes:
        profiled: networks that were profiled so far.
        noise: as it was given.
        races: how often networks were timed in turns.
        sizes: what files were to be run with, where their own inputs do not tell.
        sessions: how many times as long a run takes with an option of the session, by its name.
        int8: how many times as long a convolution takes in int8; or by shape of its kernel.
    """

    def __init__(
        self,
        seconds: Mapping[tuple[int, ...], float] | None = None,
        *,
        profiler_cost: float = 0.0,
        noise: float = 0.0,
        seed: int = 0,
        conditions: Conditions | None = None,
        instruction_sets: Sequence[str] | None = None,
    ) -> None:
        self.conditions = conditions or Conditions()
        self.instruction_sets = instruction_sets
        self.profiled = 0
        self._seconds = dict(seconds or {})
        self._cost, self.noise = profiler_cost, noise
        self.races = 0
        self.sizes: Inputs | None = None
        self.sessions: dict[str, float] = {}
        self.int8: float | Mapping[tuple[int, ...], float] = 1.0
        self._generator = np.random.default_rng(seed)

    def at(self, inputs: Inputs) -> FakeStopwatch:
        self.sizes = inputs
        return self

    def check(self) -> None:
        """Nothing is missing."""

    def facts(self) -> dict[str, Any]:
        return {"device": DEVICE, **self.conditions.to_json()}

    def profiles(self, files: Sequence[Path], runs: int) -> list[Profile]:
        self.profiled += len(files)
        return [self._profile(file, runs) for file in files]

    def race(
        self, files: Sequence[Path], seconds: float, sessions: Sequence[Session] = ()
    ) -> list[Timed]:
        self.races += 1
        times = [
            self.latency(file) * prod(self.sessions.get(name, 1.0) for name in session)
            for file, session in zip(files, sessions or [{}] * len(files), strict=True)
        ]
        rounds = [
            [noisy(time, 5, self.noise, self._generator) for _ in range(20)] for time in times
        ]
        return [
            Timed(float(np.median(np.concatenate(some))), ratio_interval(rounds[0], some))
            for some in rounds
        ]

    def latency(self, file: Path) -> float:
        """Return what a run of a network takes."""
        return sum(self._times(file).values())

    def _times(self, file: Path) -> dict[str, float]:
        graph = onnx.load(file).graph
        shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        stored = set(shapes)
        # A kernel in fewer bits comes from the node that makes floats of it.
        shapes |= {
            node.output[0]: shapes[node.input[0]]
            for node in graph.node
            if node.op_type == "DequantizeLinear" and node.input[0] in shapes
        }
        return {
            node.name: self._seconds_of(shape, is_int8=node.input[1] not in stored)
            if node.op_type == "Conv" and (shape := shapes[node.input[1]])
            else 0.0
            for node in graph.node
        }

    def _seconds_of(self, shape: tuple[int, ...], *, is_int8: bool) -> float:
        seconds = self._seconds.get(shape, prod(shape) * 1e-9)
        if not is_int8:
            return seconds
        if isinstance(self.int8, Mapping):
            return seconds * self.int8.get(shape, 1.0)
        return seconds * self.int8

    def _profile(self, file: Path, runs: int) -> Profile:
        shapes = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(file).graph.initializer}
        nodes = {node.name: node for node in onnx.load(file).graph.node}
        return Profile(
            model=str(file),
            provider="cpu",
            threads=1,
            shapes={"input": SHAPE},
            nodes=tuple(
                NodeTime(
                    name=name,
                    operator=nodes[name].op_type,
                    provider="CPUExecutionProvider",
                    input_shapes=tuple(shapes[i] for i in nodes[name].input if i in shapes),
                    output_shapes=(),
                    samples=tuple(noisy(seconds + self._cost, runs, self.noise, self._generator)),
                )
                for name, seconds in self._times(file).items()
            ),
            wall_samples=(self.latency(file),) * runs,
        )


DEVICE = {
    "architecture": "x86_64",
    "CPU": "a processor",
    "physical cores": 1,
    "logical cores": 1,
    "memory in GiB": 1,
    "operating system": "Linux",
    "instruction_sets": ["avx2"],
    "onnxruntime": "1.0.0",
}


def noisy(seconds: float, runs: int, noise: float, generator: Generator) -> Any:
    """Return times of runs, none of them negative."""
    return np.abs(seconds * (1 + noise * generator.standard_normal(runs)))
