"""What to type to make a bundle again, and to check and measure it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from trpexport.report.blocks import Role, Text

if TYPE_CHECKING:
    from trpexport.report.documents import Bundle

_TARGETS = {
    "macs": ("decompose", "--target-macs"),
    "parameters": ("decompose", "--target-params"),
    "error": ("decompose", "--target-error"),
    "drop": ("decompose", "--max-drop"),
}
_TUNED = {
    "speedup": "--min-speedup",
    "seconds": "--max-latency",
    "error": "--max-error",
    "drop": "--max-drop",
}


def commands(bundle: Bundle) -> tuple[Text, ...]:
    """Return what to type: to make a bundle from its source, to verify it, and to measure it."""
    place = shlex.quote(str(bundle.path))
    lines = [shlex.join(_making(bundle)), f"trpexport verify {place}", f"trpexport bench {place}"]
    told = [Text(line, Role.COMMAND) for line in lines]
    if bundle.report["calibration"] is not None:
        told.append(Text("Name the data where it lies: a bundle does not know that.", Role.NOTE))
    return tuple(told)


def _making(bundle: Bundle) -> list[str]:
    source = (bundle.manifest.get("source") or {}).get("file", "NETWORK")
    if not bundle.plan.rewritten and "latency" not in bundle.report:
        return ["trpexport", "export", source, "-o", bundle.label]
    command, chosen = _choosing(bundle)
    options = [*chosen, *_selecting(bundle.plan.options), *_writing(bundle)]
    return ["trpexport", command, source, *options, "-o", bundle.label]


def _choosing(bundle: Bundle) -> tuple[str, list[str]]:
    """Return the command that chose schemes and ranks, and the options that it did so by."""
    facts, plan = bundle.report["calibration"], bundle.plan
    if facts is None:
        return "decompose", ["--scheme", plan.scheme, "--criterion", plan.criterion]
    images = ["--calib", facts["data"], "--images", str(facts["images"])]
    images += ["--seed", str(facts.get("seed", 0)), "--scheme", plan.scheme]
    target = facts.get("target")
    if target is None:
        return "decompose", [*images, "--criterion", plan.criterion]
    kind, value = target["kind"], target["value"]
    if "latency" in bundle.report and kind in _TUNED:
        limit = f"{1e3 * value:g}ms" if kind == "seconds" else f"{value:g}"
        return "tune", [*images, _TUNED[kind], limit]
    if kind not in _TARGETS:
        return "decompose", images
    command, option = _TARGETS[kind]
    return command, [*images, option, f"{value:g}"]


def _selecting(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield what restricted the choice of layers and ranks."""
    for name in ("include", "exclude"):
        found = options.get(name)
        for glob in found if isinstance(found, list) else ():
            yield from (f"--{name}", str(glob))
    for name in ("stride_1_only", "keep_expensive"):
        if options.get(name) is True:
            yield f"--{name.replace('_', '-')}"
    if isinstance(multiple := options.get("rank_multiple"), int):
        yield from ("--rank-multiple", str(multiple))


def _writing(bundle: Bundle) -> Iterator[str]:
    """Yield what shaped the files."""
    manifest = bundle.manifest
    if isinstance(opset := manifest.get("opset"), int):
        yield from ("--opset", str(opset))
    if manifest.get("dynamic_batch") is True:
        yield "--dynamic-batch"
    if "latency" in bundle.report and bundle.plan.precisions:
        yield from ("--precision", "free")
    elif variants := [name for name in manifest.get("variants", {}) if "ort" not in name]:
        yield from ("--precision", ",".join(variants))
    if manifest.get("baseline") and "latency" not in bundle.report:
        yield "--add-baseline"
