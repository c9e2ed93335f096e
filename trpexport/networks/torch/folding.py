"""Kernels that are computed anew at each pass, by a norm or a mask, become plain parameters."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from trpexport.networks.torch.modules import LAYERS, LinearLayer
from trpexport.networks.torch.running import evaluating


def fold(model: nn.Module, among: Container[str] | None = None) -> tuple[str, ...]:
    """Make parameters of the layers' kernels that a norm, a mask or the like computes.

    That is exact in evaluation mode, in which they are the same at each pass.

    Args:
        model: the network; it is changed.
        among: names of the layers to look at; all where it is None.

    Returns:
        Names of the layers that were changed.
    """
    with evaluating(model):
        return tuple(
            name
            for name, module in list(model.named_modules())
            if isinstance(module, LAYERS)
            and (among is None or name in among)
            and (_fold_hooks(module) | _fold_parametrizations(module))
        )


def _fold_hooks(module: LinearLayer) -> bool:
    hooks = list(module._forward_pre_hooks.values())
    for hook in hooks:
        if isinstance(hook, WeightNorm):
            remove_weight_norm(module, hook.name)
        elif isinstance(hook, SpectralNorm):
            remove_spectral_norm(module, hook.name)
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(module, hook._tensor_name)  # type: ignore[no-untyped-call]
    return len(module._forward_pre_hooks) < len(hooks)


def _fold_parametrizations(module: LinearLayer) -> bool:
    if not parametrize.is_parametrized(module):
        return False
    assert isinstance(module.parametrizations, nn.ModuleDict)
    # Removing takes the property off the class, which is that of the network that was copied too.
    kind = type(module)
    module.__class__ = type(kind.__name__, kind.__bases__, dict(vars(kind)))
    found = False
    for name in list(module.parametrizations):
        if torch.equal(getattr(module, name), getattr(module, name)):  # it may draw anew
            parametrize.remove_parametrizations(module, name, leave_parametrized=True)
            found = True
    return found
