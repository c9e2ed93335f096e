"""Why a network in numbers of fewer bits was slower than its baseline."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from trpexport.errors import TrpexportError
from trpexport.measure.settings import BenchSettings
from trpexport.onnxfile.graph import load_proto
from trpexport.onnxfile.recognition import is_ort
from trpexport.runtime.kernels import kernels_of
from trpexport.runtime.providers import find_provider
from trpexport.runtime.session import open_session

_SLOWER = "slower"
_CONVERSIONS = ("QuantizeLinear", "DequantizeLinear")
_FLOAT = ("Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm")


def explained(record: Mapping[str, Any], settings: BenchSettings) -> dict[str, Any]:
    """Return the record of a bench on this machine with why networks of fewer bits were slower.

    Args:
        record: what :func:`trpexport.measure.bench.bench` returned.
        settings: of it; the networks are opened once more with these.
    """
    told = copy.deepcopy(dict(record))
    reasons: dict[str, str | None] = {}
    for result in told["results"]:
        for entry, model in zip(result["models"], settings.models, strict=True):
            if (entry["ratio"] or {}).get("verdict") != _SLOWER:
                continue
            if model.path not in reasons:
                reasons[model.path] = why_slow(Path(model.path), settings.provider)
            if (reason := reasons[model.path]) is not None:
                entry["reason"] = reason
    return told


def why_slow(path: Path, provider: str) -> str | None:
    """Return what keeps a network of fewer bits from being fast; None of one in float32.

    Args:
        path: its ONNX file.
        provider: a name in :data:`trpexport.runtime.providers.PROVIDERS`.
    """
    try:
        return None if is_ort(path) else _why(path, provider)
    except (ImportError, TrpexportError):  # a reason that can't be told must not hide the times
        return None


def _why(path: Path, provider: str) -> str | None:
    from onnx import TensorProto

    model = load_proto(path)
    types = Counter(tensor.data_type for tensor in model.graph.initializer)
    halves = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}
    for kind, name in halves.items():
        if types[kind] and not kernels_of(provider, name).multiplies:
            return (
                f"{find_provider(provider).ort_name} has no {name} kernels on this machine: it "
                "computes in float32 and converts around every operator"
            )
    operators = {node.op_type for node in model.graph.node}
    if "DynamicQuantizeLinear" in operators:
        return "the range of every tensor is found anew in each run"
    if operators.isdisjoint(_CONVERSIONS):
        return None
    return _of_quantized(_optimized(path, provider))


def _optimized(path: Path, provider: str) -> Counter[str]:
    """Return how many operators of each kind ONNX Runtime runs in the place of a file's."""
    with TemporaryDirectory() as folder:
        written = Path(folder) / "optimized.onnx"
        open_session(path, provider=provider, optimized_path=written)
        return Counter(node.op_type for node in load_proto(written).graph.node)


def _of_quantized(operators: Counter[str]) -> str:
    conversions = sum(operators[name] for name in _CONVERSIONS)
    exact = sum(operators[name] for name in _FLOAT)
    whole = sum(n for name, n in operators.items() if name.startswith(("QLinear", "QGemm")))
    if exact or conversions > whole:
        return (
            f"{exact} convolutions and matrix products are computed in float32, {whole} operators "
            f"in 8 bits, and {conversions} conversions stand between"
        )
    return (
        f"each of its {whole} operators in 8 bits has so little to do that what comes with every "
        "operator outweighs the faster multiplications"
    )
