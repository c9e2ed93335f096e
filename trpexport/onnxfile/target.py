"""What versions of ONNX Runtime read: operator sets and IR versions."""

from __future__ import annotations

import re
from dataclasses import dataclass

from trpexport.errors import ModelError

# onnxruntime.ai/docs/reference/compatibility.html: the first version that reads an operator set of
# ai.onnx, and the newest IR version that it reads.
_READS = (
    ((1, 8), 13, 7),
    ((1, 9), 14, 7),
    ((1, 10), 15, 8),
    ((1, 12), 17, 8),
    ((1, 14), 18, 8),
    ((1, 15), 19, 8),
    ((1, 16), 19, 9),
    ((1, 17), 20, 9),
    ((1, 18), 21, 10),
    ((1, 20), 21, 10),
    ((1, 22), 23, 11),
    ((1, 23), 23, 11),
)


@dataclass(frozen=True)
class TargetRuntime:
    """A version of ONNX Runtime that has to read a file.

    Attributes:
        version: it, as in ``1.16`` or ``1.16.3``.
        opset: newest operator set of ai.onnx that it reads.
        ir_version: newest IR version that it reads.
    """

    version: str
    opset: int
    ir_version: int

    @classmethod
    def of(cls, version: str) -> TargetRuntime:
        """Return what a version reads.

        Raises:
            ModelError: it is no version, or older than those whose limits are known.
        """
        parts = re.fullmatch(r"(\d{1,3})\.(\d{1,3})(\.\d{1,3})?", version)
        number = (int(parts[1]), int(parts[2])) if parts else (0, 0)
        found = [limits for first, *limits in _READS if first <= number]
        if not found:
            oldest = ".".join(map(str, _READS[0][0]))
            raise ModelError(
                f"{version!r} is no version of ONNX Runtime from {oldest} on: give one as in 1.16",
                parameters=("target_ort",),
            )
        opset, ir_version = found[-1]
        return cls(version, opset, ir_version)
