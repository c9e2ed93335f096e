"""Every backend test of the package onnx with a linear layer: decomposed, or kept with a reason.

None may crash, and what is decomposed must verify. What ONNX Runtime can't run, as Gemm before
operator set 7, is refused in one line. Run it with ``python -m benchmarks.onnx_backend_models``;
it prints what became of each, writes that to ``results/onnx_backend_models.json``, and fails where
one crashed or was not verified.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import onnx
from onnx.backend import test as backend_tests
from onnx.backend.test.case.node import collect_testcases

from trpexport.artifact.build import ExportSettings
from trpexport.choose.base import NothingCheaperError
from trpexport.choose.by_criterion import ByCriterion
from trpexport.errors import TrpexportError, VerificationError
from trpexport.files import write_json
from trpexport.networks.onnx.operators import OPERATORS
from trpexport.onnx_files import OnnxFileSource

_CHOOSER = ByCriterion(
    "channel", "fraction:0.5", include=["*"], keep_expensive=True, rank_multiple=1
)


def linear_models(folder: Path) -> Iterator[Path]:
    """Yield the models of the package that hold a linear layer; those of single nodes are written.

    Args:
        folder: where to write them.
    """
    for kind in ("Conv", "ConvTranspose", "Gemm", "MatMul", "ConvInteger", "QLinearConv"):
        for case in collect_testcases(kind):
            path = folder / case.name / "model.onnx"
            path.parent.mkdir(exist_ok=True)
            assert case.model is not None
            onnx.save(case.model, path)
            yield path
    data = Path(str(backend_tests.__file__)).parent / "data"
    for path in sorted(data.rglob("model.onnx")):
        graph = onnx.load(path, load_external_data=False).graph
        if any((node.domain, node.op_type) in OPERATORS for node in graph.node):
            yield path


def outcome(path: Path, out: Path) -> tuple[str, str]:
    """Return what becomes of a model (decomposed, kept, refused), and the reason.

    Args:
        path: the model.
        out: where its bundle goes.

    Raises:
        Exception: whatever is no error of this library's own.
    """
    try:
        small = OnnxFileSource(path).decompose(_CHOOSER)
    except NothingCheaperError as error:
        reasons = {layer.reason or "" for layer in error.plan.layers}
        return "kept", "; ".join(sorted(reasons)) or "it has no layer with a weight of its own"
    except TrpexportError as error:
        return "refused", str(error)
    try:
        out.parent.mkdir(exist_ok=True)
        small.export(out, settings=ExportSettings(verify_seconds=0))
    except VerificationError as error:
        return "not verified", str(error)
    except TrpexportError as error:
        return "refused", str(error)
    return "decomposed", ", ".join(layer.name for layer in small.plan.rewritten)


def main() -> int:
    """Try all of them."""
    models: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        for path in linear_models(Path(folder)):
            try:
                found, reason = outcome(path, Path(folder) / "bundles" / path.parent.name)
            except Exception as error:  # what is looked for
                found, reason = "crashed", f"{type(error).__name__}: {error}"
            reason = " ".join(reason.replace(folder, "...").split())
            models.append({"model": path.parent.name, "outcome": found, "reason": reason})
            print(f"{found:12} {path.parent.name}: {reason}", flush=True)
    counts = Counter(model["outcome"] for model in models)
    versions = {name: version(name) for name in ("onnx", "onnxruntime")}
    result = {"versions": versions, "counts": counts, "models": models}
    write_json(Path(__file__).parent / "results" / "onnx_backend_models.json", result)
    print(dict(counts))
    return 1 if counts["crashed"] or counts["not verified"] else 0


if __name__ == "__main__":
    sys.exit(main())
