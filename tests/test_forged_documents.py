"""JSON that a stranger has changed anywhere: it is read as it stands, or refused in one line."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trpexport.bundle import read_manifest
from trpexport.choose import table as sensitivity
from trpexport.choose.table import SensitivityTable
from trpexport.errors import TrpexportError
from trpexport.files import sha256_of
from trpexport.inputs import Inputs
from trpexport.judge.gate.check import Checked, GateResult
from trpexport.judge.gate.history import compare, last_accepted
from trpexport.judge.gate.rules import RULES, Measurements
from trpexport.measure.records import compare_records, read_record, to_csv
from trpexport.ops import Call, LinearOp, Window
from trpexport.plan import LayerPlan, Plan, read_plan
from trpexport.report.render.markdown import markdown
from trpexport.report.views.bench import changes_view

MACHINE = {
    **{"architecture": "x86_64", "cpu": "AMD EPYC", "memory_bytes": 2**34},
    **{"cores": {"physical": 2, "logical": 4, "usable": 4}, "os": {"system": "Linux"}},
}
TIMES = dict.fromkeys(("median", "mad", "min", "p90", "p95", "p99"), 0.001)
ENTRY = {
    **{"label": "net", "sha256": "0" * 64, "file_bytes": 9, "seconds": TIMES, "runs": 9},
    **{"throughput_per_second": 1e3, "session_seconds": 0.1, "first_run_seconds": 0.1},
    "ratio": {"to": "base", "mid": 1.5, "low": 1.0, "high": 2.0, "verdict": "faster"},
    "memory": dict.fromkeys(("baseline_bytes", "with_arena_bytes", "without_arena_bytes"), 9),
    **{"rounds": 3, "macs": 100, "macs_ratio": 2.0, "efficiency": 0.7},
}
SETTINGS = {
    **{"models": [{"path": "a.onnx", "label": "a"}], "provider": "cpu", "provider_options": {}},
    **{"threads": [1], "batch": 1, "shapes": {"x": [1, 3]}, "graph_optimization": "all"},
    **{"allow_spinning": None, "io_binding": True, "seed": 0, "min_runs": 3, "min_time": 0.1},
}
RECORD = {
    **{"kind": "bench", "schema_version": 1, "machine": MACHINE, "settings": SETTINGS},
    "results": [{"threads": 1, "models": [ENTRY]}],
}
HISTORY = {
    **{"kind": "gate", "schema_version": 1, "accepted": True, "created": "2024", "correct": "qA=="},
    **{"data": {"images": 6, "fingerprint": "f"}, "machine": MACHINE},
    "rules": [{"name": "max-latency", "value": 3.0, "low": 2.0, "high": 4.0}],
}
OP = LinearOp(16, 32, 2, True, Window((3, 2), (2, 1), ((1, 1), (0, 1)), (1, 2), "reflect"))
PLAN = Plan(
    "spatial", "rank:4", Inputs.of((1, 3, 8, 8)),
    (
        LayerPlan("a", OP, (Call(4, (8, 8)),), "spatial", 4, 32, (OP, OP), None, 0.5, 9, 7, (2.0,)),
        LayerPlan("b", OP, (), None, None, None, (), "the stem", None, 9, 9, shares="a"),
    ),
    5, "net", {"include": ["a"]}, {"fft": 2},
).to_json()  # fmt: skip
MANIFEST = {"schema_version": 1, "baseline": None, "files": {"model.onnx": {"sha256": "?"}}}
TABLE = {
    "schema_version": sensitivity.SCHEMA_VERSION,
    **{"key": "k", "fixed": {"macs": 5.0}},
    "layers": [
        {
            **{"name": "a", "gains": {"spatial": 1.5}},
            "options": [{"scheme": None, "rank": None, "costs": {"macs": 3.0}, "error": 0.0}],
        }
    ],
}


def consume_record(path: Path) -> Any:
    sound = copy.deepcopy(RECORD)
    forged = read_record(path)
    to_csv(forged)
    changes = [*compare_records(sound, forged), *compare_records(forged, sound)]
    return markdown(changes_view(changes))


def consume_history(path: Path) -> Any:
    rule = RULES["max-latency"]
    row = Checked("max-latency", rule.title, rule.direction, 9.0, "ms", True, 3.0, 2.0, 4.0)
    result = GateResult((row,), False, Measurements(), {"machine": MACHINE})
    accepted = replace(last_accepted(path), correct=None)  # this result saw no images
    return [row.to_json() for row in compare(result, accepted)]


def consume_plan(path: Path) -> Any:
    return json.dumps(read_plan(path).to_json(), allow_nan=False)


def consume_manifest(path: Path) -> Any:
    (path.parent / "model.onnx").write_bytes(b"")
    content = path.read_text().replace('"?"', f'"{sha256_of(path.parent / "model.onnx")}"')
    (path.parent / "manifest.json").write_text(content)
    return read_manifest(path.parent)


def consume_table(path: Path) -> Any:
    try:
        table = SensitivityTable.from_json(json.loads(path.read_text()))
    except ValueError as error:  # it is measured again
        raise TrpexportError("measured again") from error
    return json.dumps(table.to_json(), allow_nan=False)


DOCUMENTS: dict[str, tuple[dict[str, Any], Callable[[Path], Any]]] = {
    "record": (RECORD, consume_record),
    "history": (HISTORY, consume_history),
    "plan": (PLAN, consume_plan),
    "manifest": (MANIFEST, consume_manifest),
    "table": (TABLE, consume_table),
}
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 0.5, -0.0, 1e308, 2**63, 10**400, "", "x", "\x1b[31m[/red]\n", "\ud800"),
    *([], {}, [[]], ["a"], [1e308] * 3, {"a": {"b": 1}}, "y" * 100_000),
)


def places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """All places of a document but its root."""
    items: Any = ()
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list | tuple):
        items = enumerate(data)
    inner = [place for key, value in items for place in places(value, (*path, key))]
    return inner if not path else [path, *inner]


def forged(document: Any, place: tuple[Any, ...], value: Any, *, remove: bool) -> Any:
    changed = json.loads(json.dumps(document))
    where = changed
    for key in place[:-1]:
        where = where[key]
    if remove:
        del where[place[-1]]
    else:
        where[place[-1]] = value
    return changed


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_sound_document_is_read(kind: str, tmp_path: Path) -> None:
    document, consume = DOCUMENTS[kind]
    path = tmp_path / "document.json"
    path.write_text(json.dumps(document) + "\n")
    assert consume(path)


@pytest.mark.parametrize("kind", DOCUMENTS)
@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_a_forged_document_is_read_or_refused_in_one_line(
    kind: str, tmp_path: Path, data: st.DataObject
) -> None:
    document, consume = DOCUMENTS[kind]
    place = data.draw(st.sampled_from(places(json.loads(json.dumps(document)))))
    value = data.draw(st.sampled_from(ODD))
    path = tmp_path / "document.json"
    changed = forged(document, place, value, remove=data.draw(st.booleans()))
    path.write_text(json.dumps(changed) + "\n")
    try:
        consume(path)
    except TrpexportError as error:
        assert len(str(error)) < 1000
