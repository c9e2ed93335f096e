"""Tables and sentences about plans and bundles."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from trpexport.plan import LayerPlan, Plan
from trpexport.report.text import percent, quantity, ratio

if TYPE_CHECKING:
    from trpexport.choose.survey import Choice


Parts = tuple[RenderableType, ...]


def plain_table() -> Table:
    """Return an empty table in the house style."""
    return Table(box=None, pad_edge=False, header_style="bold")


def plan_table(plan: Plan) -> Parts:
    """Show what happens to each convolution, the totals, and why layers are kept."""
    mixed = any(layer.scheme != plan.scheme for layer in plan.rewritten)
    table = plain_table()
    table.add_column("layer", no_wrap=True)
    table.add_column("convolution", no_wrap=True)
    for name in ("rank", "MACs", "after", "saved", "weight error"):
        table.add_column(name, justify="right", no_wrap=name != "weight error")
    for layer in plan.layers:
        row = _plan_row(layer, mixed=mixed)
        table.add_row(*row, style=None if layer.is_rewritten else "dim")
    if plan.other_macs:
        macs = quantity(plan.other_macs)
        table.add_row("others", "linear layers", "kept", macs, macs, style="dim")
    table.add_row(
        "all",
        f"{len(plan.rewritten)} of {len(plan.layers)} rewritten",
        "",
        quantity(plan.macs_before),
        quantity(plan.macs_after),
        ratio(plan.macs_before, plan.macs_after),
        style="bold",
    )
    heading = f"{plan.architecture or 'network'}, {plan.scheme}, {plan.criterion}"
    kept = [f"kept  {layer.name}: {layer.reason}" for layer in plan.layers if layer.reason]
    return escape(heading), table, *map(escape, kept)


def _plan_row(layer: LayerPlan, *, mixed: bool) -> list[str]:
    start = [layer.name, str(layer.op)]
    macs = quantity(layer.macs)
    if not layer.is_rewritten:
        return [*start, "kept", macs, macs]
    rank = f"{layer.rank} of {layer.full_rank}"
    return [
        *start,
        f"{layer.scheme} {rank}" if mixed else rank,
        macs,
        quantity(layer.factor_macs),
        ratio(layer.macs, layer.factor_macs),
        "" if layer.weight_error is None else percent(layer.weight_error),
    ]


def bundle_summary(report: Mapping[str, Any], path: Path) -> str:
    """Say what an export did: cost, the two comparisons kept apart, and what to type next."""
    macs, parameters = report["macs"], report["parameters"]
    lines = [
        "",
        f"MACs        {quantity(macs['before'])} -> {quantity(macs['after'])} "
        f"({ratio(macs['before'], macs['after'])} fewer; speed was not measured)",
        f"Parameters  {quantity(parameters['before'])} -> {quantity(parameters['after'])}, "
        f"file {quantity(report['file_bytes'])}B",
    ]
    outputs = {step["name"]: step["outputs"] for step in report["steps"]}
    if "rewrite" in outputs:
        worst = _worst(outputs["rewrite"])
        lines.append(f"Equivalent  pairs = the dense layers they stand for, {worst}")
    last = report["steps"][-1]["name"]
    lines.append(f"Equivalent  ONNX Runtime = PyTorch, {_worst(outputs[last])}")
    if "decompose" in outputs:
        lines.append(f"Approximate to the original: {_change(outputs['decompose'])}")
    lines += [f"Note        {note}" for note in report["notes"]]
    lines += [f"Wrote       {path}", f"Check it    trpexport verify {shlex.quote(str(path))}"]
    return escape("\n".join(lines))


def _worst(outputs: Mapping[str, Mapping[str, Any]]) -> str:
    error = max(output["max_error"] for output in outputs.values())
    count = min(output["inputs"] for output in outputs.values())
    return f"within {error:.1g} of the output's RMS on {count} inputs"


def _change(outputs: Mapping[str, Mapping[str, Any]]) -> str:
    output = max(outputs.values(), key=lambda found: found["rms_error"] or float("inf"))
    error = output["rms_error"]
    text = f"RMS difference {'unbounded' if error is None else percent(error)}"
    if output["top1_agreement"] is not None:
        text += f", same top-1 on {percent(output['top1_agreement'])} of {output['inputs']} inputs"
    return f"{text};\n            measure the accuracy on your data"


def choices_table(choices: Sequence[Choice], plan: Plan) -> Parts:
    """Show what each criterion would save on a network where the one typed saves nothing."""
    heading = escape(
        f"No layer of {plan.architecture or 'the network'} gets cheaper with {plan.scheme} and "
        f"{plan.criterion}. What would:"
    )
    table = plain_table()
    table.add_column("criterion")
    for name in ("layers rewritten", "MACs saved", "weight error"):
        table.add_column(name, justify="right")
    for choice in choices:
        table.add_row(
            choice.criterion,
            f"{choice.layers} of {len(plan.layers)}",
            f"{choice.macs_ratio:.2f}x" if choice.layers else "nothing",
            percent(choice.weight_error) if choice.layers else "",
            style=None if choice.layers else "dim",
        )
    return heading, table


def next_command(choices: Sequence[Choice], checkpoint: Path, scheme: str) -> str:
    """Say which command to type after :func:`choices_table`."""
    from trpexport.choose.survey import mildest

    choice = mildest(choices)
    if choice is None:
        return (
            "No criterion saves anything here: try another --scheme, or a network trained with TRP."
        )
    return escape(
        "Weights are not accuracy: a network that was not trained for low rank loses some. Next:\n"
        f"  trpexport decompose {shlex.quote(str(checkpoint))} --scheme {scheme} "
        f"--criterion {choice.criterion}"
    )
