"""Which ONNX files each version of ONNX Runtime reads, and a file made one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from trpexport.errors import ModelError, TrpexportError
from trpexport.foreign import first_line
from trpexport.onnxfile.external_data import external_files
from trpexport.onnxfile.graph import load_proto

if TYPE_CHECKING:
    from onnx import ModelProto

# By minor version of ONNX Runtime 1: the last operator set and the last version of the format that
# it reads. From 1.5 on these are the limits that its wheels name when they refuse a file; those of
# the format up to 1.8 are of https://onnxruntime.ai/docs/reference/compatibility.html.
_READS = {
    **{5: (12, 7), 6: (13, 7), 7: (13, 7), 8: (14, 7), 9: (15, 8), 10: (15, 8), 11: (16, 8)},
    **{12: (17, 8), 13: (17, 8), 14: (18, 8), 15: (19, 9), 16: (19, 9), 17: (20, 9)},
    **{18: (21, 10), 19: (21, 10), 20: (21, 10), 21: (22, 10), 22: (22, 10), 23: (23, 11)},
    **{24: (25, 13), 25: (26, 13)},
}
_FUNCTIONS_SINCE_IR, _OVERLOADS_SINCE_IR = 8, 10


@dataclass(frozen=True)
class Target:
    """A version of ONNX Runtime that has to read a file.

    Attributes:
        version: the version, as in 1.16 or 1.16.3.
        opset: the last operator set that it reads.
        ir_version: the last version of the format.
    """

    version: str
    opset: int
    ir_version: int

    @classmethod
    def of(cls, version: str) -> Target:
        """Return what a version reads; one that came later reads at least what is known last.

        Raises:
            TrpexportError: it is no version, or too old for what it reads to be known.
        """
        match = re.fullmatch(r"1\.(\d{1,3})(\.\d{1,3})?", version)
        if match is None or int(match[1]) < min(_READS):
            raise TrpexportError(
                f"ONNX Runtime {version!r} is no version that is known here: name one from "
                f"1.{min(_READS)} on, as in 1.16 or 1.16.3",
                parameters=("target_ort",),
            )
        opset, ir_version = _READS[min(int(match[1]), max(_READS))]
        return cls(version, opset, ir_version)

    def check_opset(self, opset: int) -> None:
        """Refuse an operator set that it does not read.

        Raises:
            ModelError: it does not.
        """
        if opset > self.opset:
            raise ModelError(
                f"onnxruntime {self.version} reads operator sets up to {self.opset}, not {opset}: "
                "export with a lower one, or for a later version",
                parameters=("opset", "target_ort"),
            )

    def __str__(self) -> str:
        return f"onnxruntime {self.version}"


def opset_of(model: ModelProto) -> int:
    """Return the version of ONNX's own operator set in a network; 0 if it uses none of it."""
    return next((o.version for o in model.opset_import if o.domain in {"", "ai.onnx"}), 0)


def lower(path: Path, target: Target) -> str | None:
    """Have a version of ONNX Runtime read a file, which is rewritten in its place if it must be.

    Args:
        path: the file.
        target: the version.

    Returns:
        What was changed, or None.

    Raises:
        ModelError: the file uses what an older operator set does not have.
    """
    model = load_proto(path)
    before = opset_of(model), model.ir_version
    inlined = _needs_inlining(model, target)
    if before[0] > target.opset or inlined:
        _rewrite(path, target, inlined=inlined)
        model = load_proto(path)
    if model.ir_version > target.ir_version:
        import onnx

        model.ir_version = target.ir_version
        onnx.save(model, path)  # weights in other files stay there
    after = opset_of(model), model.ir_version
    changes = [
        f"{what} {old} -> {new}"
        for what, old, new in zip(("operator set", "IR version"), before, after, strict=True)
        if old != new
    ]
    return f"{', '.join(changes)} for {target}" if changes else None


def _needs_inlining(model: ModelProto, target: Target) -> bool:
    """Whether a network has functions of a kind that came later than the target."""
    has_overloads = any(function.overload for function in model.functions)
    since = _OVERLOADS_SINCE_IR if has_overloads else _FUNCTIONS_SINCE_IR
    return bool(model.functions) and target.ir_version < since


def _rewrite(path: Path, target: Target, *, inlined: bool) -> None:
    """Convert a file to the target's operator set, and dissolve its functions if they are new."""
    import onnx
    from onnx import inliner, version_converter

    found = opset_of(load_proto(path))
    if external_files(path):
        raise ModelError(
            f"{path.name} is 2 GB and more, so that its operator set ({found}) can't be lowered to "
            f"the {target.opset} that {target} reads: export it with a lower one",
            parameters=("opset",),
        )
    try:
        model = onnx.load(path)
        if inlined or (model.functions and found > target.opset):
            model = inliner.inline_local_functions(model)
        if found > target.opset:
            metadata = list(model.metadata_props)
            model = version_converter.convert_version(model, target.opset)
            del model.metadata_props[:]
            model.metadata_props.extend(metadata)
        onnx.save(model, path)
    except Exception as error:  # the converter's own, bare ones, protobuf's
        raise ModelError(
            f"{path.name} can't be lowered from operator set {found} to {target.opset}, the last "
            f"that {target} reads ({first_line(error)}): export it with a lower one, or name a "
            "later version",
            parameters=("opset", "target_ort"),
        ) from error
