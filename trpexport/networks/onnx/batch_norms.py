"""Batch norms that can be multiplied into the layer before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from trpexport.networks.onnx.constants import Constants
from trpexport.networks.onnx.operators import attribute

_EPSILON = 1e-5  # ONNX's default


@dataclass(frozen=True)
class FoldedNorm:
    """What a batch norm does to each channel: ``x * scale + shift``.

    Attributes:
        node: the batch norm.
        scale: (channels,).
        shift: (channels,).
    """

    node: ir.Node
    scale: NDArray[np.float64]
    shift: NDArray[np.float64]


def norm_behind(node: ir.Node, constants: Constants) -> FoldedNorm | None:
    """Return the batch norm that alone takes the output of a convolution, or None.

    Its statistics must be stored, and nobody may ask for those of the batch.

    Args:
        node: the convolution.
        constants: which values of the network are known.
    """
    if node.op_type not in {"Conv", "ConvTranspose"} or node.outputs[0].is_graph_output():
        return None
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or uses[0].idx != 0:
        return None
    norm = uses[0].node
    if (norm.domain, norm.op_type) != ("", "BatchNormalization") or norm.graph is not node.graph:
        return None
    is_training = attribute(norm, "training_mode", 0) or not attribute(norm, "spatial", 1)
    if is_training or any(output.uses() for output in norm.outputs[1:]):
        return None
    found = [constants.find(value) for value in norm.inputs[1:5]]
    stored = [constant.numpy().astype(np.float64) for constant in found if constant is not None]
    if len(stored) != 4:
        return None
    gamma, beta, mean, variance = stored
    scale = gamma / np.sqrt(variance + float(attribute(norm, "epsilon", _EPSILON)))
    if not np.isfinite(scale).all():
        return None
    return FoldedNorm(norm, scale, beta - mean * scale)
