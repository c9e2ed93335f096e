"""What must be in documents for views to show them; they may come from strangers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from trpexport.runtime.session_options import VARIED
from trpexport.schema import MayLack, each, fits, flag, not_negative, number, positive, text, whole

_OR_NONE = (None, not_negative)


def _some(shape: Any) -> Callable[[Any], bool]:
    """Return what says whether a value is an object, not empty, whose values have a shape."""
    fits_all = each(shape)
    return lambda value: fits_all(value) and bool(value)


def _exactly(shape: Mapping[str, Any]) -> Callable[[Any], bool]:
    """Return what says whether a value is an object with these entries and no others."""
    return lambda value: fits(value, shape) and value.keys() == shape.keys()


_COSTS = {"before": whole(0), "after": whole(0)}
_RATIO = {"low": not_negative, "mid": not_negative, "high": not_negative}
_OUTPUT = {
    "inputs": whole(0),
    **dict.fromkeys(("max_error", "rms_error", "variation_error", "top1_agreement"), _OR_NONE),
    "agreement": MayLack(_OR_NONE),
}
_OUTPUTS = _some(_OUTPUT)
_NODES = MayLack([({"node": text, "reason": text}, text)])
_TARGET = MayLack(({"checked": text, "outputs": _OUTPUTS}, {"checked": MayLack(None)}))
_STEP = {
    "name": text,
    "outputs": each(_OUTPUT),
    "claim": MayLack({"kind": text}),
    "seconds": MayLack(not_negative),
    "facts": MayLack(
        {
            "drop": MayLack((None, number)),
            "unit": MayLack(text),
            "float32": _NODES,
            "excluded": _NODES,
            "target": _TARGET,
        }
    ),
}


def _are_steps(steps: Any) -> bool:
    """Whether steps are those of an export, of which at least one left a file that was compared."""
    if not isinstance(steps, list) or not fits(steps, [_STEP]):
        return False
    return any(step["outputs"] and not is_variant(step) for step in steps)


_LAYER = {
    "name": text,
    "operator": MayLack(text),
    "scheme": (None, text),
    "rank": (None, whole(0)),
    "full_rank": (None, whole(0)),
    "macs": _COSTS,
    "weight_error": _OR_NONE,
    "output_error": MayLack(_OR_NONE),
    "reason_kept": (None, text),
}
_CALIBRATED = {
    "name": text,
    "scheme": MayLack(text),
    "rank": whole(0),
    **dict.fromkeys(("weight_error", "error_before", "error_after"), _OR_NONE),
    "error_share": MayLack(_OR_NONE),
}
_EXAM = {
    "output_error": not_negative,
    "worst_output": MayLack(text),
    "output_errors": MayLack(each(_OR_NONE)),
}
_HELD_OUT = {**_EXAM, "worst_output": text, "images": whole(0), "split": text}
_JUDGED = {
    "is_share": flag,
    **dict.fromkeys(("before", "after", "loss"), number),
    **{"images": whole(0), "split": text, "metric": text},
    "interval": (
        None,
        lambda ends: isinstance(ends, list) and list(map(number, ends)) == [True] * 2,
    ),
}
_REFINED_EXAM = {**_EXAM, "worst_output": text, "output_errors": each(_OR_NONE)}
_REFINED = {
    **{"before": _REFINED_EXAM, "after": _REFINED_EXAM, "split": text, "seconds": not_negative},
    **dict.fromkeys(("held_out_images", "images", "steps"), whole(0)),
}
_CALIBRATION = {
    **_EXAM,
    **{"data": text, "split": (None, text), "images": whole(0), "layers": [_CALIBRATED]},
    "seed": MayLack(whole(0)),
    "is_labelled": MayLack(flag),
    "held_out": MayLack((None, _HELD_OUT)),
    "judged": MayLack((None, _JUDGED)),
    "refined": MayLack((None, _REFINED)),
    "target": MayLack((None, {"kind": text, "value": number})),
}
_TIMED = {"seconds": not_negative, "speedup": _RATIO}


def _options(value: Any) -> bool:
    """Whether a value is options of a session that have words."""
    return each((text, flag))(value) and value.keys() <= VARIED.keys()


_MIXED = {
    "error": not_negative,
    "int8_alone": {"error": not_negative, "speedup": _RATIO},
    "layers": [
        {
            **dict.fromkeys(("name", "precision", "reason"), text),
            "written": (None, text),
            "seconds": {"fp32": (None, not_negative), "int8": (None, not_negative)},
            "int8_error": not_negative,
        }
    ],
}
_LATENCY = {
    "device": {"CPU": (None, text), "instruction_sets": [text]},
    "provider": text,
    "threads": whole(1),
    "batch": (None, whole(1)),
    "seconds": not_negative,
    **dict.fromkeys(("predicted_speedup", "deviation"), not_negative),
    **{"best_speedup": _RATIO, "speedup": _RATIO},
    "files": _some(_TIMED),
    **{"precision": MayLack(text), "fastest": MayLack(text)},
    "beside": MayLack((None, _RATIO)),
    "mixed": MayLack(_MIXED),
    "originals": each(_TIMED),
    "session": (None, {"file": text, "speedup": _RATIO, "options": _options}),
}


def _is_latency(value: Any) -> bool:
    """Whether a value says how fast files are, and that of the tuned one is among them."""
    return fits(value, _LATENCY) and value.get("precision", "fp32") in value["files"]


REPORT = {
    "architecture": (None, text),
    "scheme": text,
    "criterion": text,
    "macs": {
        **_COSTS,
        "ratio": _OR_NONE,
        # Older reports call it unknown.
        **dict.fromkeys(("uncounted", "unknown"), MayLack(each(whole(0)))),
        "kinds": MayLack([_exactly({"kind": text, "share": not_negative, "ratio": _OR_NONE})]),
    },
    "verified_on": MayLack(text),
    "parameters": _COSTS,
    "file_bytes": whole(0),
    "layers_rewritten": whole(0),
    "layers": [_LAYER],
    "calibration": (None, _CALIBRATION),
    "latency": MayLack(_is_latency),
    "steps": _are_steps,
    "notes": [text],
    "target": _TARGET,
    "seconds": MayLack(each(not_negative)),
}
"""Of ``report.json``."""

MANIFEST = {
    "files": each({"bytes": whole(0)}),
    "versions": lambda value: each(text)(value) and "trpexport" in value,
    "created": MayLack(text),
    "source": MayLack((None, {"file": text, "sha256": text})),
    "opset": MayLack((None, whole(0))),
    "exporter": MayLack((None, text)),
}
"""Of a manifest, beside what reads it."""

_SUMMARY = dict.fromkeys(("mad", "p99", "min", "p90", "p95"), not_negative)
_BENCHED = {
    "seconds": {**_SUMMARY, "median": positive},
    "warmup_is_steady": flag,
    "placement": (None, each(whole(0))),
    "uncounted": MayLack(each(whole(0))),
    "session": MayLack((None, _options)),
    "reason": MayLack((None, text)),
}
BENCH = {
    "host": MayLack((None, text)),
    "machine": {
        "cores": {"usable": (None, whole(0))},
        "load_average": (None, lambda value: isinstance(value, list) and number(value[0])),
        "versions": lambda value: each((None, text))(value) and "onnxruntime" in value,
    },
    "settings": {"provider": text},
    "results": [{"threads": whole(1), "models": [_BENCHED]}],
}
"""Of the record of a bench, beside what reads it."""

PROFILE = {
    "models": [{"label": text}],
    "comparison": [
        {
            "name": text,
            "is_rewritten": flag,
            "base_seconds": not_negative,
            "other_seconds": not_negative,
            "speedup": _OR_NONE,
            "verdict": text,
        }
    ],
}
"""Of the profile of a bench."""

_SIDE = {"path": text}
_RULE = {
    **dict.fromkeys(("name", "title", "direction", "unit", "reason"), text),
    **{"passed": flag, "limit": number},
    **dict.fromkeys(("value", "low", "high"), (None, number)),
}
_GATE = {
    "confident": flag,
    "rules": [_RULE],
    "regressions": MayLack([_RULE]),
    **{"baseline": _SIDE, "candidate": _SIDE},
    "data": MayLack((None, {"images": whole(0), "name": text})),
}
_TOP1 = {"lost": whole(0), "won": whole(0), "mcnemar_p": not_negative}
# What a gate tells of its data, by what it judged them: metric, top-1, or outputs alone.
_VALUE, _SHARE = (
    {side: {key: shape} for side in ("baseline", "candidate")}
    for key, shape in (("value", (None, number)), ("top1", not_negative))
)
_JUDGED_BY = {
    "metric": {"metric": text, **_VALUE},
    "top1": {"top1": _TOP1, **_SHARE},
    "outputs": {"outputs": each({"error": _OR_NONE, "agreement": _OR_NONE})},
}


def is_gate(value: Any) -> bool:
    """Whether a value is the result of a gate, with what it tells of its data."""
    if not fits(value, _GATE):
        return False
    judged = next((name for name in _JUDGED_BY if name in value), None)
    if not value.get("data") and judged != "metric":
        return True
    return judged is not None and fits(value, _JUDGED_BY[judged])


_CUT = {
    **{"scheme": text, "rank": whole(1)},
    **{"macs": not_negative, "error": not_negative},
}
SENSITIVITY = {
    "architecture": (None, text),
    **{"scheme": text, "data": text, "images": whole(0)},
    "ratios": [positive],
    **{"target": _OR_NONE, "error": _OR_NONE},
    "layers": [
        {
            **{"name": text, "operator": text, "macs": not_negative, "reason": (None, text)},
            "cuts": [{"share": positive, "cut": (None, _CUT)}],
            "chosen": (None, _CUT),
            "back": (None, {"error": not_negative, "macs": number}),
            "precisions": (None, each(_OR_NONE)),
        }
    ],
}
"""Of the record of a sensitivity."""

_CELL = {
    **{"label": text, "scheme": text, "precision": text, "target": positive},
    **dict.fromkeys(("macs", "parameters", "bytes"), (None, _COSTS)),
    "uncounted": (None, [text]),
    "error": (None, {"value": _OR_NONE, "images": whole(0)}),
    "judged": (
        None,
        {
            **{"metric": text, "is_share": flag, "data": text, "split": text, "images": whole(0)},
            **dict.fromkeys(("before", "after", "loss"), number),
            **dict.fromkeys(("low", "high"), (None, number)),
        },
    ),
    "time": (None, {**_TIMED, "original": not_negative}),
    "failed": (None, text),
}


def _is_cell(cell: Any) -> bool:
    """Whether a cell of a sweep stands with all its costs, or failed and has none."""
    if not fits(cell, _CELL):
        return False
    named = ("macs", "parameters", "bytes", "error", "uncounted")
    return len({cell[name] is None for name in named}) == 1


def is_sweep(value: Any) -> bool:
    """Whether a value is what came of a sweep, compared by what all its cells have."""
    shape = {"network": text, "loss": text, "front": [text], "cells": [_is_cell]}
    if not fits(value, {**shape, "gain": text}) or value["gain"] not in GAINS:
        return False
    judged = [cell["judged"] for cell in value["cells"] if cell["judged"] is not None]
    intervals = all((one["low"] is None) == (one["high"] is None) for one in judged)
    return intervals and len({(one["metric"], one["is_share"]) for one in judged}) <= 1


GAINS = ("speedup", "macs", "bytes")
"""By what the cells of a sweep may be compared."""

METRICS = {
    "epoch": whole(0),
    **dict.fromkeys(
        ("mean_rank_share", "macs_ratio", "test_top1", "top1"), MayLack((None, number))
    ),
}
"""Of an epoch of training."""


def is_variant(step: Mapping[str, Any]) -> bool:
    """Whether a step wrote the network in another precision or format."""
    if "made_of" in step.get("facts", {}):
        return True
    is_near = bool(step.get("claim", {}).get("kind") == "approximate")
    return is_near and bool(step["name"] != "decompose")
