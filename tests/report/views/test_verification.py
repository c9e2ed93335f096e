"""Verifications as blocks."""

from __future__ import annotations

from dataclasses import replace

from trpexport.compare import Comparison, Tolerance
from trpexport.report.blocks import Role, Table, Text, Tone
from trpexport.report.views.verification import verification_view
from trpexport.runtime.verify import Verification

SAME = Comparison(64, 6e-7, 2e-7, 1.0, 1.0)
OTHER = Comparison(64, 0.5, 0.1, 0.9, None)


def test_an_output_is_a_row_and_the_verdict_is_last() -> None:
    compared, table, _, verdict = verification_view(Verification({"a": SAME}), "[b] against [c]")
    assert compared == Text("[b] against [c]")
    assert isinstance(table, Table)
    shown = [column.key for column in table.columns]
    assert [table.rows[0][key] for key in shown] == ["a", 6e-7, 2e-7, 1.0, 1.0, 64]
    assert verdict == Text("the same network, up to float32 rounding", Role.VERDICT, Tone.GOOD)


def test_what_was_allowed_to_differ_is_not_called_the_same() -> None:
    found = Verification({"a": OTHER}, Tolerance(max_error=0.6, rms_error=0.125))
    *_, verdict = verification_view(found, "x")
    expected = "as near as was allowed: an RMS error of 0.12"
    assert verdict == Text(expected, Role.VERDICT, Tone.GOOD)


def test_outputs_that_never_vary_are_said() -> None:
    still = replace(SAME, varies=False)
    blocks = verification_view(Verification({"a": still, "b": SAME}), "x")
    (note,) = [block for block in blocks if isinstance(block, Text) and block.role is Role.WARNING]
    said = "a does not vary over the inputs compared, so comparing it says little"
    assert said in str(note.content)


def test_the_verdict_on_what_differs_is_the_error() -> None:
    blocks = verification_view(Verification({"a": SAME, "b": OTHER}), "x")
    assert not any(isinstance(block, Text) and block.role is Role.VERDICT for block in blocks)
    assert isinstance(blocks[1], Table) and len(blocks[1].rows) == 2
