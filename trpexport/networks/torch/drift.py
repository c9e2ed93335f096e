"""Where an ONNX file begins to differ from the module that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from trpexport.networks.torch.arguments import Arguments
from trpexport.networks.torch.chain_check import relative_rms
from trpexport.networks.torch.modules import CONVOLUTIONS, TRANSPOSED
from trpexport.networks.torch.running import argument, noting, outputs_of
from trpexport.runtime.session import open_session, run_in_batches
from trpexport.tensors import Arrays

_CONVOLVING = ("Conv", "ConvTranspose")
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def first_drifting_conv(
    model: nn.Module, x: Tensor | Arguments, path: Path, feeds: Arrays, tolerance: float
) -> str | None:
    """Return the name of the first convolution whose output differs in the ONNX file.

    Both run their convolutions in the same order, so the n-th of one is the n-th of the other.
    A batch norm right behind a convolution may be folded into it in the file: the output after it
    counts as well.

    Args:
        model: the network.
        x: its input, batch first.
        path: the ONNX file.
        feeds: the same by name.
        tolerance: largest relative RMS difference that is no drift.

    Returns:
        The name, or None where all agree or the two can't be matched.
    """
    runs = _conv_runs(model, x)
    outputs = _conv_outputs(path, feeds)
    if len(runs) != len(outputs):
        return None
    for (name, expected), actual in zip(runs, outputs, strict=True):
        candidates = [value for value in expected if value.shape == actual.shape]
        if not any(relative_rms(value, actual) <= tolerance for value in candidates):
            return name
    return None


def _conv_runs(model: nn.Module, x: Tensor | Arguments) -> list[tuple[str, list[Tensor]]]:
    """Return (name, [output, output after its batch norm]) of each run of a convolution."""
    names = {module: name for name, module in model.named_modules()}
    runs: list[tuple[str, list[Tensor]]] = []
    of_output: dict[int, list[Tensor]] = {}
    alive: list[Tensor] = []  # an id is only unique among living tensors

    def note(module: nn.Module, inputs: tuple[Any, ...], keywords: Any, output: Tensor) -> None:
        alive.append(output)
        if isinstance(module, CONVOLUTIONS + TRANSPOSED):
            runs.append((names[module], [output.clone()]))
            of_output[id(output)] = runs[-1][1]
        elif (seen := of_output.get(id(argument(inputs, keywords)))) is not None:
            seen.append(output.clone())

    noted = [module for module in names if isinstance(module, CONVOLUTIONS + TRANSPOSED + _NORMS)]
    with noting(dict.fromkeys(noted, note)):
        outputs_of(model, x)
    return runs


def _conv_outputs(path: Path, feeds: Arrays) -> list[Tensor]:
    """Run an ONNX file and return the output of each of its convolutions."""
    import onnx

    model = onnx.load(path)
    names = [node.output[0] for node in model.graph.node if node.op_type in _CONVOLVING]
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in present
    )
    session = open_session(model.SerializeToString())
    outputs = run_in_batches(session, feeds)
    return [torch.from_numpy(np.asarray(outputs[name])) for name in names]
