"""How ONNX is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from trpexport.networks.dynamic import Dynamic
from trpexport.onnxfile.targets import Target

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
        keep_norms: leave batch norms apart from the kernels before them, as the network has them,
            which the legacy exporter does alone.
        target: the version of ONNX Runtime that has to read it; None for the one here.
    """

    opset: int = DEFAULT_OPSET
    dynamic_batch: bool = False
    legacy_exporter: bool = False
    dynamic: Dynamic = field(default_factory=dict)
    keep_norms: bool = False
    target: Target | None = None

    @property
    def is_legacy(self) -> bool:
        """Whether the legacy exporter writes it, asked for or not: opsets below 18 need it."""
        return self.legacy_exporter or self.keep_norms or self.opset < _DYNAMO_MIN_OPSET

    @property
    def exporter(self) -> str:
        """The exporter that writes it: ``"dynamo"`` or ``"legacy"``."""
        return "legacy" if self.is_legacy else "dynamo"

    @property
    def open_axes(self) -> dict[str, dict[str, str]]:
        """By input, the names of axes besides the batch that are left open, JSON-ready."""
        return {
            name: {str(axis): dimension for axis, dimension in axes.items()}
            for name, axes in self.dynamic.items()
        }
