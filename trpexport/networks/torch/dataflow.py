"""What the tensors of a forward pass follow from, operator by operator."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.operators import OperatorMode
from trpexport.networks.torch.running import evaluating, tensor_leaves

# Operators by which values turn into shapes or into what Python decides on.
_SCALARS = frozenset({"_local_scalar_dense", "is_nonzero", "equal"})
_DECISIONS = _SCALARS | {"nonzero", "masked_select"}


@dataclass(frozen=True)
class _Node:
    """A tensor at some time of a pass.

    Attributes:
        sources: what it was computed from.
        module: whose output it is, if of one.
    """

    sources: frozenset[int]
    module: str | None = None


class Dataflow(OperatorMode):
    """Records what tensors follow from, of the pass that runs within its block.

    What shares memory is taken for one tensor, which may be changed in place: then it follows from
    more than it does, never from less.
    """

    def __init__(self) -> None:
        super().__init__()
        self._nodes: list[_Node] = []
        # The storages are kept: none is freed, and its address given to another tensor.
        self._latest: dict[int, tuple[Any, int]] = {}
        self._running: list[str] = []
        # Where values decide: by which operator, in which modules, and what they follow from.
        self._decisions: list[tuple[str, frozenset[str], frozenset[int]]] = []
        self._outputs: frozenset[int] = frozenset()

    def run(self, operator: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """Run an operator and note what its outputs follow from."""
        sources, name = self._now((args, keywords)), operator.overloadpacket.__name__
        if sources and name in _DECISIONS:
            self._decisions.append((name, frozenset(self._running), sources))
        output = operator(*args, **keywords)
        if sources:
            self._put(output, _Node(sources))
        return output

    def begin(self, inputs: Any) -> None:
        """Note what the network is called with, where that is to be followed as well."""
        self._put(inputs, _Node(frozenset()))

    def enter(self, module: str) -> None:
        """Note that a module begins to run."""
        self._running.append(module)

    def leave(self, module: str, output: Any) -> None:
        """Note what a module returned."""
        while self._running.pop() != module:  # one in it raised what it caught
            pass
        self._put(output, _Node(self._now(output), module))

    def end(self, outputs: Any) -> None:
        """Note what the network returned, and let go of all tensors."""
        self._outputs = self._now(outputs)
        self._latest.clear()

    def needed(self, skipped: Collection[str]) -> tuple[frozenset[str], frozenset[str]]:
        """Return whose outputs the rest of a pass follows from, if some modules do not run.

        Args:
            skipped: the modules; those in them do not run either.

        Returns:
            Those of them that the network's outputs follow from, and those by whose outputs is
            decided what runs.
        """
        decided = (sources for _, within, sources in self._decisions if within.isdisjoint(skipped))
        return self._origins(self._outputs, skipped), self._origins(
            frozenset().union(*decided), skipped
        )

    @property
    def reads_values(self) -> bool:
        """Whether Python got to know a number that follows from what is followed."""
        return any(operator in _SCALARS for operator, *_ in self._decisions)

    def _origins(self, nodes: Iterable[int], skipped: Collection[str]) -> frozenset[str]:
        found, seen, open_ = set(), set(nodes), list(nodes)
        while open_:
            node = self._nodes[open_.pop()]
            if node.module in skipped:
                found.add(node.module)
                continue
            new = node.sources - seen
            seen |= new
            open_ += new
        return frozenset(name for name in found if name is not None)

    def _now(self, values: Any) -> frozenset[int]:
        places = (tensor.untyped_storage().data_ptr() for tensor in tensor_leaves(values))
        return frozenset(self._latest[place][1] for place in places if place in self._latest)

    def _put(self, values: Any, node: _Node) -> None:
        self._nodes.append(node)
        for tensor in tensor_leaves(values):
            storage = tensor.untyped_storage()
            self._latest[storage.data_ptr()] = storage, len(self._nodes) - 1


def decides_by_values(model: nn.Module, x: Tensor | Arguments) -> bool:
    """Whether Python decides, or computes, by values that depend on a network's inputs.

    Such a network can't be told by what one input makes it do.
    """
    flow, x = Dataflow(), Arguments.of(x).clone()
    flow.begin(list(x.tensors.values()))
    with evaluating(model), flow:
        x.call(model)
    return flow.reads_values
