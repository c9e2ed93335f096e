"""In which 8-bit numbers a provider computes fast, and weights in them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trpexport.errors import ModelError
from trpexport.runtime.providers import PROVIDERS

# Operators that ONNX Runtime's quantizer takes, but that its CPU provider has no 8-bit kernels for:
# they would be rounded on both sides, and computed in float32 all the same.
_FLOAT_ON_CPU = frozenset(
    {
        "ArgMax",
        "BatchNormalization",
        "ConvTranspose",
        "CumSum",
        "GatherElements",
        "InstanceNormalization",
        "LayerNormalization",
        "TopK",
    }
)
# Instructions that multiply bytes and add up in 32 bits. ONNX Runtime has kernels with them for
# unsigned activations: with VNNI U8S8 is 1.8 and 2.4 times as fast as float32, S8S8 0.7 times
# (benchmarks/int8_formats.py).
_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})
_ARM = "asimd"


@dataclass(frozen=True)
class NumberFormat:
    """The 8-bit numbers of a quantized network; weights are signed, symmetric, a scale a channel.

    Attributes:
        is_signed: whether activations are.
        is_symmetric: whether their ranges are as large on both sides of 0.
        is_reduced: whether weights use 7 bits: sums of two products of 8 bits don't fit into the
            16 bits that AVX2 adds them up in, and saturate.
        float_operators: that stay in float32.
    """

    is_signed: bool = False
    is_symmetric: bool = False
    is_reduced: bool = False
    float_operators: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """Types of activations and weights, as in ``U8S8``."""
        return f"{'S8' if self.is_signed else 'U8'}{'S7' if self.is_reduced else 'S8'}"

    @property
    def largest_weight(self) -> int:
        """The largest whole number that a weight takes, as ONNX Runtime's quantizer has it."""
        return 64 if self.is_reduced else 127


@dataclass(frozen=True)
class RoundedWeight:
    """A weight in whole numbers.

    Attributes:
        values: the numbers, in the weight's shape.
        steps: of each output.
        error_ratio: mean squared error of the outputs on patches that nothing was fitted to, over
            that of the nearest numbers.
    """

    values: NDArray[np.int8]
    steps: NDArray[np.float32]
    error_ratio: float


_SIGNED = NumberFormat(is_signed=True, is_symmetric=True)
_FORMATS = {
    "arm": NumberFormat(is_signed=True, float_operators=_FLOAT_ON_CPU),
    "cuda": _SIGNED,
    "tensorrt": _SIGNED,
    "xnnpack": NumberFormat(is_signed=True),
    "qnn": NumberFormat(),
    "openvino": NumberFormat(),
}


def number_format(provider: str, instruction_sets: Collection[str]) -> NumberFormat:
    """Return the numbers that a provider computes fast with.

    Args:
        provider: a name in :data:`~trpexport.runtime.providers.PROVIDERS`.
        instruction_sets: of the machine, as
            :func:`~trpexport.measure.machine.instruction_sets` names them; for the CPU alone.

    Raises:
        ModelError: it has no 8-bit kernels.
        TrpexportError: there is no such provider.
    """
    name = PROVIDERS[provider].name
    if name == "cpu":
        if _ARM in instruction_sets:
            return _FORMATS["arm"]
        is_reduced = _DOT_PRODUCTS.isdisjoint(instruction_sets)
        return NumberFormat(is_reduced=is_reduced, float_operators=_FLOAT_ON_CPU)
    if name not in _FORMATS:
        raise ModelError(
            f"the provider {name} has no int8: choose fp16, or one of cpu, {', '.join(_FORMATS)}",
            parameters=("provider", "precision"),
        )
    return _FORMATS[name]
