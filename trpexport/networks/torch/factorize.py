"""The rewrite: convolutions become chains of factors, and the dense network they stand for."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from trpexport.errors import PlanError
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.torch.trace import CONVOLUTIONS, Conv, conv_spec, run_example
from trpexport.plan import ConvSpec, LayerPlan, Plan

# What a plan's options say of how its factors were fitted to images.
CALIBRATION = "calibration"


def is_calibrated(plan: Plan) -> bool:
    """Whether the factors of a plan were fitted to outputs, and are no truncations of weights."""
    return CALIBRATION in plan.options


def factorize(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of ``model`` in which each planned convolution is a chain of its factors.

    The factors stand in an ``nn.Sequential`` under the convolution's name, so that a layer
    ``layer1.0.conv1`` becomes ``layer1.0.conv1.0`` and ``layer1.0.conv1.1``, on the device and
    in the dtype of the original.

    Raises:
        PlanError: the plan is for another network, or a weight holds NaN or infinity.
    """
    return _rewrite(model, plan, _factors)


def with_factors(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of ``model`` with the factors of ``plan``, their weights yet to be loaded.

    Raises:
        PlanError: the plan is for another network.
    """

    def chain(original: Conv, layer: LayerPlan) -> nn.Sequential:
        factors = [make_conv(factor).to(original.weight) for factor in layer.factors]
        return nn.Sequential(*factors).train(original.training)

    return _rewrite(model, plan, chain)


def dense_twin(factorized: nn.Module, plan: Plan) -> nn.Module:
    """Return the dense network that a factorized one stands for, by the products of its factors.

    Raises:
        PlanError: the plan is for another network.
    """
    modules = dict(factorized.named_modules())
    replacements: dict[nn.Module, nn.Module] = {}
    for layer in plan.rewritten:
        chain = modules.get(layer.name)
        if not isinstance(chain, nn.Sequential):
            raise PlanError(f"the plan is for another network: {layer.name} is no chain of factors")
        replacements[chain] = dense_conv(chain, layer)
    return _replaced(factorized, replacements)


def merge(factorized: nn.Module, plan: Plan, input_shape: Sequence[int]) -> nn.Module:
    """Return the network as it was before the rewrite, with the kernels that the factors stand for.

    Biases that calibration added are taken off the means of the batch norms behind them, so that
    the network has the parameters of its architecture again.

    Args:
        factorized: the network of factors; it is not changed.
        plan: its plan.
        input_shape: shape of its input, batch first.

    Raises:
        PlanError: the plan is for another network, or no batch norm takes up an added bias.
    """
    network = dense_twin(factorized, plan)
    added = {
        network.get_submodule(layer.name): layer.name
        for layer in plan.rewritten
        if not layer.conv.bias and network.get_submodule(layer.name).bias is not None
    }
    norms = _norms_behind(network, added, input_shape)
    with torch.no_grad():
        for conv, name in added.items():
            if conv not in norms:
                raise PlanError(f"{name} has a bias from calibration and no batch norm behind it")
            mean = norms[conv].running_mean
            if mean is not None:  # a norm without running statistics takes off any bias itself
                mean.sub_(conv.get_parameter("bias"))
            conv.register_parameter("bias", None)
    return network


def _norms_behind(
    model: nn.Module, convs: Iterable[nn.Module], input_shape: Sequence[int]
) -> dict[nn.Module, BatchNorm]:
    """Return the batch norm that takes the output of each convolution, where there is one."""
    outputs: list[tuple[nn.Module, Tensor]] = []
    found: dict[nn.Module, BatchNorm] = {}

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not isinstance(module, BatchNorm):
            outputs.append((module, output))
            return
        found.update({conv: module for conv, given in outputs if given is inputs[0]})

    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    run_example(model, input_shape, dict.fromkeys([*convs, *norms], note))
    return found


def dense_conv(chain: nn.Sequential, layer: LayerPlan) -> Conv:
    """Return the one convolution that a chain of factors stands for, in the factors' dtype.

    It has a bias where the chain ends in one: a calibrated chain does, whatever the original had.
    """
    state = chain.state_dict()
    weight = product(chain, layer)
    bias = f"{len(chain) - 1}.bias"
    conv = make_conv(replace(layer.conv, bias=bias in state)).to(state["0.weight"])
    with torch.no_grad():
        conv.weight.copy_(weight)
        if conv.bias is not None:
            conv.bias.copy_(state[bias])
    return conv.train(chain.training)


def product(chain: nn.Sequential, layer: LayerPlan) -> Tensor:
    """Return the dense kernel that a chain of factors stands for, in float64."""
    assert layer.scheme is not None
    state = chain.state_dict()
    weights = [state[f"{index}.weight"].to(torch.float64) for index in range(len(chain))]
    return SCHEMES[layer.scheme].product(weights, layer.conv)


def truncated_weight(weight: Tensor, layer: LayerPlan) -> Tensor:
    """Return the kernel cut to the planned rank, in float64."""
    assert layer.scheme is not None
    assert layer.rank is not None
    scheme = SCHEMES[layer.scheme]
    return scheme.product(scheme.truncate(weight, layer.conv, layer.rank), layer.conv)


def make_conv(conv: ConvSpec) -> Conv:
    """Return a convolution module with these attributes."""
    make: Any = CONVOLUTIONS[conv.ndim - 1]
    module: Conv = make(
        conv.in_channels,
        conv.out_channels,
        conv.kernel_size,
        stride=conv.stride,
        padding=conv.padding,
        dilation=conv.dilation,
        groups=conv.groups,
        bias=conv.bias,
        padding_mode=conv.padding_mode,
    )
    return module


def _factors(original: Conv, layer: LayerPlan) -> nn.Sequential:
    assert layer.scheme is not None
    assert layer.rank is not None
    scheme = SCHEMES[layer.scheme]
    weights = scheme.truncate(original.weight, layer.conv, layer.rank)
    factors = [make_conv(factor).to(original.weight) for factor in layer.factors]
    with torch.no_grad():
        for factor, values in zip(factors, weights, strict=True):
            factor.weight.copy_(values)
        if original.bias is not None:
            assert factors[-1].bias is not None
            factors[-1].bias.copy_(original.bias)
    return nn.Sequential(*factors).train(original.training)


def _rewrite(
    model: nn.Module, plan: Plan, make: Callable[[Conv, LayerPlan], nn.Module]
) -> nn.Module:
    modules = dict(model.named_modules())
    replacements: dict[nn.Module, nn.Module] = {}
    for layer in plan.rewritten:
        module = modules.get(layer.name)
        if not isinstance(module, CONVOLUTIONS):
            raise PlanError(f"the plan is for another network: it has no convolution {layer.name}")
        if conv_spec(module) != layer.conv:
            raise PlanError(
                f"the plan is for another network: {layer.name} is {layer.conv} in it and "
                f"{conv_spec(module)} in the network"
            )
        replacements[module] = make(module, layer)
    return _replaced(model, replacements)


def _replaced(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Return a copy of ``model`` with modules replaced wherever they stand, shared ones too.

    The replaced modules themselves are not copied.
    """
    memo: dict[int, Any] = {id(old): new for old, new in replacements.items()}
    return copy.deepcopy(model, memo)
