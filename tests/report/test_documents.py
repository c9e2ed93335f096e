"""Bundles and records that a stranger has changed anywhere: shown, or refused in one line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.pages import BENCH, EPOCHS, GATE, PROFILE, SENSITIVITY, SWEEP, write_bundle
from tests.test_forged_documents import ODD, forged, places
from trpexport.bundle import REPORT, read_manifest, write_manifest
from trpexport.errors import TrpexportError
from trpexport.report.documents import Bundle, Record, read_document
from trpexport.report.render.html import html
from trpexport.report.render.markdown import markdown_page
from trpexport.report.views.chapters import page_of

METRIC = {**GATE, "metric": "miou", "baseline": {"path": "a", "value": 1.5}}
METRIC |= {"candidate": {"path": "b", "value": None}}
OUTPUTS = {key: value for key, value in GATE.items() if key != "top1"}
OUTPUTS |= {"outputs": {"output": {"error": 0.1, "agreement": None}}}
RECORDS: dict[str, Any] = {
    **{"bench": BENCH, "profile": PROFILE, "gate": GATE},
    **{"sensitivity": SENSITIVITY, "sweep": SWEEP},
    **{"gate by metric": METRIC, "gate by outputs": OUTPUTS},
}


def show(path: Path) -> str:
    page = page_of([read_document(path)], lambda bundle: ())
    return html(page) + markdown_page(page)


def check(path: Path) -> None:
    try:
        show(path)
    except TrpexportError as error:
        assert len(str(error)) < 1000


def changed(data: st.DataObject, document: Any) -> Any:
    sound = json.loads(json.dumps(document))
    place = data.draw(st.sampled_from(places(sound)))
    return forged(sound, place, data.draw(st.sampled_from(ODD)), remove=data.draw(st.booleans()))


forging = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("name", RECORDS)
def test_a_sound_record_is_shown(name: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(RECORDS[name]))
    assert "<h2" in show(path)


@pytest.mark.parametrize("name", RECORDS)
@forging
@given(data=st.data())
def test_a_forged_record_is_shown_or_refused(
    name: str, tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(changed(data, RECORDS[name])))
    check(path)


@forging
@given(data=st.data())
def test_forged_metrics_are_shown_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = changed(data, {"first": EPOCHS[0], "second": EPOCHS[1]}).values()
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    check(path)


@settings(forging, max_examples=80)
@given(data=st.data())
def test_a_forged_report_is_shown_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "forged"
    if not path.exists():
        write_bundle(path)
    report = json.loads((path / REPORT).read_text())
    manifest = copy.deepcopy(read_manifest(path))
    facts = {
        key: value for key, value in manifest.items() if key not in ("schema_version", "files")
    }
    try:
        (path / REPORT).write_text(json.dumps(changed(data, report)))
        write_manifest(path, facts)
        check(path)
    finally:
        (path / REPORT).write_text(json.dumps(report))
        write_manifest(path, facts)


@settings(forging, max_examples=25)
@given(data=st.data())
def test_a_forged_manifest_is_shown_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "forged manifest"
    if not path.exists():
        write_bundle(path)
    manifest = json.loads((path / "manifest.json").read_text())
    try:
        (path / "manifest.json").write_text(json.dumps(changed(data, manifest)))
        check(path)
    finally:
        (path / "manifest.json").write_text(json.dumps(manifest))


def test_labels_tell_what_a_document_is(tmp_path: Path) -> None:
    bundle = read_document(write_bundle(tmp_path / "small"))
    assert isinstance(bundle, Bundle) and bundle.label == "small"
    assert Record(Path("a/run/metrics.jsonl"), "training", {}).label == "run"
    assert Record(Path("a/bench.json"), "bench", {}).label == "bench"


def test_bundles_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    paths = [write_bundle(tmp_path / one / "out") for one in ("a", "b")]
    page = page_of([read_document(path) for path in paths], lambda bundle: ())
    assert [chapter.title for chapter in page.chapters] == ["Compared", *map(str, paths)]
