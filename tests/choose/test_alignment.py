"""The channel block of this processor."""

from __future__ import annotations

import pytest

from trpexport.choose import alignment
from trpexport.choose.alignment import channel_block
from trpexport.errors import PlanError


@pytest.mark.parametrize(("sets", "block"), [(["avx2", "avx512f"], 16), (["avx", "avx2"], 8)])
def test_the_block_of_this_processor(
    sets: list[str], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alignment, "machine_facts", lambda: {"instruction_sets": sets})
    assert channel_block() == block


def test_a_processor_that_nobody_knows_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "machine_facts", lambda: {"instruction_sets": ["asimd"]})
    with pytest.raises(PlanError, match="give a number"):
        channel_block()
