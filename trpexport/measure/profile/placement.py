"""Which provider each node of a network ran on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from trpexport.measure.profile.matching import match_nodes
from trpexport.measure.profile.profile import Profile
from trpexport.runtime.providers import CPU


@dataclass(frozen=True)
class ProviderShare:
    """What ran on one provider.

    Attributes:
        provider: ONNX Runtime's name for it.
        nodes: nodes of the optimized graph; all that a provider has compiled into one counts one.
        node_share: relative to all nodes.
        macs: multiply-adds; None if they are unknown.
        mac_share: relative to all multiply-adds; None if they are unknown, or there are none.
    """

    provider: str
    nodes: int
    node_share: float
    macs: int | None
    mac_share: float | None


@dataclass(frozen=True)
class Placement:
    """Where a network ran.

    Attributes:
        model: what the network is called in messages: its path.
        partitions: number of stretches of nodes that ran one after another on one provider; each
            border between two may copy tensors.
        providers: the providers, the one with most nodes first.
    """

    model: str
    partitions: int
    providers: tuple[ProviderShare, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the placement as JSON-ready data."""
        return asdict(self)


def placement(profile: Profile, model: Path | None = None) -> Placement:
    """Tell where the nodes of a profile ran.

    Args:
        profile: the profile.
        model: its ONNX file, to tell the share of multiply-adds as well; that takes the package
            onnx.

    Raises:
        ModelError: the file can't be read.
        MissingDependencyError: the package onnx is not installed.
    """
    nodes = Counter(node.provider for node in profile.nodes)
    macs = None if model is None else _macs(profile, model)
    total = sum(macs.values()) if macs else 0
    return Placement(
        model=profile.model,
        partitions=len(list(groupby(node.provider for node in profile.nodes))),
        providers=tuple(
            ProviderShare(
                provider=provider,
                nodes=count,
                node_share=count / len(profile.nodes),
                macs=None if macs is None else macs.get(provider, 0),
                mac_share=macs.get(provider, 0) / total if macs and total else None,
            )
            for provider, count in nodes.most_common()
        ),
    )


def _macs(profile: Profile, model: Path) -> Mapping[str, int] | None:
    """Return the multiply-adds on each provider; None if they can't all be told."""
    matching = match_nodes(profile, model)
    providers = {e.product: e.time.provider for e in matching.executed if e.product is not None}
    # What a provider has compiled is seen as one node that bears no name of the file.
    compilers = {node.provider for node in profile.nodes} - {CPU}
    macs: Counter[str] = Counter()
    for index, product in enumerate(matching.products):
        if index not in providers and len(compilers) != 1:
            return None
        if product.cost is None:
            return None
        macs[providers.get(index) or next(iter(compilers))] += product.cost.macs
    return macs
