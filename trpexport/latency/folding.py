"""From a profile's nodes to the layers of the network that they compute."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trpexport.measure.profile.attribution import between
from trpexport.measure.profile.matching import match_nodes
from trpexport.measure.profile.profile import Profile

# Of the runs, what is left out on either side: others took the processor, or the clock jumped.
_TRIMMED = 5  # one in so many


@dataclass(frozen=True)
class LayerTime:
    """What a layer takes.

    Attributes:
        seconds: the trimmed mean over runs: times of the profiler are whole microseconds, of which
            a median would tell no more than that.
        deviation: standard error of it, in seconds.
        nodes: how many nodes compute it, those that change its layout included.
    """

    seconds: float
    deviation: float
    nodes: int


@dataclass(frozen=True)
class Folded:
    """A profile by layer.

    Attributes:
        layers: by name of the layer.
        seconds: of all nodes together, those of no layer included.
        nodes: how many nodes there are.
    """

    layers: Mapping[str, LayerTime]
    seconds: float
    nodes: int

    def without(self, cost: float) -> Folded:
        """Return what is left of the times where the profiler costs each node so many seconds."""
        return Folded(
            {
                name: replace(time, seconds=max(0.0, time.seconds - cost * time.nodes))
                for name, time in self.layers.items()
            },
            max(0.0, self.seconds - cost * self.nodes),
            self.nodes,
        )


def folded(profile: Profile, file: Path, owners: Mapping[str, str]) -> Folded:
    """Add up the times of the nodes that compute each layer.

    Args:
        profile: the profile of ``file``.
        file: the ONNX file.
        owners: name of the layer that each node of the file computes, by name of the node.

    Raises:
        ModelError: the file can't be read.
    """
    matching = match_nodes(profile, file)
    own: dict[str, list[int]] = defaultdict(list)
    for index, executed in enumerate(matching.executed):
        if executed.product is not None:
            owner = owners.get(matching.products[executed.product].node.name)
            if owner is not None:
                own[owner].append(index)
    samples = np.array([node.samples for node in profile.nodes])
    layers = {}
    for name, places in own.items():
        inside = between(matching.executed, places)
        rows = sorted({*places, *inside})
        layers[name] = LayerTime(*trimmed(samples[rows].sum(axis=0)), nodes=len(rows))
    # Node by node: where others take the processor, hardly a run is without them from end to end.
    seconds = sum(trimmed(row)[0] for row in samples)
    return Folded(layers, seconds, len(samples))


def trimmed(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the trimmed mean of runs, and its standard error."""
    cut = len(values) // _TRIMMED
    kept = np.sort(values)[cut : len(values) - cut]
    # Tukey and McLaughlin, "Less Vulnerable Confidence and Significance Procedures for Location
    # Based on a Single Sample", 1963: from the values with the tails pulled in.
    winsorized = np.clip(values, kept[0], kept[-1])
    spread = float(winsorized.std()) / (1 - 2 / _TRIMMED)
    return float(kept.mean()), spread / len(values) ** 0.5
