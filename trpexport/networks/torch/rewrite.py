"""The rewrite of modules: linear layers become chains of factors, and chains layers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from trpexport.errors import PlanError
from trpexport.inputs import InputsLike
from trpexport.lowrank.chain import Chain
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.torch.copying import copied
from trpexport.networks.torch.modules import (
    LAYERS,
    FactorChain,
    LinearLayer,
    computes_otherwise,
    is_learned,
    make_layer,
    op_of,
    set_kernel,
)
from trpexport.networks.torch.running import (
    argument,
    evaluating,
    example_input,
    run_example,
    tensor_leaves,
)
from trpexport.ops import LinearOp
from trpexport.plan import LayerPlan, Plan

# How far a merged network may be from its factors, relative to the largest output.
_MERGE_TOLERANCE = 1e-3


def rewrite(model: nn.Module, chains: Mapping[str, Chain]) -> nn.Module:
    """Return a copy of ``model`` with chains in the place of layers.

    The factors stand in a :class:`FactorChain` under the layer's name, so that a layer
    ``layer1.0.conv1`` becomes ``layer1.0.conv1.0`` and ``layer1.0.conv1.1``, on the device and in
    the dtype of the original. Chains of the same kernels share their parameters.

    Raises:
        PlanError: a chain is for another network.
    """
    replacements: dict[nn.Module, nn.Module] = {}
    owners: dict[int, LinearLayer] = {}
    for name, chain in chains.items():
        module = linear_layer(model, name, chain.op)
        replacements[module] = found = FactorChain.of(chain, module)
        for factor, kernel in zip(found.factors, chain.kernels, strict=True):
            factor.weight = owners.setdefault(id(kernel), factor).weight
    return copied(model, replacements)


def with_factors(model: nn.Module, plan: Plan) -> nn.Module:
    """Return a copy of ``model`` with the factors of ``plan``, their weights yet to be loaded.

    Raises:
        PlanError: the plan is for another network, or its factors are not those of its schemes.
    """
    replacements: dict[nn.Module, nn.Module] = {}
    for layer in plan.rewritten:
        module = linear_layer(model, layer.name, layer.op)
        scheme = _checked_factors(layer)
        replacements[module] = FactorChain.empty(layer.op, scheme, layer.factors, module)
    network = copied(model, replacements)
    for layer in plan.rewritten:
        if layer.shares is not None:
            modules = dict(network.named_modules())
            owner, own = modules.get(layer.shares), modules.get(layer.name)
            if isinstance(owner, FactorChain) and isinstance(own, FactorChain):
                if [factor.weight.shape for factor in own] != [f.weight.shape for f in owner]:
                    raise PlanError(f"{layer.name} can't share the weights of {layer.shares}")
                for factor, first in zip(own, owner, strict=True):
                    factor.weight = first.weight
    return network


def dense(model: nn.Module) -> nn.Module:
    """Return the dense network that a factorized one stands for, by the products of its factors."""
    chains = [module for module in model.modules() if isinstance(module, FactorChain)]
    return copied(model, {chain: dense_layer(chain) for chain in chains})


def dense_layer(chain: FactorChain) -> LinearLayer:
    """Return the one layer that a chain of factors stands for, in the factors' dtype.

    It has a bias where the chain ends in one: a calibrated chain does, whatever the original had.
    """
    like, bias = chain[0].get_parameter("weight"), chain.bias
    found = make_layer(replace(chain.op, bias=bias is not None)).to(like)
    set_kernel(found, chain.chain.product)
    if found.bias is not None and bias is not None:
        found.bias.data.copy_(bias)
    return found.train(chain.training).requires_grad_(like.requires_grad)


def merge(factorized: nn.Module, inputs: InputsLike) -> nn.Module:
    """Return the network as it was before the rewrite, with the kernels that the factors stand for.

    Biases that calibration added are taken off the means of the batch norms behind them, so that
    the network has the parameters of its architecture again.

    Args:
        factorized: the network of factors; it is not changed.
        inputs: what it takes, or the shape of its only input, batch first.

    Raises:
        PlanError: an added bias goes elsewhere than to batch norms.
    """
    biased = dense(factorized)
    added = [
        name
        for name, module in factorized.named_modules()
        if isinstance(module, FactorChain) and module.bias is not None and not module.op.bias
    ]
    if not added:
        return biased
    network = copied(biased)
    for name in added:
        network.get_submodule(name).register_parameter("bias", None)
    _shift_norms(network, biased, inputs)
    if not _same(factorized, network, inputs):
        raise PlanError(
            f"the biases that calibration added ({', '.join(added)}) can't be taken back: the "
            "output of a layer goes elsewhere than to batch norms; leave that layer out, or keep "
            "the factors"
        )
    return network


def _shift_norms(network: nn.Module, biased: nn.Module, inputs: InputsLike) -> None:
    """Move the means of batch norms by what the biases of ``biased`` are worth at their inputs.

    A bias reaches a norm right behind its convolution, or several of them along the sums of a
    residual network, whose shortcuts carry it on.
    """
    taken: dict[str, Tensor] = {}

    def take(
        name: str, _: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], __: Tensor
    ) -> None:
        taken.setdefault(name, argument(args, keywords))

    def shift(name: str, norm: BatchNorm, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        with_biases = taken.pop(name, None)  # one that runs twice is moved once
        if with_biases is not None and norm.running_mean is not None:
            change = (argument(args, keywords) - with_biases).double()
            norm.running_mean += change.mean([0, *range(2, change.ndim)])

    run_example(biased, inputs, {norm: partial(take, name) for name, norm in _norms(biased)})
    with ExitStack() as stack:
        for name, norm in _norms(network):
            hook = norm.register_forward_pre_hook(partial(shift, name), with_kwargs=True)
            stack.callback(hook.remove)
        run_example(network, inputs, {})


def _norms(model: nn.Module) -> list[tuple[str, BatchNorm]]:
    return [(name, one) for name, one in model.named_modules() if isinstance(one, BatchNorm)]


def _same(one: nn.Module, other: nn.Module, inputs: InputsLike) -> bool:
    x = example_input(one, inputs)
    with evaluating(one, other):
        pairs = zip(tensor_leaves(x.call(one)), tensor_leaves(x.call(other)), strict=True)
        return all(
            float((a - b).abs().max()) <= _MERGE_TOLERANCE * float(a.abs().max()) for a, b in pairs
        )


def linear_layer(model: nn.Module, name: str, op: LinearOp) -> LinearLayer:
    """Return the layer ``name`` of a network.

    Raises:
        PlanError: it has none of that name, or it is another one.
    """
    module = dict(model.named_modules()).get(name)
    if not isinstance(module, LAYERS):
        raise PlanError(f"the plan is for another network: it has no layer {name}")
    if not _is(module, op):
        raise PlanError(
            f"the plan is for another network: {name} is {op} in it and {op_of(module)} in the "
            "network"
        )
    return module


def _is(module: LinearLayer, op: LinearOp) -> bool:
    """Whether a layer is an operator; how it pads, one with a forward of its own knows alone."""
    found = op_of(module)
    if computes_otherwise(module) and not is_learned(module):
        window = replace(found.window, pads=op.window.pads, pad_mode=op.window.pad_mode)
        found = replace(found, window=window)
    return found == op


def _checked_factors(layer: LayerPlan) -> str:
    """Return the scheme of a rewritten layer, whose factors must be those that it makes."""
    scheme = SCHEMES[layer.scheme or ""]
    reason = scheme.unsupported_reason(layer.op)
    full = 0 if reason else scheme.full_rank(layer.op)
    if layer.rank is None or not 1 <= layer.rank <= full:
        raise PlanError(f"{layer.name} can't have rank {layer.rank} under {scheme.name}")
    *first, last = scheme.factor_ops(layer.op, layer.rank)
    # Calibration gives the last one a bias, whatever the layer had.
    if layer.factors not in ((*first, last), (*first, replace(last, bias=True))):
        raise PlanError(
            f"{layer.name} has factors that {scheme.name} does not make: make the plan again"
        )
    return scheme.name
