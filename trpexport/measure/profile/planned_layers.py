"""Which layer of a plan each convolution or matrix product of an ONNX file belongs to."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence, Set

from trpexport.errors import PlanError
from trpexport.measure.profile.matching import Product
from trpexport.ops import LinearOp
from trpexport.plan import LayerPlan, Plan
from trpexport.tensors import Shape

_CALL_NUMBER = re.compile(r"_\d+$")


def assign_layers(
    products: Sequence[Product], plan: Plan | None, label: str
) -> dict[str, tuple[int, ...]]:
    """Return the indices of the products that make up each layer, in the file's order.

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
    found: dict[str, list[int]] = defaultdict(list)
    if plan is None:
        for index, product in enumerate(products):
            if product.is_convolution:
                found[product.name].append(index)
        return {name: tuple(indices) for name, indices in found.items()}
    owners = {name: layer.name for layer in plan.layers for name in _module_names(layer)}
    rest: dict[bool, list[int]] = {True: [], False: []}  # by whether they convolve
    for index, product in enumerate(products):
        names = (product.name, module_path(product.node.name))
        layers = [owners[name] for name in names if name in owners]
        (found[layers[0]] if layers else rest[product.is_convolution]).append(index)
    shapes = [product.weight_shape for product in products]
    for layer in plan.layers:
        if layer.name not in found:
            found[layer.name] = _take_next(rest[layer.op.ndim > 0], shapes, layer, label)
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


def _forms(layer: LayerPlan) -> list[list[set[Shape]]]:
    """Return the weights that a layer can have in a file: those of its factors, or the original."""
    return [[_weights(op) for op in ops] for ops in (layer.factors, (layer.op,)) if ops]


def _weights(op: LinearOp) -> set[Shape]:
    """Return the shapes that the weight of an operator can have: MatMul's is transposed."""
    if op.window.transposed:
        return {(op.in_channels, op.out_channels // op.groups, *op.kernel)}
    shape = (op.out_channels, op.in_channels // op.groups, *op.kernel)
    return {shape} if op.ndim else {shape, shape[::-1]}


def _take_next(
    rest: list[int], shapes: Sequence[Shape | None], layer: LayerPlan, label: str
) -> list[int]:
    """Take the products of a layer from those whose names tell nothing.

    Convolutions from their head; of matrix products the first that fit, since attention has others.
    """
    for form in _forms(layer):
        starts = len(rest) - len(form) + 1
        for start in range(min(1, starts) if layer.op.ndim else starts):
            found = rest[start : start + len(form)]
            if all(shapes[i] in known for i, known in zip(found, form, strict=True)):
                del rest[start : start + len(form)]
                return found
    raise PlanError(
        f"the plan is not that of {label}, which has nothing that could be {layer.name}: "
        "give the plan.json of its export"
    )


def _check(layer: LayerPlan, shapes: Iterable[Shape | None], label: str) -> None:
    """Refuse a layer whose weights are not those that the plan says; a call each is as good."""
    found = set(shapes)
    if not any(_is_of(found, form) for form in _forms(layer)):
        raise PlanError(
            f"the plan is not that of {label}, where {layer.name} has other weights than "
            f"{layer.op} or its factors: give the plan.json of its export"
        )


def _is_of(found: Set[Shape | None], form: Sequence[Set[Shape]]) -> bool:
    """Whether shapes are those of a form: each is one of it, and each of it is there."""
    return all(known & found for known in form) and all(
        any(shape in known for known in form) for shape in found
    )
