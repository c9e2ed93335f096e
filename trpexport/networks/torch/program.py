"""A program of ``torch.export`` as a network of modules, so that its layers can be rewritten.

An exported program knows operators and parameters, and no modules any more. Where a parameter
``block.conv.weight`` goes into a convolution or a matrix product and nowhere else, a module of the
name ``block.conv`` computes that again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from trpexport.inputs import INPUT, Inputs, input_of_array

_aten = torch.ops.aten
_CONVOLUTIONS: Mapping[Any, type[nn.Module]] = {
    **{_aten.conv1d.default: nn.Conv1d, _aten.conv1d.padding: nn.Conv1d},
    **{_aten.conv2d.default: nn.Conv2d, _aten.conv2d.padding: nn.Conv2d},
    **{_aten.conv3d.default: nn.Conv3d, _aten.conv3d.padding: nn.Conv3d},
}
_TRANSPOSED: Mapping[Any, type[nn.Module]] = {
    _aten.conv_transpose1d.default: nn.ConvTranspose1d,
    _aten.conv_transpose2d.input: nn.ConvTranspose2d,
    _aten.conv_transpose3d.input: nn.ConvTranspose3d,
}
_ARGUMENTS = ("stride", "padding", "dilation", "groups")
_TRANSPOSED_ARGUMENTS = ("stride", "padding", "output_padding", "groups", "dilation")


def network_of(program: ExportedProgram) -> nn.Module:
    """Return the network that a program is, its convolutions and matrix products as modules.

    A parameter that is used otherwise as well, or in two ways, stays a parameter.
    """
    network = program.module(check_guards=False)
    assert isinstance(network, fx.GraphModule)
    for name, uses in _uses_of_weights(network.graph).items():
        module = _module(network, name, uses)
        if module is not None:
            for node in uses:
                with network.graph.inserting_before(node):
                    called = network.graph.call_module(name, (node.args[0],))
                called.meta = dict(node.meta)
                node.replace_all_uses_with(called)
                network.graph.erase_node(node)
            network.set_submodule(name, module)
    network.graph.eliminate_dead_code()
    network.recompile()
    # They refuse any mode: an exported program has but the one that it was exported in.
    for method in ("train", "eval"):
        vars(network).pop(method, None)
    for module in network.modules():
        module.training = False
    return network


def inputs_of(program: ExportedProgram) -> Inputs | None:
    """Return what a program takes, as the example says that it was exported with; None without."""
    if program.example_inputs is None:
        return None
    args, keywords = program.example_inputs
    names = program.graph_signature.user_inputs
    given = dict(zip(names, (*args, *keywords.values()), strict=False)) | dict(keywords)
    tensors = {name: x for name, x in given.items() if isinstance(x, torch.Tensor)}
    if len(tensors) != len(args) + len(keywords):  # some are no tensors
        return None
    if len(args) == len(tensors) == 1:
        tensors = {INPUT: args[0]}
    return Inputs({name: input_of_array(x.detach().numpy()) for name, x in tensors.items()})


def _uses_of_weights(graph: fx.Graph) -> dict[str, list[fx.Node]]:
    """Return by the name of a module the operators that its weight goes into, and nothing else."""
    found: dict[str, list[fx.Node]] = {}
    refused: set[str] = set()
    for read in graph.find_nodes(op="get_attr"):
        name, _, attribute = str(read.target).rpartition(".")
        for user in read.users:
            place = {"weight": 1, "bias": 2}.get(attribute)
            is_own = place is not None and _argument(user, place, attribute) is read
            if not (name and is_own and user.target in (*_MAKERS,)):
                refused.add(name)
            elif user not in found.setdefault(name, []):
                found[name].append(user)
    return {name: uses for name, uses in found.items() if name not in refused}


def _module(network: fx.GraphModule, name: str, uses: Sequence[fx.Node]) -> nn.Module | None:
    """Return a module that computes each of some uses of a weight; None where they differ."""
    holder = network.get_submodule(name)
    held = dict(holder.named_parameters(recurse=False))
    settings = [_settings(node) for node in uses]
    if "weight" not in held or any(holder.children()) or any(holder.buffers()):
        return None
    if any(each != settings[0] for each in settings) or settings[0] is None:
        return None
    module = _MAKERS[uses[0].target](held["weight"], settings[0])
    if held.keys() != dict(module.named_parameters()).keys():
        return None
    for parameter, tensor in held.items():
        module.register_parameter(parameter, nn.Parameter(tensor.detach()))
    return module


def _settings(node: fx.Node) -> dict[str, Any] | None:
    """Return the settings of an operator; None where something in them is computed."""
    has_bias = _argument(node, 2, "bias") is not None
    names = _TRANSPOSED_ARGUMENTS if node.target in _TRANSPOSED else _ARGUMENTS
    found: dict[str, Any] = {"target": node.target, "bias": has_bias}
    if node.target is not _aten.linear.default:
        for place, argument in enumerate(names, start=3):
            value = _argument(node, place, argument)
            if value is not None:
                found[argument] = tuple(value) if isinstance(value, list | tuple) else value
    return None if any(isinstance(value, fx.Node) for value in found.values()) else found


def _argument(node: fx.Node, place: int, name: str) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name)


def _convolution(weight: torch.Tensor, settings: dict[str, Any]) -> nn.Module:
    groups = settings.get("groups", 1)
    target = settings["target"]
    arguments = {name: value for name, value in settings.items() if name != "target"}
    out, channels, *kernel = weight.shape
    if target in _TRANSPOSED:
        return _TRANSPOSED[target](out, channels * groups, tuple(kernel), **arguments)
    return _CONVOLUTIONS[target](channels * groups, out, tuple(kernel), **arguments)


def _linear(weight: torch.Tensor, settings: dict[str, Any]) -> nn.Module:
    return nn.Linear(weight.shape[1], weight.shape[0], bias=settings["bias"])


_MAKERS: Mapping[Any, Callable[[torch.Tensor, dict[str, Any]], nn.Module]] = {
    **dict.fromkeys((*_CONVOLUTIONS, *_TRANSPOSED), _convolution),
    _aten.linear.default: _linear,
}
