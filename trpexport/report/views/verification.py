"""Whether two networks compute the same: how far each output differs, and the verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trpexport.compare import FLOAT32, Tolerance
from trpexport.report.blocks import Block, Column, Kind, Role, Table, Text, Tone, filled

if TYPE_CHECKING:
    from trpexport.runtime.verify import Verification

_COLUMNS = (
    Column("output", "output", Kind.NAME),
    Column("max_error", "max error", Kind.NUMBER, digits=2),
    Column("rms_error", "RMS error", Kind.NUMBER, digits=2),
    Column("cosine", "cosine", Kind.NUMBER, digits=7, optional=True),
    Column("top1_agreement", "same top-1", Kind.SHARE, digits=2),
    Column("agreement", "equal values", Kind.SHARE, digits=2),
    Column("inputs", "inputs", Kind.WHOLE),
)


def verification_view(found: Verification, compared: str) -> tuple[Block, ...]:
    """Show how far outputs differ, and if they do not, the verdict; else the error is that.

    Args:
        found: the comparison.
        compared: what was compared with what.
    """
    rows = tuple({"output": name, **vars(output)} for name, output in found.outputs.items())
    blocks: list[Block] = [
        Text(compared),
        Table(filled(_COLUMNS, rows), rows),
        Text("Errors are relative to the RMS of the output."),
    ]
    if found.note is not None:
        blocks.append(Text(f"Note: {found.note}", Role.WARNING))
    if found.is_equivalent:
        blocks.append(Text(_verdict(found.tolerance), Role.VERDICT, Tone.GOOD))
    return tuple(blocks)


def _verdict(tolerance: Tolerance) -> str:
    """Say what two networks are that differ by no more than a tolerance."""
    if tolerance == FLOAT32:
        return "the same network, up to float32 rounding"
    return f"as near as was allowed: an RMS error of {tolerance.rms_error:.2g}"
