"""Folding the time of executed nodes onto a plan: what each original layer costs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trpexport.measure.profile.matching import Executed, Matching, match_nodes
from trpexport.measure.profile.planned_layers import assign_layers
from trpexport.measure.profile.profile import Profile
from trpexport.measure.statistics import summarize
from trpexport.plan import Plan

Kind = Literal["reordering", "copying", "other"]

_COPYING = frozenset({"MemcpyFromHost", "MemcpyToHost"})


@dataclass(frozen=True)
class LayerTime:
    """What one original layer costs, kept or as its factors.

    Attributes:
        name: its name in the plan; without a plan, in the file.
        nodes: names of the nodes that ran for it, in their order: its operators, and the
            reordering between the factors.
        computes: what each of its operators computes, with all that was fused in
            (``Conv+Add+Relu``).
        seconds: sum of the nodes' times; 0 where none was seen, since a provider compiled it.
        mad: median absolute deviation of the sum over the runs, in seconds.
        share: ``seconds`` relative to all nodes.
        reordering_seconds: what of ``seconds`` the reordering between its factors takes.
        macs: multiply-adds; None if unknown.
    """

    name: str
    nodes: tuple[str, ...]
    computes: tuple[str, ...]
    seconds: float
    mad: float
    share: float
    reordering_seconds: float
    macs: int | None

    @property
    def is_measured(self) -> bool:
        """Whether any of its nodes was seen."""
        return bool(self.nodes)


@dataclass(frozen=True)
class OtherTime:
    """What all nodes of one operator cost that belong to no layer of the plan.

    Attributes:
        kind: ``reordering`` for the layout of tensors, where that is not between factors;
            ``copying`` between devices; ``other`` for all that is in the file itself.
        operator: the operator.
        nodes: names of the nodes, in the order in which they ran.
        seconds: sum of their times.
        mad: median absolute deviation of the sum over the runs, in seconds.
        share: ``seconds`` relative to all nodes.
    """

    kind: Kind
    operator: str
    nodes: tuple[str, ...]
    seconds: float
    mad: float
    share: float


@dataclass(frozen=True)
class Attribution:
    """A profile folded onto a plan; its rows add up to the time of all nodes.

    Attributes:
        model: what the network is called in messages: its path.
        runs: number of runs behind each time.
        wall_seconds: median wall time of a run under the profiler.
        layers: they, in the order of the plan.
        others: all else, in the order in which it first ran.
    """

    model: str
    runs: int
    wall_seconds: float
    layers: tuple[LayerTime, ...]
    others: tuple[OtherTime, ...]

    @property
    def seconds(self) -> float:
        """Time of all nodes."""
        rows: tuple[LayerTime | OtherTime, ...] = self.layers + self.others
        return sum(row.seconds for row in rows)

    @property
    def coverage(self) -> float:
        """Time of all nodes, relative to the wall time; 0 if that is too short to tell."""
        return self.seconds / self.wall_seconds if self.wall_seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the rows as JSON-ready data, the totals first."""
        return {"seconds": self.seconds, "coverage": self.coverage} | asdict(self)


def attribute(profile: Profile, model: Path, plan: Plan | None = None) -> Attribution:
    """Fold a profile onto the layers of a plan.

    Args:
        profile: the profile of ``model``.
        model: the ONNX file: the network that the plan describes, or that with none of its
            layers rewritten.
        plan: the plan; None for a row a layer of the file.

    Raises:
        PlanError: the plan belongs to another network.
        ModelError: the file can't be read.
        MissingDependencyError: the package onnx is not installed.
    """
    matching = match_nodes(profile, model)
    layers = assign_layers(matching.products, plan, profile.model)
    executed_by_product = {e.product: i for i, e in enumerate(matching.executed)}
    taken: set[int] = set()
    rows = []
    for name, products in layers.items():
        own = sorted(executed_by_product[p] for p in products if p in executed_by_product)
        inside = between(matching.executed, own)
        taken.update(own, inside)
        rows.append(_layer_time(profile, matching, name, products, own=own, inside=inside))
    groups: dict[tuple[Kind, str], list[int]] = defaultdict(list)
    for index, executed in enumerate(matching.executed):
        if index not in taken:
            groups[_kind(executed), executed.time.operator].append(index)
    others = tuple(
        OtherTime(kind, operator, **_times(profile, indices))
        for (kind, operator), indices in groups.items()
    )
    return Attribution(profile.model, profile.runs, profile.wall_seconds, tuple(rows), others)


def _times(profile: Profile, indices: Sequence[int]) -> dict[str, Any]:
    """Return the sums over some of the nodes, as the two kinds of rows have them."""
    nodes = [profile.nodes[index] for index in indices]
    seconds = sum((node.seconds for node in nodes), 0.0)
    sums = sum((np.array(node.samples) for node in nodes), np.zeros(profile.runs))
    return {
        "nodes": tuple(node.name for node in nodes),
        "seconds": seconds,
        "mad": summarize(sums).mad,
        "share": seconds / profile.node_seconds if profile.node_seconds else 0.0,
    }


def _layer_time(
    profile: Profile,
    matching: Matching,
    name: str,
    products: Sequence[int],
    *,
    own: Sequence[int],
    inside: Sequence[int],
) -> LayerTime:
    costs = [matching.products[index].cost for index in products]
    return LayerTime(
        name=name,
        computes=tuple(_computes(matching.executed[index]) for index in own),
        reordering_seconds=sum((profile.nodes[index].seconds for index in inside), 0.0),
        macs=None if None in costs else sum(cost.macs for cost in costs if cost),
        **_times(profile, sorted([*own, *inside])),
    )


def _computes(executed: Executed) -> str:
    return executed.node.computes if executed.node else executed.time.operator


def _kind(executed: Executed) -> Kind:
    if executed.is_reordering:
        return "reordering"
    return "copying" if executed.time.operator in _COPYING else "other"


def between(executed: Sequence[Executed], own: Sequence[int]) -> list[int]:
    """Return the nodes that only change the layout of what one of ``own`` hands to another."""
    producers = {
        name: index
        for index, ran in enumerate(executed)
        if ran.node is not None
        for name in ran.node.outputs
    }
    inside = []
    for consumer in own:
        path: list[int] = []
        node = executed[consumer].node
        while node is not None and (producer := producers.get(node.inputs[0])) is not None:
            if producer in own:
                inside += path
            if not executed[producer].is_reordering:
                break
            path.append(producer)
            node = executed[producer].node
    return inside
