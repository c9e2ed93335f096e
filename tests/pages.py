"""Documents that pages are made of, small enough to know by heart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trpexport.bundle import write_manifest
from trpexport.inputs import Inputs
from trpexport.ops import Call, LinearOp, Window
from trpexport.plan import LayerPlan, Plan

OP = LinearOp(4, 4, window=Window((3, 3), pads=((1, 1), (1, 1))))
FACTORS = (LinearOp(4, 2, window=Window((3, 1))), LinearOp(2, 4, window=Window((1, 3))))
OUTPUT = {
    **{"inputs": 8, "max_error": 2e-6, "rms_error": 1e-7, "cosine": 1.0, "top1_agreement": 0.875},
    **{"agreement": None, "variation_error": 0.25, "varies": True},
}
EXACT = {"kind": "equivalent", "tolerance": None}
NEAR = {"kind": "approximate", "tolerance": None}
RATIO = {"low": 1.4, "mid": 1.5, "high": 1.6, "verdict": "faster"}
TIMED = {"seconds": 0.001, "speedup": RATIO}
LATENCY: dict[str, Any] = {
    **{"device": {"CPU": "a processor", "instruction_sets": ["avx2"]}, "provider": "cpu"},
    **{"threads": 1, "batch": None, "seconds": 0.002, "predicted_speedup": 1.5, "deviation": 0.01},
    **{"best_speedup": RATIO, "speedup": RATIO, "originals": {}, "fastest": "int8"},
    "files": {"fp32": TIMED, "int8": TIMED},
    "session": {"file": "model.onnx", "speedup": RATIO, "options": {"arena": False}},
}
CALIBRATION: dict[str, Any] = {
    **{"data": "digits", "split": "train", "seed": 3, "images": 64, "output_error": 0.2},
    **{"worst_output": "output", "output_errors": {"output": 0.2}},
    "held_out": {
        **{"images": 16, "split": "other train", "output_error": 0.25, "worst_output": "output"},
        "output_errors": {"output": 0.25},
    },
    "judged": {
        **{"metric": "top1", "is_share": True, "before": 0.9, "after": 0.88, "loss": 0.02},
        **{"images": 100, "split": "other train", "interval": [-0.01, 0.05]},
    },
    "target": {"kind": "macs", "value": 0.5},
    "layers": [
        {
            **{"name": "a", "scheme": "spatial", "rank": 2, "weight_error": 0.3},
            **{"error_before": 0.2, "error_after": 0.1, "error_share": 1.0},
        }
    ],
}


def layer(name: str, rank: int | None, reason: str | None = None) -> LayerPlan:
    """Return what happens to one layer of 100 MACs: cut to a rank, or kept."""
    factors = FACTORS if rank else ()
    return LayerPlan(
        name, OP, (Call(1, (8, 8)),), "spatial" if rank else None, rank, 12, factors, reason,
        0.3 if rank else None, 100, 50 if rank else 100, (3.0, 2.0, 0.5, 0.0),
    )  # fmt: skip


def report_of(plan: Plan, **changes: Any) -> dict[str, Any]:
    """Return what a bundle reports of a plan, with some of it changed."""
    steps = [
        {"name": "decompose", "claim": NEAR, "outputs": {"output": OUTPUT}},
        {"name": "rewrite", "claim": EXACT, "outputs": {"output": OUTPUT}},
        {"name": "export", "claim": EXACT, "outputs": {"output": OUTPUT}},
        {
            **{"name": "int8", "claim": NEAR, "outputs": {"output": OUTPUT}},
            "facts": {"drop": 0.5, "unit": "points", "float32": [{"node": "n", "reason": "why"}]},
        },
    ]
    return {
        **{"schema_version": 3, "architecture": "net", "scheme": plan.scheme},
        **{"criterion": plan.criterion, "file_bytes": 1000, "layers_rewritten": 1},
        "macs": {"before": 200, "after": 100, "ratio": 2.0, "uncounted": dict(plan.uncounted)},
        "parameters": {"before": 300, "after": 100},
        "layers": [
            {
                **{"name": one.name, "operator": str(one.op), "scheme": one.scheme},
                **{"rank": one.rank, "full_rank": one.full_rank, "reason_kept": one.reason},
                **{"macs": {"before": one.macs, "after": one.factor_macs}},
                **{"weight_error": one.weight_error, "output_error": 0.1},
            }
            for one in plan.layers
        ],
        **{"calibration": CALIBRATION, "latency": LATENCY, "steps": steps},
        **{"notes": ["a note"], "seconds": {"export": 1.5}},
    } | changes


def write_bundle(
    path: Path, names: tuple[str, ...] = ("a",), *, text: str = "a note", **changes: Any
) -> Path:
    """Write what a page reads of a bundle: of layers of which all but the last are rewritten.

    Args:
        path: where.
        names: of the rewritten layers; the first is calibrated.
        text: what stands wherever a bundle holds text.
        changes: of the report.
    """
    layers = (*(layer(name, 2) for name in names), layer("last", None, f"because: {text}"))
    plan = Plan(
        "spatial", "value:0.05", Inputs.of((1, 4, 8, 8)), layers, 0, "net", {"include": ["*"]}, {}
    )
    calibration = {**CALIBRATION, "layers": [{**CALIBRATION["layers"][0], "name": names[0]}]}
    report = report_of(plan, **({"calibration": calibration, "notes": [text]} | changes))
    path.mkdir(parents=True)
    (path / "plan.json").write_text(json.dumps(plan.to_json()))
    (path / "report.json").write_text(json.dumps(report))
    for name in ("model.onnx", "model.int8.onnx", "baseline.onnx"):
        (path / name).write_bytes(b"onnx")
    tolerance = {"max_error": 1.0, "rms_error": 1.0, "agreement": 1.0}
    manifest = {
        **{"created": text, "versions": {"trpexport": "0.1.0", "torch": text}, "opset": 18},
        **{"source": {"file": "net.pth", "sha256": text}, "baseline": "baseline.onnx"},
        "variants": {"int8": {"file": "model.int8.onnx", "tolerance": tolerance}},
    }
    write_manifest(path, manifest)
    return path


MACHINE = {
    **{"architecture": "x86_64", "cpu": "a processor", "memory_bytes": 2**34},
    **{"cores": {"physical": 2, "logical": 4, "usable": 4}, "os": {"system": "Linux"}},
    **{"load_average": [0.5, 0.5, 0.5], "versions": {"onnxruntime": "1.20", "python": "3.11"}},
}
SECONDS = {**dict.fromkeys(("median", "p90", "p95", "p99"), 0.002), "min": 0.001, "mad": 0.0001}
ENTRY = {
    **{"label": "net", "sha256": "0" * 64, "file_bytes": 9, "seconds": SECONDS, "runs": 9},
    **{"throughput_per_second": 1e3, "session_seconds": 0.1, "first_run_seconds": 0.1},
    "ratio": {"to": "base", "mid": 1.5, "low": 1.25, "high": 2.0, "verdict": "faster"},
    "memory": dict.fromkeys(("baseline_bytes", "with_arena_bytes", "without_arena_bytes"), 9),
    **{"rounds": 3, "macs": 100, "macs_ratio": 2.0, "efficiency": 0.7, "uncounted": {}},
    **{"warmup_is_steady": True, "placement": {"CPU": 3}, "session": {"arena": True}},
}
BASE = ENTRY | {"label": "base", "ratio": None, "macs_ratio": None, "efficiency": None}
SETTINGS = {
    **{"models": [{"path": "a.onnx", "label": "a"}], "provider": "cpu", "provider_options": {}},
    **{"threads": [1], "batch": 1, "shapes": {"x": [1, 3]}, "graph_optimization": "all"},
    **{"allow_spinning": None, "io_binding": True, "seed": 0, "min_runs": 3, "min_time": 0.1},
}
BENCH = {
    **{"kind": "bench", "schema_version": 1, "created": "2026", "machine": MACHINE},
    **{"settings": SETTINGS, "results": [{"threads": 1, "models": [BASE, ENTRY]}]},
}
PROFILE: dict[str, Any] = {
    "kind": "profile",
    "models": [{"label": "base"}, {"label": "net"}],
    "comparison": [
        {
            **{"name": "a", "is_rewritten": True, "base_seconds": 0.002, "other_seconds": 0.001},
            **{"noise_seconds": 0.0, "verdict": "faster", "speedup": 2.0},
        },
        {
            **{"name": "last", "is_rewritten": False, "base_seconds": 0.1, "other_seconds": 0.0},
            **{"noise_seconds": 0.0, "verdict": "not measured", "speedup": None},
        },
    ],
}
RULE = {
    **{"name": "max-drop", "title": "drop", "direction": "at most", "limit": 1.0, "unit": "points"},
    **{"passed": False, "value": 2.0, "low": 1.5, "high": 2.5, "reason": "too much is lost"},
}
GATE: dict[str, Any] = {
    **{"kind": "gate", "schema_version": 1, "passed": False, "confident": False},
    **{"baseline": {"path": "a", "top1": 0.9}, "candidate": {"path": "b", "top1": 0.8}},
    **{"data": {"name": "digits", "images": 9}, "rules": [RULE], "regressions": []},
    "top1": {"lost": 2, "won": 1, "mcnemar_p": 0.5},
}
EPOCHS = [
    {
        **{"epoch": epoch, "loss": 1 / epoch, "top1": 50.0 + epoch, "test_top1": 40.0 + epoch},
        **{"mean_rank_share": 1 / epoch, "macs_ratio": 1 / epoch},
    }
    for epoch in (1, 2, 3)
]


CUT = {"scheme": "spatial", "rank": 2, "macs": 50.0, "error": 0.2}
SENSITIVITY: dict[str, Any] = {
    **{"kind": "sensitivity", "architecture": "net", "scheme": "spatial", "ratios": [0.75, 0.25]},
    **{"target": 0.5, "error": 0.3, "images": 64, "data": "digits"},
    "layers": [
        {
            **{"name": "a", "operator": str(OP), "macs": 100.0, "reason": None, "chosen": CUT},
            "cuts": [{"share": 0.75, "cut": CUT}, {"share": 0.25, "cut": None}],
            **{"back": {"error": 0.1, "macs": 50.0}, "precisions": {"int8": 0.01}},
        },
        {
            **{"name": "b", "operator": str(OP), "macs": 100.0, "reason": "excluded", "cuts": []},
            **{"chosen": None, "back": None, "precisions": None},
        },
    ],
}
CELL: dict[str, Any] = {
    **{"label": "spatial 0.5 fp32", "scheme": "spatial", "target": 0.5, "precision": "fp32"},
    **{"bundle": "spatial-0.5", "uncounted": [], "failed": None},
    **{name: {"before": 200, "after": 100} for name in ("macs", "parameters", "bytes")},
    "error": {"value": 0.1, "images": 16, "split": "other train"},
    "judged": {
        **{"metric": "top1", "is_share": True, "before": 0.9, "after": 0.88, "loss": 0.02},
        **{"low": -0.01, "high": 0.05, "images": 100, "split": "test", "data": "digits"},
    },
    "time": {**TIMED, "original": 0.002, "device": "a processor"},
}
FAILED = {
    **CELL,
    **dict.fromkeys(("macs", "parameters", "bytes", "uncounted", "error", "judged", "time")),
    **{"label": "spatial 0.1 fp32", "target": 0.1, "failed": "the target can't be met"},
}
SWEEP: dict[str, Any] = {
    **{"kind": "sweep", "network": "net.pth", "gain": "speedup", "loss": "top1"},
    "front": ["spatial 0.5 fp32"],
    "cells": [CELL, {**CELL, "label": "spatial 0.7 fp32", "target": 0.7}, FAILED],
}
