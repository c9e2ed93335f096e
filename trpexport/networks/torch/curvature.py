"""What an error in a layer's output does to the network's: the metric that factors are fitted in.

To second order the network's squared output error is a quadratic form in a layer's, whose matrix is
Jᵀ J, J the derivative of the network's outputs with respect to the layer's. It is the Gauss-Newton
matrix of that error, restricted here to the channels at one pixel and averaged over pixels, as in
the Kronecker factors of Grosse and Martens ("A Kronecker-factored approximate Fisher matrix for
convolution layers", arXiv 1602.01407). It needs no labels. In it a low-rank pair gives up what the
rest of the network does not look at: behind a batch norm, a ReLU, or the next kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.networks.torch.images import Images
from trpexport.networks.torch.network_error import tensor_leaves
from trpexport.networks.torch.trace import CONVOLUTIONS, Conv, evaluating
from trpexport.plan import ConvSpec

# Images, and random directions of the outputs for each, that the derivative is sampled with.
_IMAGES = 128
_DIRECTIONS = 1
# Of the mean of the diagonal: what these few samples do not show still counts a little.
_FLOOR = 1e-2
_SCALE_FLOOR = 1e-6


def output_metrics(model: nn.Module, images: Images) -> dict[str, Tensor]:
    """Return what counts as error in the output of each convolution of a network.

    The derivative is sampled with random signs s, as the expectation of (Jᵀ s)(Jᵀ s)ᵀ is Jᵀ J
    (Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1990).

    Args:
        model: the network; it is not changed.
        images: some of them are used, whatever their order.

    Returns:
        By layer (groups, O, O), O the output channels of a group, positive definite, in float64.
        Layers whose effect on the outputs can't be derived, or that have none, are missing.
    """
    found: dict[str, Tensor] = {}
    chosen = images.first(_IMAGES)
    generator = torch.Generator().manual_seed(0)

    def signs(output: Tensor) -> Tensor:
        return torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1

    for index in range(chosen.batches):
        try:
            for name, square in _sampled(model, chosen.batch(index), signs):
                found[name] = found.get(name, 0.0) + square
        except RuntimeError:  # an operation without a derivative
            return {}
    return {name: _definite(square) for name, square in found.items() if square.any()}


def scale_metric(scale: Tensor, conv: ConvSpec) -> Tensor:
    """Return a metric in which each channel counts as much as a batch norm lets through.

    Args:
        scale: what the batch norm behind the layer multiplies its channels with.
        conv: the layer.
    """
    weight = scale.to(torch.float64).square().reshape(conv.groups, -1)
    largest = weight.amax(1, keepdim=True)
    weight = torch.where(largest > 0, weight / torch.where(largest > 0, largest, 1.0), 1.0)
    return torch.diag_embed(weight.clamp_min(_SCALE_FLOOR))


def _sampled(
    model: nn.Module, x: Tensor, signs: Callable[[Tensor], Tensor]
) -> list[tuple[str, Tensor]]:
    """Return products of the sampled derivative, summed over pixels, layer by layer."""
    found = []
    with evaluating(model), torch.enable_grad(), _outputs_of_layers(model) as outputs:
        # A copy that is no leaf: a network may begin by working in place.
        leaves = tensor_leaves(model(x.requires_grad_().clone()))
        derivable = [leaf for leaf in leaves if leaf.requires_grad]
        for _ in range(_DIRECTIONS if derivable else 0):
            gradients = torch.autograd.grad(
                derivable,
                [output for _, _, output in outputs],
                [signs(leaf) for leaf in derivable],
                retain_graph=True,
                allow_unused=True,
            )
            for (name, groups, _), gradient in zip(outputs, gradients, strict=True):
                if gradient is not None:
                    rows = gradient.transpose(0, 1).reshape(groups, len(gradient[0]) // groups, -1)
                    found.append((name, (rows @ rows.mT).to(torch.float64)))
    return found


@contextmanager
def _outputs_of_layers(model: nn.Module) -> Iterator[list[tuple[str, int, Tensor]]]:
    """Collect name, groups and output of each call of a convolution that a gradient reaches."""
    found: list[tuple[str, int, Tensor]] = []

    def hook(name: str) -> Callable[[Conv, Any, Tensor], Tensor | None]:
        def keep(module: Conv, _: Any, output: Tensor) -> Tensor | None:
            if not output.requires_grad:
                return None
            found.append((name, module.groups, output))
            return output.clone()  # what follows may overwrite it

        return keep

    handles = [
        module.register_forward_hook(hook(name))
        for name, module in model.named_modules()
        if isinstance(module, CONVOLUTIONS)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _definite(square: Tensor) -> Tensor:
    """Return positive semidefinite matrices, scaled, with a floor under what they count."""
    mean = torch.diagonal(square, dim1=1, dim2=2).mean(1)[:, None, None]
    eye = torch.eye(square.shape[1], dtype=square.dtype, device=square.device)
    return torch.where(mean > 0, square / torch.where(mean > 0, mean, 1.0), eye) + _FLOOR * eye
