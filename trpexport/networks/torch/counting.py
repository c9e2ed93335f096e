"""What a PyTorch network costs, counted over the modules that one forward pass runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import nn

from trpexport.networks.torch.trace import COUNTED, module_macs, run_example
from trpexport.onnxfile.counting import GraphCost, LayerCost


def count_modules(model: nn.Module, input_shape: Sequence[int]) -> GraphCost:
    """Count MACs, parameters and activation bytes of the modules of ``model``.

    Convolutions, transposed convolutions and linear layers are counted. What the network computes
    outside of modules is not seen: count its ONNX file for that.

    Args:
        model: the network; it is not changed.
        input_shape: shape of its input, batch first.

    Returns:
        The cost of one such input. ``unknown`` lists modules with parameters of their own that are
        neither counted nor normalisation, and counted ones that never ran as modules.

    Raises:
        PlanError: the network can't run such an input.
    """
    names = {module: name for name, module in model.named_modules()}
    layers: list[LayerCost] = []
    ran: set[nn.Module] = set()
    left_out: Counter[str] = Counter()

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(module, COUNTED):
            left_out[type(module).__name__] += 1
            ran.add(module)
            return
        x = inputs[0]
        own = 0 if module in ran else sum(p.numel() for p in module.parameters(recurse=False))
        ran.add(module)
        layers.append(
            LayerCost(
                name=names[module],
                operator=type(module).__name__,
                input_shape=tuple(x.shape),
                output_shape=tuple(output.shape),
                macs=module_macs(module, x, output),
                parameters=own,
                activation_bytes=output.numel() * output.element_size(),
            )
        )

    leaves = [module for module in names if not any(module.children())]
    run_example(model, input_shape, dict.fromkeys(leaves, note))
    unknown: Counter[str] = Counter()
    for module in names:
        has_own = any(True for _ in module.parameters(recurse=False))
        seen_norm = module in ran and hasattr(module, "running_mean")
        if has_own and not seen_norm and not (module in ran and isinstance(module, COUNTED)):
            unknown[type(module).__name__] += 1
            left_out.pop(type(module).__name__, None)
    total = sum(parameter.numel() for parameter in model.parameters())
    return GraphCost(
        layers=tuple(layers),
        left_out=dict(left_out),
        unknown=dict(unknown),
        other_parameters=total - sum(layer.parameters for layer in layers),
    )
