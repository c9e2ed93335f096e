"""What an error in a layer's output does to the network's: the metric that factors are fitted in.

To second order the network's squared output error is a quadratic form in a layer's, whose matrix is
Jᵀ J, J the derivative of the network's outputs with respect to the layer's. It is the Gauss-Newton
matrix of that error, restricted here to the channels at one pixel and averaged over pixels, as in
the Kronecker factors of Grosse and Martens ("A Kronecker-factored approximate Fisher matrix for
convolution layers", arXiv 1602.01407). It needs no labels. In it a low-rank chain gives up what the
rest of the network does not look at: behind a batch norm, a ReLU, or the next kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from trpexport.lowrank.fit.narrowing import is_fitted
from trpexport.lowrank.products import row_products
from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.modules import LAYERS, LinearLayer, by_channel, op_of
from trpexport.networks.torch.outputs import named_tensors, picked
from trpexport.networks.torch.running import evaluating, noting
from trpexport.ops import LinearOp

# Random directions of the outputs for each image that the derivative is sampled with.
_DIRECTIONS = 1
_BYTES = 8  # of a number of a metric
# Of the mean of the diagonal: what these few samples do not show still counts a little.
_FLOOR = 1e-2
# Outputs whose squares vary by a smaller share of their sum over images do not vary.
_CONSTANT = 1e-12


def metric_groups(model: nn.Module, order: Iterable[str], memory: int) -> Iterator[tuple[str, ...]]:
    """Yield the fitted layers of a network in groups whose metrics fit into memory together.

    Args:
        model: the network.
        order: names of its modules, in which the metrics will be asked for.
        memory: bytes of the metrics of a group; one layer alone may take more.
    """
    group: list[str] = []
    left = memory
    modules = dict(model.named_modules())
    for name in order:
        module = modules[name]
        if not isinstance(module, LAYERS) or not is_fitted(op := op_of(module)):
            continue
        size = _BYTES * op.out_channels**2 // op.groups
        if group and size > left:
            yield tuple(group)
            group, left = [], memory
        group.append(name)
        left -= size
    if group:
        yield tuple(group)


def output_metrics(
    model: nn.Module,
    batches: Iterable[Tensor | Arguments],
    outputs: Sequence[str] = (),
    *,
    layers: Collection[str] | None = None,
) -> dict[str, Tensor]:
    """Return what counts as error in the output of each linear layer of a network.

    The derivative is sampled with random signs s, as the expectation of (Jᵀ s)(Jᵀ s)ᵀ is Jᵀ J
    (Hutchinson, "A stochastic estimator of the trace of the influence matrix", 1990). Of several
    outputs each counts by its own variation over the images, as in the error that is measured.

    Args:
        model: the network; it is not changed.
        batches: inputs to sample on.
        outputs: globs of the names of those outputs that count; all where there are none.
        layers: names of the layers; None for all that are fitted. The metric of a layer does not
            hang on which others there are.

    Returns:
        By layer (groups, O, O), O the output channels of a group, positive definite, in float64.
        Layers whose effect on the outputs can't be derived, or that have none, are missing.
    """
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)

    def signs(output: Tensor) -> Tensor:
        return torch.randint(0, 2, output.shape, generator=generator).to(output) * 2 - 1

    def directions(given: Sequence[Tensor]) -> list[Tensor]:
        found = [signs(output) for output in given]
        if len(found) == 1:  # its scale makes no difference
            return found
        return [
            s * _weight(output, Arguments.of(batch).images)
            for s, output in zip(found, given, strict=True)
        ]

    for batch in batches:
        try:
            for name, square in _sampled(model, Arguments.of(batch), outputs, layers, directions):
                # In place: one more copy of each would double what they take.
                found[name] = found[name].add_(square) if name in found else square
        except RuntimeError:  # an operation without a derivative
            return {}
    for name in list(found):
        square = found.pop(name)
        if square.any():
            found[name] = _definite(square)
    return found


def _sampled(
    model: nn.Module,
    x: Arguments,
    counted: Sequence[str],
    layers: Collection[str] | None,
    directions: Callable[[Sequence[Tensor]], list[Tensor]],
) -> Iterator[tuple[str, Tensor]]:
    """Yield products of the sampled derivative, summed over pixels, layer by layer."""
    with evaluating(model), torch.enable_grad(), _outputs_of_layers(model, layers) as outputs:
        # A copy that is no leaf: a network may begin by working in place.
        named = picked(named_tensors(x.map(_derivable).call(model), x.tensors), counted)
        derivable = [output for output in named.values() if output.requires_grad]
        calls = tuple(outputs)  # a checkpointed forward runs again behind, for the derivative
        for _ in range(_DIRECTIONS if derivable and calls else 0):
            gradients = torch.autograd.grad(
                derivable,
                [output for _, _, output in calls],
                directions(derivable),
                retain_graph=True,
                allow_unused=True,
            )
            for (name, op, _), gradient in zip(calls, gradients, strict=True):
                if gradient is not None:
                    each = by_channel(op, gradient).transpose(0, 1)
                    rows = each.reshape(op.groups, op.out_channels // op.groups, -1)
                    yield name, row_products(rows, rows).to(torch.float64)


def _derivable(x: Tensor) -> Tensor:
    return x.requires_grad_().clone() if x.is_floating_point() else x.clone()


@contextmanager
def _outputs_of_layers(
    model: nn.Module, wanted: Collection[str] | None
) -> Iterator[list[tuple[str, LinearOp, Tensor]]]:
    """Collect name, operator and output of each call of a layer that a gradient reaches."""
    found: list[tuple[str, LinearOp, Tensor]] = []

    def hook(name: str) -> Callable[[LinearLayer, Any, Any, Tensor], Tensor | None]:
        def keep(module: LinearLayer, _: Any, __: Any, output: Tensor) -> Tensor | None:
            if not output.requires_grad:
                return None
            found.append((name, op_of(module), output))
            return output.clone()  # what follows may overwrite it

        return keep

    layers = {
        module: hook(name)
        for name, module in model.named_modules()
        if isinstance(module, LAYERS)
        and is_fitted(op_of(module))
        and (wanted is None or name in wanted)
    }
    with noting(layers):
        yield found


def _weight(output: Tensor, images: int) -> float:
    """Return one over the variation of an output over its images, the root of its sum of squares.

    Where nothing varies, one over the size of the output; 0 where that is nothing either.
    """
    values = output.detach().double()
    power = float(values.square().sum())
    variation = 0.0
    if values.ndim and images > 1 and len(values) % images == 0:
        rows = values.reshape(images, -1)
        variation = float((rows - rows.mean(0)).square().sum())
    scale = variation if variation > _CONSTANT * power else power
    return float(scale**-0.5) if scale else 0.0


def _definite(square: Tensor) -> Tensor:
    """Return positive semidefinite matrices, scaled, with a floor under what they count."""
    mean = torch.diagonal(square, dim1=1, dim2=2).mean(1)[:, None, None]
    eye = torch.eye(square.shape[1], dtype=square.dtype, device=square.device)
    return torch.where(mean > 0, square / torch.where(mean > 0, mean, 1.0), eye) + _FLOOR * eye
