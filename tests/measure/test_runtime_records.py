from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from trpexport.errors import ModelError, TrpexportError
from trpexport.measure.bench import BenchSettings, ModelFile, bench
from trpexport.measure.records import attach_costs, compare_records, read_record, to_csv

WriteOnnx = Callable[..., Path]
Record = dict[str, Any]


@pytest.fixture(scope="module")
def models(write_onnx: WriteOnnx) -> tuple[ModelFile, ...]:
    """A product of 100 x 80, and a pair of rank 10: 8,000 MACs an image against 1,800."""
    generator = np.random.default_rng(0)
    w, a, b = (
        generator.standard_normal(shape).astype(np.float32)
        for shape in ((100, 80), (100, 10), (10, 80))
    )
    dense = write_onnx(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ("n", 100)}, {"y": None}, {"w": w}
    )
    pair = write_onnx(
        [
            helper.make_node("MatMul", ["x", "a"], ["h"]),
            helper.make_node("MatMul", ["h", "b"], ["y"]),
        ],
        {"x": ("n", 100)},
        {"y": None},
        {"a": a, "b": b},
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    return ModelFile(str(dense), "dense"), ModelFile(str(pair), "pair")


@pytest.fixture(scope="module")
def benched(models: tuple[ModelFile, ...]) -> Record:
    return bench(
        BenchSettings(
            models, threads=(1, 2), batch=4, min_time=0, min_runs=1, warmup_seconds=0, memory=False
        )
    )


@pytest.fixture
def record(benched: Record) -> Record:
    return copy.deepcopy(benched)


def entry(record: Record, index: int = 1, result: int = 0) -> Record:
    return dict(record["results"][result]["models"][index])


# --- costs ----------------------------------------------------------------------------------


def test_latency_gets_its_macs(record: Record, models: tuple[ModelFile, ...]) -> None:
    before = copy.deepcopy(record)
    priced = attach_costs(record, models)
    assert record == before
    for result in (0, 1):
        base, pair = entry(priced, 0, result), entry(priced, 1, result)
        assert (base["macs"], pair["macs"]) == (4 * 8000, 4 * 1800)
        assert (base["macs_ratio"], base["efficiency"]) == (None, None)
        assert pair["macs_ratio"] == pytest.approx(8000 / 1800)
        assert pair["efficiency"] == pytest.approx(pair["ratio"]["mid"] * 1800 / 8000)
        assert base["uncounted"] == pair["uncounted"] == {}


def test_weights_in_a_second_file_count_as_file_size(
    record: Record, models: tuple[ModelFile, ...]
) -> None:
    path = Path(models[1].path)
    weights = path.parent / "weights.data"
    expected = path.stat().st_size + weights.stat().st_size
    assert weights.stat().st_size >= 4 * 1800
    once = attach_costs(record, models)
    assert entry(once)["file_bytes"] == expected
    assert attach_costs(once, models) == once


def test_no_efficiency_where_macs_are_not_known(write_onnx: WriteOnnx) -> None:
    def stft(length: int) -> ModelFile:
        node = helper.make_node("Det", ["x"], ["y"])
        path = write_onnx([node], {"x": (1, length, length)}, {"y": (1,)})
        return ModelFile(str(path), str(length))

    models = (stft(4), stft(2))
    record = bench(BenchSettings(models, min_time=0, min_runs=1, warmup_seconds=0, memory=False))
    priced = attach_costs(record, models)
    assert entry(priced)["uncounted"] == {"Det": 1}
    assert entry(priced)["efficiency"] is None
    assert entry(priced)["macs_ratio"] is None


def test_a_file_that_is_gone_is_an_error(record: Record, models: tuple[ModelFile, ...]) -> None:
    gone = (models[0], ModelFile("/nowhere/model.onnx", "pair"))
    with pytest.raises(ModelError, match="there is no file"):
        attach_costs(record, gone)


# --- tables ---------------------------------------------------------------------------------


def test_a_table_has_a_line_for_each_network_and_number_of_threads(
    record: Record, models: tuple[ModelFile, ...]
) -> None:
    rows = list(csv.DictReader(to_csv(attach_costs(record, models)).splitlines()))
    assert [(row["threads"], row["label"]) for row in rows] == [
        ("1", "dense"),
        ("1", "pair"),
        ("2", "dense"),
        ("2", "pair"),
    ]
    assert float(rows[1]["seconds.median"]) == entry(record)["seconds"]["median"]
    assert float(rows[1]["ratio.mid"]) == entry(record)["ratio"]["mid"]
    assert rows[1]["macs"] == "7200"
    assert rows[0]["ratio.mid"] == rows[0]["memory.baseline_bytes"] == ""


def test_a_label_with_a_comma_stays_in_its_column(record: Record) -> None:
    record["results"][0]["models"][1]["label"] = 'a,"b"'
    assert list(csv.DictReader(to_csv(record).splitlines()))[1]["label"] == 'a,"b"'


# --- reading --------------------------------------------------------------------------------


def test_a_record_is_read_again(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    assert read_record(path) == record


def damage(record: Record, *keys: Any, value: Any = None) -> str:
    place = record
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return json.dumps(record)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda r: None, "can't read .*No such file"),
        (lambda r: "{", "is no record of a bench"),
        (lambda r: "[" * 100_000, "is no record of a bench"),
        (lambda r: "[1]", "is no record of a bench"),
        (lambda r: '{"kind": "profile"}', "is no record of a bench"),
        (lambda r: damage(r, "schema_version", value=9), "schema version 9, .* reads 1: bench"),
        (lambda r: damage(r, "machine"), "is damaged"),
        (lambda r: damage(r, "machine", "cores", value=3), "is damaged"),
        (lambda r: damage(r, "settings", "threads"), "is damaged"),
        (lambda r: damage(r, "settings", "provider", value="?"), "is damaged"),
        (lambda r: damage(r, "results", value=5), "is damaged"),
        (lambda r: damage(r, "results", 0, "models", 0, "seconds"), "is damaged"),
        (lambda r: damage(r, "results", 0, "models", 1, "ratio", "low"), "is damaged"),
        (
            lambda r: damage(r, "results", 0, "models", 0, "seconds", "median", value="x"),
            "is damaged",
        ),
    ],
)
def test_a_file_that_is_no_record_is_one_line(
    content: Callable[[Record], str | None], message: str, record: Record, tmp_path: Path
) -> None:
    path = tmp_path / "record.json"
    text = content(record)
    if text is not None:
        path.write_text(text)
    with pytest.raises(TrpexportError, match=message) as caught:
        read_record(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- comparing ------------------------------------------------------------------------------


@pytest.mark.parametrize("old_first", [True, False])
def test_a_setting_that_one_record_lacks_is_a_difference(
    record: Record, tmp_path: Path, old_first: bool
) -> None:
    paths = (tmp_path / "old.json", tmp_path / "new.json")
    paths[0].write_text(damage(copy.deepcopy(record), "settings", "batch"))
    paths[1].write_text(json.dumps(record))
    old, new = map(read_record, paths if old_first else paths[::-1])
    with pytest.raises(TrpexportError, match=r"different settings .batch: "):
        compare_records(old, new)


def timed(record: Record, median: float, mad: float, index: int = 1) -> Record:
    changed = copy.deepcopy(record)
    changed["results"][0]["models"][index]["seconds"] |= {"median": median, "mad": mad}
    return changed


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        ((0.5, 0.1), "faster"),
        ((1.6, 0.1), "slower"),
        ((0.75, 0.1), "no measurable difference"),
        ((1.29, 0.1), "no measurable difference"),
    ],
)
def test_medians_apart_by_more_than_the_noise_are_a_change(
    record: Record, new: tuple[float, float], verdict: str
) -> None:
    changes = compare_records(timed(record, 1.0, 0.2), timed(record, *new))
    assert [(change.threads, change.label) for change in changes] == [
        (1, "dense"),
        (1, "pair"),
        (2, "dense"),
        (2, "pair"),
    ]
    assert changes[1].verdict == verdict
    assert changes[1].ratio == pytest.approx(1 / new[0])
    assert changes[1].is_same_file
    assert {changes[index].verdict for index in (0, 2, 3)} == {"no measurable difference"}
    assert changes[1].to_json()["new_seconds"] == new[0]


def test_another_file_of_the_same_name_is_told(record: Record) -> None:
    other = copy.deepcopy(record)
    other["results"][0]["models"][1]["sha256"] = "0" * 64
    assert [c.is_same_file for c in compare_records(record, other)] == [True, False, True, True]


def test_another_machine_is_refused_unless_told_to(record: Record) -> None:
    other = copy.deepcopy(record)
    other["machine"]["cpu"] = "4x Cortex-A72"
    message = rf"different machines \(CPU: {record['machine']['cpu']} and 4x Cortex-A72\)"
    with pytest.raises(TrpexportError, match=message):
        compare_records(record, other)
    assert len(compare_records(record, other, allow_other_machine=True)) == 4
    other["machine"] = record["machine"] | {"load_average": [9, 9, 9]}
    assert len(compare_records(record, other)) == 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("provider", "arm"),
        ("provider_options", {"device_id": "1"}),
        ("threads", [1]),
        ("batch", 8),
        ("shapes", {"x": [1, 100]}),
        ("graph_optimization", "basic"),
        ("allow_spinning", False),
    ],
)
def test_other_settings_are_refused(record: Record, key: str, value: Any) -> None:
    other = copy.deepcopy(record)
    other["settings"][key] = value
    for allow in (False, True):
        with pytest.raises(TrpexportError, match=f"different settings .{key.replace('_', ' ')}: "):
            compare_records(record, other, allow_other_machine=allow)
    other["settings"] = record["settings"] | {"seed": 7, "min_time": 9.0}
    other["settings"]["graph_optimization"] = "all"  # as records of earlier versions say it
    assert compare_records(record, other)


def test_records_without_a_common_network_are_refused(record: Record) -> None:
    other = copy.deepcopy(record)
    for result in other["results"]:
        for model in result["models"]:
            model["label"] += "2"
    with pytest.raises(TrpexportError, match=r"no network in common \(dense, pair; then"):
        compare_records(record, other)
