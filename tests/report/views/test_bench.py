"""Records of benches as blocks."""

from __future__ import annotations

from typing import Any

from trpexport.measure.records import Change
from trpexport.report.blocks import Kind, Range, Role, Table, Text, Tone, Value
from trpexport.report.views.bench import bench_view, changes_view

SECONDS = {"median": 0.5, "mad": 0.01, "min": 0.4, "p90": 0.6, "p95": 0.7, "p99": 0.8}
BASE: dict[str, Any] = {
    **{"label": "base", "seconds": SECONDS, "ratio": None, "macs": 300, "macs_ratio": None},
    **{"efficiency": None, "throughput_per_second": 2.0, "first_run_seconds": 1.0},
    **{"session_seconds": 3.0, "file_bytes": 1000, "memory": None, "runs": 50},
    **{"warmup_is_steady": True, "placement": {"CPU": 9}, "uncounted": {}},
}
OTHER = BASE | {
    **{"label": "other", "macs": 100, "macs_ratio": 3.0, "efficiency": 0.5},
    "ratio": {"to": "base", "mid": 1.5, "low": 1.4, "high": 1.6, "verdict": "faster"},
    "memory": {"with_arena_bytes": 77, "without_arena_bytes": 66},
}


def record(*models: dict[str, Any], **facts: Any) -> dict[str, Any]:
    return {
        "machine": {
            **{"cpu": "A [fast] CPU", "architecture": "x86_64", "cores": {"usable": 2}},
            **{"load_average": [0.25, 0, 0], "versions": {"onnxruntime": "1.31"}},
        },
        "settings": {"provider": "cpu"},
        "results": [{"threads": threads, "models": list(models)} for threads in (1, 2)],
        **facts,
    }


def notes(*models: dict[str, Any]) -> list[Any]:
    return [
        block.content
        for block in bench_view(record(*models))
        if isinstance(block, Text) and block.role is Role.NOTE
    ]


def test_never_a_latency_without_macs_nor_macs_saved_without_the_speed() -> None:
    _, latency, *_ = bench_view(record(BASE, OTHER))
    assert isinstance(latency, Table)
    base, other = latency.rows
    assert base == {
        **{"model": "base", "macs": 300, "median": 0.5, "mad": 0.01, "p99": 0.8},
        **{"speedup": None, "macs_ratio": None, "efficiency": None},
    }
    assert other == {
        **{"model": "other", "macs": 100, "median": 0.5, "mad": 0.01, "p99": 0.8},
        **{"speedup": 1.5, "interval": Range(1.4, 1.6), "macs_ratio": 3.0, "efficiency": 0.5},
        "verdict": Value("faster", tone=Tone.GOOD),
    }
    always = [column.key for column in latency.columns if not column.optional]
    assert {"macs", "median", "speedup", "interval", "macs_ratio", "verdict"} <= set(always)


def test_resources() -> None:
    _, _, resources, *_ = bench_view(record(BASE, OTHER))
    assert isinstance(resources, Table)
    base, other = resources.rows
    assert (base["memory"], base["without_arena"]) == (None, None)
    assert (other["memory"], other["without_arena"]) == (77, 66)
    assert (other["opening"], other["first_run"], other["runs"]) == (3.0, 1.0, 50)


def test_what_was_not_measured_of_any_network_has_no_column() -> None:
    for models, shown in (((BASE,), False), ((BASE, OTHER), True)):
        *_, resources = [b for b in bench_view(record(*models)) if isinstance(b, Table)]
        assert ("memory" in [column.key for column in resources.columns]) is shown


def test_a_table_a_number_of_threads() -> None:
    tables = [block for block in bench_view(record(BASE, OTHER)) if isinstance(block, Table)]
    assert [table.title for table in tables] == ["1 thread", "", "2 threads", ""]


def test_the_heading_says_where() -> None:
    heading, *_ = bench_view(record(BASE, OTHER, host="me@there"))
    assert isinstance(heading, Text) and isinstance(heading.content, tuple)
    start, _, load, end = heading.content
    assert start == "me@there: A [fast] CPU, 2 cores"
    assert load == Value(0.25, Kind.NUMBER)
    assert end == "; provider cpu, onnxruntime 1.31"


def test_what_a_reader_should_know_is_said() -> None:
    assert notes(BASE, OTHER) == []
    odd = OTHER | {
        **{"warmup_is_steady": False, "uncounted": {"Foo": 2}},
        "placement": {"CPU": 3, "GPU": 4},
    }
    assert notes(BASE, odd)[:3] == [
        "other did not become steady while warming up: the machine is busy",
        "the MACs of other leave out Foo (2), not known",
        "nodes of other: 3 on CPU, 4 on GPU",
    ]
    assert "nothing to compare with" in notes(BASE)[0]


def test_macs_are_a_bound_where_something_was_not_counted() -> None:
    _, latency, *_ = bench_view(record(BASE, OTHER | {"uncounted": {"Foo": 2}}))
    assert isinstance(latency, Table)
    assert latency.rows[1]["macs"] == Value(100, bound="at least")


def test_changes() -> None:
    changes = [
        Change("a", 1, 0.2, 0.1, 2.0, "faster", True),
        Change("b", 2, 0.1, 0.2, 0.5, "slower", False),
    ]
    (table,) = changes_view(changes)
    assert isinstance(table, Table)
    first, second = table.rows
    assert first == {
        **{"model": "a", "threads": 1, "old": 0.2, "new": 0.1, "speedup": 2.0},
        "verdict": (Value("faster", tone=Tone.GOOD), ""),
    }
    assert second["verdict"] == (Value("slower", tone=Tone.BAD), ", another file")
