from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trpexport.errors import ModelError
from trpexport.measure.profile.trace import Run, read_trace

Event = dict[str, Any]


def node(name: str, start: int, micros: int, operator: str = "Relu") -> Event:
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "ts": start,
        "dur": micros,
        "args": {
            "op_name": operator,
            "provider": "CPUExecutionProvider",
            "input_type_shape": [{"float": [1, 3, 8, 8]}, {"float": [4, 3, 1, 1]}],
            "output_type_shape": [{"float": [1, 4, 8, 8]}],
        },
    }


def session(name: str, start: int, micros: int) -> Event:
    return {"cat": "Session", "name": name, "ts": start, "dur": micros, "args": {}}


def execute(start: int, micros: int) -> Event:
    return session("SequentialExecutor::Execute", start, micros)


HEAD = [session("model_loading_uri", 0, 5), session("session_initialization", 5, 9)]
RUN = [node("a", 20, 3), node("b", 24, 5, "Conv"), execute(20, 12), session("model_run", 19, 14)]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.json"


def read(trace: Path, events: Any) -> tuple[Run, ...]:
    trace.write_text(json.dumps(events))
    return read_trace(trace, "net.onnx")


def test_a_run_is_its_nodes_and_its_wall_time(trace: Path) -> None:
    (run,) = read(trace, HEAD + RUN)
    assert run.seconds == pytest.approx(14e-6)
    assert [(n.name, n.operator) for n in run.nodes] == [("a", "Relu"), ("b", "Conv")]
    assert [n.seconds for n in run.nodes] == pytest.approx([3e-6, 5e-6])
    assert run.nodes[0].provider == "CPUExecutionProvider"
    assert run.nodes[0].input_shapes == ((1, 3, 8, 8), (4, 3, 1, 1))
    assert run.nodes[0].output_shapes == ((1, 4, 8, 8),)


def test_runs_follow_one_another(trace: Path) -> None:
    second = [node("a", 40, 1), session("model_run", 39, 4)]
    assert [len(run.nodes) for run in read(trace, HEAD + RUN + second)] == [2, 1]


def test_a_run_that_was_cut_off_is_left_out(trace: Path) -> None:
    assert len(read(trace, HEAD + RUN + [node("a", 40, 1)])) == 1
    assert read(trace, HEAD) == ()


def test_other_events_play_no_part(trace: Path) -> None:
    extra = [
        {**node("a", 1, 1), "name": "a_fence_before"},
        {**node("gpu_kernel", 1, 1), "cat": "Kernel"},
    ]
    assert read(trace, [*extra, *RUN]) == read(trace, RUN)


def test_a_node_with_a_graph_inside_counts_once(trace: Path) -> None:
    """As ONNX Runtime writes a Loop: what ran inside ended, and so stands, before it."""
    inside = [node("x", 12, 2), node("y", 15, 1), execute(12, 5)]
    again = [node("x", 20, 2), node("y", 23, 1), execute(20, 5)]
    events = [node("a", 5, 4), *inside, *again, node("loop", 11, 16, "Loop"), node("z", 30, 1)]
    (run,) = read(trace, [*events, execute(5, 27), session("model_run", 4, 29)])
    assert [n.name for n in run.nodes] == ["a", "loop", "z"]


def test_loops_in_loops(trace: Path) -> None:
    inner = [node("x", 12, 1), execute(12, 2), node("inner", 11, 4, "Loop"), execute(11, 5)]
    events = [node("a", 5, 4), *inner, node("outer", 10, 7, "Loop"), node("z", 30, 1)]
    (run,) = read(trace, [*events, execute(5, 27), session("model_run", 4, 29)])
    assert [n.name for n in run.nodes] == ["a", "outer", "z"]


def broken(**changes: Any) -> Event:
    return {**node("a", 1, 1), **changes}


def without(key: str) -> Event:
    return {name: value for name, value in node("a", 1, 1).items() if name != key}


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ({}, "no list of events"),
        ([1], "not subscriptable"),
        ([without("cat")], "lacks 'cat'"),
        ([without("dur")], "lacks 'dur'"),
        ([without("args")], "lacks 'args'"),
        ([broken(name=7)], "no attribute"),
        ([broken(args=[])], "list indices"),
        ([broken(args={"op_name": 3})], "op_name is 3, not a text"),
        ([broken(dur="long")], "dur is 'long', not a number"),
        ([broken(dur=True)], "dur is True, not a number"),
        ([broken(dur=-1)], "dur is -1, not a time"),
        ([broken(ts=float("nan"))], "ts is nan, not a time"),
        ([broken(ts=10**400)], "too large"),
    ],
)
def test_broken_events(trace: Path, events: Any, reason: str) -> None:
    with pytest.raises(ModelError, match=rf"profile of net.onnx .*{reason}.*run again"):
        read(trace, events)


@pytest.mark.parametrize("content", [b"", b"[", b'[{"cat": "Node"', b"\xff\xfe", b"[" * 100_000])
def test_broken_files(trace: Path, content: bytes) -> None:
    trace.write_bytes(content)
    with pytest.raises(ModelError, match=r"profile of net.onnx can't be read") as caught:
        read_trace(trace, "net.onnx")
    assert "\n" not in str(caught.value)


def test_a_missing_file(trace: Path) -> None:
    with pytest.raises(ModelError, match="No such file"):
        read_trace(trace, "net.onnx")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_trace_is_an_error_of_ours(trace: Path, data: st.DataObject) -> None:
    content = bytearray(json.dumps(HEAD + RUN).encode())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] = data.draw(st.integers(0, 255))
    else:
        del content[place:]
    trace.write_bytes(content)
    with suppress(ModelError):
        assert all(run.seconds >= 0 for run in read_trace(trace, "net.onnx"))
