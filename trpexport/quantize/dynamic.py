"""Dynamic int8: weights are stored in 8 bits, activations are quantized while the network runs."""

from __future__ import annotations

from pathlib import Path

from trpexport.quantize.settings import QuantizationSettings, Quantized


def quantize_dynamic(source: Path, target: Path, settings: QuantizationSettings) -> Quantized:
    """Write a network with int8 weights and activations whose ranges are found as it runs."""
    raise NotImplementedError
