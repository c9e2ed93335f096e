"""How ONNX is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from trpexport.networks.dynamic import Dynamic

DEFAULT_OPSET = 18
# PyTorch's dynamo exporter translates to this opset and converts from there, upwards only.
_DYNAMO_MIN_OPSET = 18


@dataclass(frozen=True)
class OnnxSettings:
    """How ONNX is written.

    Attributes:
        opset: the ONNX operator set to write.
        dynamic_batch: leave the batch size open.
        dynamic: by input, the names of axes besides that are left open.
        legacy_exporter: use the TorchScript-based exporter.
    """

    opset: int = DEFAULT_OPSET
    dynamic_batch: bool = False
    legacy_exporter: bool = False
    dynamic: Dynamic = field(default_factory=dict)

    @property
    def is_legacy(self) -> bool:
        """Whether the legacy exporter writes it: opsets below 18 need it, asked for or not."""
        return self.legacy_exporter or self.opset < _DYNAMO_MIN_OPSET

    @property
    def exporter(self) -> str:
        """The exporter that writes it: ``"dynamo"`` or ``"legacy"``."""
        return "legacy" if self.is_legacy else "dynamo"
