"""The time of a reproducible build."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trpexport.errors import TrpexportError
from trpexport.timestamps import is_fixed, timestamp


def test_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOURCE_DATE_EPOCH", raising=False)
    assert not is_fixed()
    assert abs(datetime.fromisoformat(timestamp()) - datetime.now(UTC)) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", "1970-01-01T00:00:00+00:00"), ("1700000000", "2023-11-14T22:13:20+00:00")],
)
def test_a_fixed_one(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    assert is_fixed()
    assert timestamp() == expected


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "9" * 30, "१", " 1", "1\n"])
def test_no_time(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", text)
    with pytest.raises(TrpexportError, match="give whole seconds since 1970, or unset it"):
        timestamp()
