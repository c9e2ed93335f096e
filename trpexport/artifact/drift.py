"""Where an ONNX file begins to differ from the network it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trpexport.networks.torch.equivalence import relative_rms
from trpexport.networks.torch.modules import CONVOLUTIONS
from trpexport.networks.torch.outputs import INPUT
from trpexport.networks.torch.running import evaluating
from trpexport.runtime.session import open_session, run_in_batches

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def first_drifting_conv(model: nn.Module, path: Path, x: Tensor, tolerance: float) -> str | None:
    """Return the name of the first convolution whose output differs in the ONNX file.

    Both run their convolutions in the same order, so the n-th of one is the n-th of the other.
    A batch norm right behind a convolution may be folded into it in the file: the output after it
    counts as well.

    Args:
        model: the PyTorch network.
        path: the ONNX file.
        x: input of both, batch first.
        tolerance: largest relative RMS difference that is no drift.

    Returns:
        The name, or None where all agree or the two can't be matched.
    """
    runs = _conv_runs(model, x)
    outputs = _conv_outputs(path, x)
    if len(runs) != len(outputs):
        return None
    for (name, expected), actual in zip(runs, outputs, strict=True):
        candidates = [value for value in expected if value.shape == actual.shape]
        if not any(relative_rms(value, actual) <= tolerance for value in candidates):
            return name
    return None


def _conv_runs(model: nn.Module, x: Tensor) -> list[tuple[str, list[Tensor]]]:
    """Return (name, [output, output after its batch norm]) of each run of a convolution."""
    names = {module: name for name, module in model.named_modules()}
    runs: list[tuple[str, list[Tensor]]] = []
    of_output: dict[int, list[Tensor]] = {}
    alive: list[Tensor] = []  # an id is only unique among living tensors

    def note(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        alive.append(output)
        if isinstance(module, CONVOLUTIONS):
            runs.append((names[module], [output.clone()]))
            of_output[id(output)] = runs[-1][1]
        elif id(inputs[0]) in of_output:
            of_output[id(inputs[0])].append(output.clone())

    hooks = [
        module.register_forward_hook(note)
        for module in names
        if isinstance(module, CONVOLUTIONS + _NORMS)
    ]
    try:
        with evaluating(model):
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return runs


def _conv_outputs(path: Path, x: Tensor) -> list[Tensor]:
    """Run an ONNX file and return the output of each of its convolutions."""
    import onnx

    network = onnx.load(path)
    names = [node.output[0] for node in network.graph.node if node.op_type == "Conv"]
    present = {output.name for output in network.graph.output}
    network.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in present
    )
    session = open_session(network.SerializeToString())
    outputs = run_in_batches(session, {INPUT: x.cpu().numpy()})
    return [torch.from_numpy(np.asarray(outputs[name])) for name in names]
