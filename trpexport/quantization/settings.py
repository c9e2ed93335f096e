"""What it takes to write a network in fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trpexport.tensors import Arrays

Judge = Callable[[Path], float]


@dataclass(frozen=True)
class QuantizationSettings:
    """On what a network is quantized, and how much it may lose.

    Attributes:
        calibration: inputs by name, the first dimension counting images, whose values say which
            ranges tensors need; empty where there are none.
        held_out: others, which choices are compared on; empty where there are none.
        max_error: largest error of any output on them, as
            :attr:`~trpexport.compare.Comparison.variation_error`; None for no such limit.
        judge: returns how much worse than the float32 file another one is; None without labels.
        max_drop: how much worse it may be; None for no such limit.
        unit: of both, and what they are of.
        provider: a name in :data:`trpexport.runtime.providers.PROVIDERS`: who will run it.
        layers: by layer, whether it is to be in ``int8`` or stays in ``fp32``, where that was
            chosen before; what is no such layer is quantized where all that it gets is.
        is_ranked: whether it is told what the quantization of each node alone does, which limits
            need.
    """

    calibration: Arrays = field(default_factory=dict)
    held_out: Arrays = field(default_factory=dict)
    max_error: float | None = None
    judge: Judge | None = None
    max_drop: float | None = None
    unit: str = "points of top1"
    provider: str = "cpu"
    layers: Mapping[str, str] = field(default_factory=dict)
    is_ranked: bool = True


@dataclass(frozen=True)
class Quantized:
    """What a quantizer says of the file that it wrote.

    Attributes:
        facts: what it found, JSON-ready.
        note: what a user should know.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    note: str | None = None
