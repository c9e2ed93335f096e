"""Do the batch norms of a network get what they recorded? A test of its structure without labels.

A batch norm keeps mean and variance of what it got in training. Weights in a network of another
structure give it something else. What it gets depends on the images as well; so each batch norm
normalises here by what it gets, as in training, and another brightness, contrast or kind of image
does not add up from layer to layer, while a wrong structure shows behind every place of it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from trpexport.networks.torch.running import evaluating

# Fewer values of a channel than this say nothing of their mean and variance.
_MIN_VALUES = 16
_TINY = 1e-12
# A channel can't count for more than this: a dead one would for everything.
_MAX_MISFIT = 3.0


def misfits(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Return how far each batch norm is from what it recorded, channel by channel.

    That is the difference of the means in standard deviations, plus the logarithm of the ratio of
    the variances, without signs: 0 for what was recorded, and at most 3.

    Args:
        model: the network; it is left as it is.
        x: inputs, (images, *input shape).

    Returns:
        By name of the batch norm, in the order in which they ran, (channels,), float64. Those that
        recorded nothing are missing; all are where the network can't run ``x``.
    """
    found: dict[str, Tensor] = {}

    def watch(name: str, norm: _BatchNorm) -> Any:
        def normalise(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
            seen = inputs[0]
            values = seen.numel() // seen.shape[1]
            if values < _MIN_VALUES:
                return None
            assert norm.running_mean is not None
            assert norm.running_var is not None
            # With this momentum they get the statistics of what it is given alone.
            mean, variance = torch.zeros_like(norm.running_mean), torch.zeros_like(norm.running_var)
            normalised = functional.batch_norm(
                seen, mean, variance, norm.weight, norm.bias, training=True, momentum=1.0,
                eps=norm.eps or _TINY,  # training refuses 0
            )  # fmt: skip
            if name not in found:  # one that is used twice recorded both uses
                found[name] = _misfit(norm, mean, variance * ((values - 1) / values))
            return normalised

        return norm.register_forward_hook(normalise)

    handles = [watch(name, norm) for name, norm in model.named_modules() if has_recorded(norm)]
    try:
        with evaluating(model):
            model(x.clone())
    except Exception:  # foreign code, which is run for this alone: there is no witness then
        return {}
    finally:
        for handle in handles:
            handle.remove()
    return found


def has_recorded(module: nn.Module) -> bool:
    """Whether a module is a batch norm that holds other statistics than a fresh one."""
    if not isinstance(module, _BatchNorm):
        return False
    mean, variance = module.running_mean, module.running_var
    if mean is None or variance is None:
        return False
    return bool(mean.any()) or bool((variance != 1).any())


def _misfit(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    recorded = norm.running_var.double() + norm.eps
    distance = (mean.double() - norm.running_mean).abs() / recorded.sqrt()
    distance += ((variance.double() + norm.eps) / recorded).log().abs()
    return distance.nan_to_num(nan=_MAX_MISFIT).clamp_max(_MAX_MISFIT)
