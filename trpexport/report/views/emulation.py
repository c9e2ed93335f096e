"""What networks did under emulation: outputs and counts, never a latency."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trpexport.report.blocks import Block, Column, Kind, Role, Table, Text
from trpexport.report.views.uncounted import at_least, counts_text

if TYPE_CHECKING:
    from trpexport.cost import Cost
    from trpexport.device.emulate.emulation import Emulated


def emulation_view(
    emulated: Emulated, labels: Sequence[str], costs: Sequence[Cost]
) -> tuple[Block, ...]:
    """Show how each network's outputs differ from x86, and the instructions that it takes.

    Args:
        emulated: what was found.
        labels: what the networks are called, in the same order.
        costs: what they cost.
    """
    versions = emulated.versions
    heading = Text(
        f"emulated {emulated.cpu}, onnxruntime {versions['onnxruntime']} for aarch64, "
        f"qemu {versions['qemu']}, 1 thread; instructions are exact, and no latency"
    )
    columns = (
        Column("model", "model", Kind.NAME),
        Column("macs", "MACs", Kind.COUNT),
        Column("instructions", "instructions", Kind.COUNT),
        Column("fmas", "NEON FMAs", Kind.COUNT, optional=True),
        Column("fewer", "fewer instructions", Kind.RATIO),
        Column("difference", "largest difference to x86", Kind.NUMBER, digits=1),
    )
    rows = []
    first = emulated.models[0].counts
    for label, cost, model in zip(labels, costs, emulated.models, strict=True):
        row: dict[str, Any] = {
            "model": label,
            "macs": at_least(cost.macs, cost.uncounted),
            "difference": max(found.max_error for found in model.comparison.values()),
        }
        if (counts := model.counts) is not None:
            row |= {"instructions": counts.instructions, "fmas": counts.neon_fmas}
            if first is not None and model is not emulated.models[0]:
                row["fewer"] = first.instructions / counts.instructions
        rows.append(row)
    notes = [
        f"the MACs of {label} leave out {counts_text(cost.uncounted)}, not known"
        for label, cost in zip(labels, costs, strict=True)
        if cost.uncounted
    ]
    if emulated.counts_unavailable:
        notes.append(f"instructions were not counted: {emulated.counts_unavailable}")
    return heading, Table(columns, tuple(rows)), *(Text(note, Role.NOTE) for note in notes)
