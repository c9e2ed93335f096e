"""What a network costs, layer by layer."""

from __future__ import annotations

from typing import Any

from trpexport.cost import FLOPS_PER_MAC, Cost
from trpexport.report.blocks import Block, Column, Kind, Table, Text
from trpexport.report.views.uncounted import at_least, counts_text, not_counted


def cost_view(cost: Cost) -> tuple[Block, ...]:
    """Show the cost of each layer, the totals, what was left out and what could not be counted."""
    rows: list[dict[str, Any]] = [
        {
            "layer": layer.name,
            "operator": layer.operator,
            "input": layer.input_shape,
            "output": layer.output_shape,
            "macs": layer.macs,
            "flops": FLOPS_PER_MAC * layer.macs,
            "parameters": layer.parameters,
            "activations": layer.activation_bytes,
        }
        for layer in cost.layers
    ]
    faint = frozenset[int]()
    if cost.other_parameters:
        faint = frozenset({len(rows)})
        rows.append({"layer": "(others)", "parameters": cost.other_parameters})
    total = {
        "layer": "all",
        "macs": at_least(cost.macs, cost.uncounted),
        "flops": at_least(cost.flops, cost.uncounted),
        "parameters": cost.parameters,
        "activations": cost.activation_bytes,
    }
    table = Table(
        columns=(
            Column("layer", "layer", Kind.NAME),
            Column("operator", "operator", Kind.NAME, optional=True),
            Column("input", "input", Kind.SHAPE, optional=True),
            Column("output", "output", Kind.SHAPE, optional=True),
            Column("macs", "MACs", Kind.COUNT),
            Column("flops", "FLOPs", Kind.COUNT, optional=True),
            Column("parameters", "parameters", Kind.COUNT),
            Column("activations", "activations", Kind.BYTES, optional=True),
        ),
        rows=tuple(rows),
        totals=(total,),
        faint=faint,
    )
    left_out = f", {counts_text(cost.left_out)}" if cost.left_out else ""
    text = Text(f"Left out: biases{left_out}. FLOPs are 2 x MACs.")
    return table, text, *not_counted(cost.uncounted)
