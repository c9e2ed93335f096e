"""What schemes add: by hand, for a table of one layer."""

from __future__ import annotations

import pytest

from benchmarks.scheme_gain import gains
from trpexport.choose.table import LayerOptions, Option, SensitivityTable


def option(scheme: str | None, cost: float, error: float) -> Option:
    return Option(scheme, None if scheme is None else 1, {"macs": cost}, error)


TABLE = SensitivityTable(
    key="k",
    layers=(
        LayerOptions(
            "one",
            {"near": 1.0, "cheap": 0.5},
            (
                option(None, 100, 0.0),
                option("near", 50, 0.2),
                option("cheap", 50, 0.3),
                option("cheap", 30, 0.4),
            ),
        ),
    ),
    fixed={"macs": 0.0},
)


def test_what_a_choice_loses_without_a_scheme() -> None:
    found = gains(TABLE, 2.0)
    assert found is not None
    assert found["layers"] == {"near": 1, "cheap": 0}
    assert found["more_error_without_percent"]["near"] == pytest.approx(50)
    assert found["more_error_without_percent"]["cheap"] == pytest.approx(0)
    alone = found["more_error_alone_percent"]
    assert alone == pytest.approx({"near": 0, "cheap": 50})


def test_what_no_other_scheme_reaches() -> None:
    found = gains(TABLE, 3.0)
    assert found is not None
    assert found["more_error_without_percent"] == {"near": 0.0, "cheap": None}
    assert found["more_error_alone_percent"] == {"near": None, "cheap": 0.0}
    assert gains(TABLE, 4.0) is None
