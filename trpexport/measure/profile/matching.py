"""Which convolution or matrix product of a file each node is that ONNX Runtime ran.

ONNX Runtime rewrites a graph before it runs it. What that leaves of the names, at each level of
optimization:

=========================  ====================================================================
level, rewrite             names
=========================  ====================================================================
basic: Conv + BatchNorm    the node's stays, the output's is BatchNorm's; the weight becomes
                           ``ConvBnFusion_W_<weight>``
extended: Conv + Relu;     FusedConv: the node's stays, the output's is that of the last node
all: Conv + Add + Relu     that was fused in
extended: Gemm + Relu      FusedGemm: ``fused <name>``
all: blocked layout        the node becomes ``<output>_nchwc``, the output that of the activation
                           fused in (an Add fused in later leaves it); weights and outputs become
                           ``reorder_token_<n>``
all: quantized, channels   the node becomes ``<name>_token_<n>``, between inserted Transpose nodes
last
a node without a name      ``<operator>_<index>`` in the trace only
=========================  ====================================================================

The numbers of tokens differ from one session to the next, the order in which nodes run differs
from the file's and, with branches, from the optimized graph's: neither can be relied on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trpexport.cost import Cost, OperatorCost
from trpexport.measure.profile.optimized_graph import OptimizedNode, link, read_optimized
from trpexport.measure.profile.profile import NodeTime, Profile
from trpexport.onnxfile.counting import count_onnx
from trpexport.onnxfile.graph import Graph, Node, read_graph
from trpexport.onnxfile.operators import COUNTED, operator_text
from trpexport.tensors import Shape

_PRODUCT = re.compile("Conv|Gemm|MatMul")
_BLOCKED = "_nchwc"
_TOKEN = re.compile(r"_token_\d+$")  # what makes a name unique
_FOLDED = re.compile(r"^Conv\w+Fusion_W_")
_FUSED_GEMM = "fused "
_REORDERING = frozenset({"ReorderInput", "ReorderOutput"})


@dataclass(frozen=True)
class Product:
    """A convolution or matrix product of a file.

    Attributes:
        node: the node.
        weight_shape: shape of its weight; None if it is unknown.
        cost: what it costs; None if some shape is unknown.
    """

    node: Node
    weight_shape: Shape | None
    cost: OperatorCost | None

    @property
    def name(self) -> str:
        """Its module's dotted name where the weight bears it, else the node's name."""
        return self.cost.name if self.cost else self.node.name

    @property
    def is_convolution(self) -> bool:
        """Whether it convolves."""
        return "Conv" in self.node.operator[1]


@dataclass(frozen=True)
class Executed:
    """A node that ran.

    Attributes:
        time: what it costs.
        node: the node of the optimized graph; None if that graph is unknown.
        product: index of the product that it computes; None if it computes none.
        is_reordering: whether ONNX Runtime inserted it to change the layout of a tensor.
    """

    time: NodeTime
    node: OptimizedNode | None
    product: int | None
    is_reordering: bool


@dataclass(frozen=True)
class Matching:
    """What ran, and what of the file it computed.

    Attributes:
        products: the products of the file, in its order.
        executed: the nodes that ran, in the order in which they ran.
    """

    products: tuple[Product, ...]
    executed: tuple[Executed, ...]


def match_nodes(profile: Profile, model: Path) -> Matching:
    """Find the product of the file that each executed node computes.

    Args:
        profile: the profile of ``model``.
        model: the ONNX file.

    Raises:
        ModelError: the file can't be read.
        MissingDependencyError: the package onnx is not installed.
    """
    graph = read_graph(model, profile.shapes)
    products = _products(graph, count_onnx(model, shapes=profile.shapes))
    optimized = read_optimized(profile.optimized) if profile.optimized else ()
    nodes = link(profile.nodes, optimized)
    found = _identify(profile.nodes, nodes, _Index(graph, products))
    names = {node.name for node in graph.nodes}
    return Matching(
        products,
        tuple(
            Executed(time, node, product, _is_reordering(time, names))
            for time, node, product in zip(profile.nodes, nodes, found, strict=True)
        ),
    )


def _is_reordering(time: NodeTime, file_names: set[str]) -> bool:
    inserted = time.operator == "Transpose" and time.name not in file_names
    return inserted or time.operator in _REORDERING


def _products(graph: Graph, cost: Cost) -> tuple[Product, ...]:
    """Pair the nodes that multiply and add with their costs, of which some may be unknown."""
    costs = list(cost.layers)
    products = []
    for node in graph.nodes:
        counted = COUNTED.get(node.operator)
        if counted is None or len(node.inputs) <= counted.weight:
            continue
        key = operator_text(node.operator), graph.shape(node.outputs[0])
        known = costs and (costs[0].operator, costs[0].output_shape) == key
        weight = graph.shape(node.inputs[counted.weight])
        products.append(Product(node, weight, costs.pop(0) if known else None))
    return tuple(products)


class _Index:
    """The products of a file by all that can lead to them.

    Attributes:
        names: product by its node's name, where no other has that name.
        weights: product by the name of its weight, where no other shares it.
        tensors: product by the name of each tensor that is made of its output alone.
    """

    def __init__(self, graph: Graph, products: Sequence[Product]) -> None:
        self.products = products
        self.names = _unique((p.node.name, i) for i, p in enumerate(products) if p.node.name)
        self.weights = _unique(
            (p.node.inputs[COUNTED[p.node.operator].weight], i) for i, p in enumerate(products)
        )
        own = {p.node.outputs[0]: i for i, p in enumerate(products)}
        self.tensors: dict[str, int] = {}
        for node in graph.nodes:
            origins = {self.tensors[name] for name in node.inputs if name in self.tensors}
            if node.outputs[0] in own:
                origins = {own[node.outputs[0]]}
            if len(origins) == 1:
                self.tensors |= dict.fromkeys(node.outputs, origins.pop())

    def by_names(self, time: NodeTime, node: OptimizedNode | None) -> list[int]:
        """Return the products that the names of an executed node lead to, the surest first."""
        name = _TOKEN.sub("", time.name)
        outputs = [name.removesuffix(_BLOCKED)] if name.endswith(_BLOCKED) else []
        outputs += node.outputs if node else []
        weights = [_FOLDED.sub("", name) for name in node.inputs] if node else []
        keys = [
            (self.names, [time.name, name, name.removeprefix(_FUSED_GEMM)]),
            (self.tensors, outputs),
            (self.weights, weights),
        ]
        return [index[name] for index, names in keys for name in names if name in index]

    def by_shape(self, time: NodeTime) -> list[int]:
        """Return the products whose weight an executed node may have had."""
        return [
            i
            for i, product in enumerate(self.products)
            if product.weight_shape is not None
            and product.is_convolution == ("Conv" in time.operator)
            and any(_holds(shape, product.weight_shape) for shape in time.input_shapes)
        ]


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    pairs = list(pairs)
    counts = Counter(name for name, _ in pairs)
    return {name: index for name, index in pairs if counts[name] == 1}


def _holds(shape: Shape, weight: Shape) -> bool:
    """Whether ``shape`` is ``weight``, with or without channels to fill its last block."""
    return (
        len(shape) == len(weight)
        and shape[2:] == weight[2:]
        and all(size >= least for size, least in zip(shape, weight, strict=True))
    )


def _identify(
    times: Sequence[NodeTime], nodes: Sequence[OptimizedNode | None], index: _Index
) -> list[int | None]:
    """Return the product of each executed node: by its names, else by the order of the shapes."""
    found: list[int | None] = [None] * len(times)
    free = set(range(len(index.products)))
    candidates = [i for i, time in enumerate(times) if _PRODUCT.search(time.operator)]
    for use_names in (True, False):
        for i in candidates:
            if found[i] is not None:
                continue
            leads = index.by_names(times[i], nodes[i]) if use_names else index.by_shape(times[i])
            product = next((p for p in leads if p in free), None)
            if product is not None:
                free.remove(product)
            found[i] = product
    return found
