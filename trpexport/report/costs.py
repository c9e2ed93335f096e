"""What a network costs, as a table."""

from __future__ import annotations

from collections.abc import Mapping

from rich.markup import escape

from trpexport.cost import FLOPS_PER_MAC, Cost
from trpexport.report.tables import Parts, plain_table
from trpexport.report.text import quantity


def cost_table(cost: Cost) -> Parts:
    """Show the cost of each layer, the totals, what was left out and what could not be counted."""
    table = plain_table()
    table.add_column("layer")
    table.add_column("operator")
    table.add_column("input")
    table.add_column("output")
    for name in ("MACs", "FLOPs", "parameters", "activations"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in cost.layers:
        table.add_row(
            layer.name,
            layer.operator,
            _shape(layer.input_shape),
            _shape(layer.output_shape),
            quantity(layer.macs),
            quantity(FLOPS_PER_MAC * layer.macs),
            quantity(layer.parameters),
            f"{quantity(layer.activation_bytes)}B",
        )
    if cost.other_parameters:
        table.add_row("(others)", "", "", "", "", "", quantity(cost.other_parameters), style="dim")
    table.add_row(
        "all",
        "",
        "",
        "",
        quantity(cost.macs),
        quantity(cost.flops),
        quantity(cost.parameters),
        f"{quantity(cost.activation_bytes)}B",
        style="bold",
    )
    left_out = f"Left out: biases{_listed(cost.left_out)}. FLOPs are 2 x MACs."
    if not cost.unknown:
        return table, left_out
    unknown = f"[bold]Not counted, because not known:[/bold]{_listed(cost.unknown)[1:]}"
    return table, left_out, unknown


def _listed(counts: Mapping[str, int]) -> str:
    return escape("".join(f", {name} ({count})" for name, count in sorted(counts.items())))


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
