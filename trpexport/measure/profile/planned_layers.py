"""Which layer of a plan each convolution of an ONNX file belongs to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from trpexport.errors import PlanError
from trpexport.measure.profile.matching import Product
from trpexport.ops import LinearOp
from trpexport.plan import LayerPlan, Plan
from trpexport.tensors import Shape

_CALL_NUMBER = re.compile(r"_\d+$")


def assign_layers(
    products: Sequence[Product], plan: Plan | None, label: str
) -> dict[str, tuple[int, ...]]:
    """Return the indices of the convolutions that make up each layer, in the file's order.

    A layer is found by the name of its weight (``<layer>.weight``, ``<layer>.0.weight``), by the
    module that the name of its node tells, else by its shape and place among the rest.

    Args:
        products: what multiplies and adds in the file.
        plan: the plan of the network, of which the file may also be the original; None to group
            the convolutions by their own names.
        label: what the file is called in messages.

    Raises:
        PlanError: the plan belongs to another network.
    """
    convolutions = [i for i, product in enumerate(products) if product.is_convolution]
    found: dict[str, list[int]] = defaultdict(list)
    if plan is None:
        for index in convolutions:
            found[products[index].name].append(index)
        return {name: tuple(indices) for name, indices in found.items()}
    owners = {name: layer.name for layer in plan.layers for name in _module_names(layer)}
    rest: list[int] = []
    for index in convolutions:
        names = (products[index].name, module_path(products[index].node.name))
        layers = [owners[name] for name in names if name in owners]
        (found[layers[0]] if layers else rest).append(index)
    shapes = [product.weight_shape for product in products]
    for layer in plan.layers:
        if layer.name not in found:
            found[layer.name] = _take_next(rest, shapes, layer, label)
        _check(layer, [shapes[index] for index in found[layer.name]], label)
    return {layer.name: tuple(found[layer.name]) for layer in plan.layers}


def module_path(node_name: str) -> str:
    """Return the module's dotted name in a node's name as the TorchScript exporter makes it.

    That exporter folds batch normalisation into weights with names of its own, so that only the
    node tells: ``/layer1/layer1.0/conv1/conv1.0/Conv`` is the module ``layer1.0.conv1.0``.
    """
    path: list[str] = []
    for part in node_name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):
            path.pop()
        path.append(_CALL_NUMBER.sub("", part))
    return ".".join(path)


def _module_names(layer: LayerPlan) -> list[str]:
    return [layer.name, *(f"{layer.name}.{index}" for index in range(len(layer.factors)))]


def _forms(layer: LayerPlan) -> list[list[Shape]]:
    """Return the weights that a layer can have in a file: those of its factors, or the original."""
    return [[_weight(spec) for spec in specs] for specs in (layer.factors, (layer.op,)) if specs]


def _weight(conv: LinearOp) -> Shape:
    return (conv.out_channels, conv.in_channels // conv.groups, *conv.kernel)


def _take_next(
    rest: list[int], shapes: Sequence[Shape | None], layer: LayerPlan, label: str
) -> list[int]:
    """Take the convolutions of a layer from the head of those whose names tell nothing."""
    for form in _forms(layer):
        head = rest[: len(form)]
        if [shapes[index] for index in head] == form:
            del rest[: len(form)]
            return head
    raise PlanError(
        f"the plan is not that of {label}, which has no convolution that could be {layer.name}: "
        "give the plan.json of its export"
    )


def _check(layer: LayerPlan, shapes: Iterable[Shape | None], label: str) -> None:
    """Refuse a layer whose weights are not those that the plan says; a call each is as good."""
    found = set(shapes)
    if found not in [set(form) for form in _forms(layer)]:
        raise PlanError(
            f"the plan is not that of {label}, where {layer.name} has other weights than "
            f"{layer.op} or its factors: give the plan.json of its export"
        )
