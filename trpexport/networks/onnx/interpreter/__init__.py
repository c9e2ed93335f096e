"""ONNX's operators as functions on tensors of PyTorch, by domain and name."""

from trpexport.networks.onnx.interpreter import (  # noqa: F401 - each adds its operators
    control,
    convolution,
    elementwise,
    logic,
    movement,
    normalisation,
    pooling,
    products,
    quantization,
    recurrent,
    reductions,
    resampling,
    shapes,
)
from trpexport.networks.onnx.interpreter.registry import OPERATORS, unknown_operators

__all__ = ["OPERATORS", "unknown_operators"]
