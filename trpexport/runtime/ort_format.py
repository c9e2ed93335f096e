"""ONNX Runtime's own format of files, which its builds for phones read."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from trpexport.errors import ModelError
from trpexport.runtime.load_failures import plain_text
from trpexport.runtime.session import import_onnxruntime
from trpexport.runtime.session_options import make_session_options

# It arranges channels for the vectors of this processor: such a file runs on its like alone.
_NOT_PORTABLE = "NchwcTransformer"


def write_ort(source: Path, target: Path) -> None:
    """Write an ONNX file in ONNX Runtime's format, its graph optimized for any processor.

    Raises:
        ModelError: ONNX Runtime can't write it so.
    """
    onnxruntime = import_onnxruntime()
    options = make_session_options(
        onnxruntime, threads=1, graph_optimization="all", allow_spinning=None, arena=False
    )
    options.optimized_model_filepath = str(target)
    options.add_session_config_entry("session.save_model_format", "ORT")
    try:
        onnxruntime.InferenceSession(
            str(source),
            options,
            ["CPUExecutionProvider"],
            enable_fallback=0,
            disabled_optimizers=[_NOT_PORTABLE],
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common base but this
        raise ModelError(
            f"{source.name} can't be written in ONNX Runtime's format ({plain_text(error)}): use "
            "the ONNX file itself"
        ) from error


def required_operators(files: Iterable[Path]) -> str:
    """Return which operators a build has to have to run files in ONNX Runtime's format.

    That is the content of a ``required_operators.config``, as ONNX Runtime's ``build.py`` takes it
    after ``include_ops_by_config``.
    """
    import_onnxruntime()
    from onnxruntime.tools.ort_format_model import OrtFormatModelProcessor

    files = sorted(files)
    found: dict[str, dict[int, set[str]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # it leaves the closing to Python
        for file in files:
            OrtFormatModelProcessor(str(file), found, None).process()
    lines = [f"# Generated from {', '.join(file.name for file in files)}"]
    for domain, opsets in sorted(found.items()):
        for opset, operators in sorted(opsets.items()):
            if operators:
                lines.append(f"{domain};{opset};{','.join(sorted(operators))}")
    return "\n".join(lines) + "\n"
