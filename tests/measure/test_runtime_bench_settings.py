from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trpexport.bundle import MODEL, write_manifest
from trpexport.errors import ModelError, TrpexportError
from trpexport.measure.settings import BenchSettings, ModelFile, find_models

MODELS = (
    ModelFile("base.onnx", "base.onnx"),
    ModelFile("out/model.onnx", "out", {"x": (1, 3, 6, 6)}),
)


def test_settings_survive_json() -> None:
    settings = BenchSettings(
        MODELS,
        provider="openvino",
        provider_options={"device_type": "CPU"},
        threads=(1, 2),
        batch=4,
        shapes={"x": (4, 3, 8, 8)},
        min_time=0.5,
        graph_optimization="basic",
        allow_spinning=False,
        keep_samples=True,
    )
    data = json.loads(json.dumps(settings.to_json()))
    assert BenchSettings.from_json(data) == settings
    assert BenchSettings.from_json(BenchSettings(MODELS).to_json()) == BenchSettings(MODELS)


def test_records_of_earlier_versions_have_no_shapes_of_each_model() -> None:
    data = BenchSettings(MODELS[:1]).to_json() | {"models": [{"path": "a", "label": "b"}]}
    assert BenchSettings.from_json(data).models == (ModelFile("a", "b"),)


@pytest.mark.parametrize(
    "change",
    [
        {"models": [{"path": "a"}]},
        {"models": None},
        {"models": [{"path": "a", "label": "a", "shapes": 3}]},
        {"threads": 3},
        {"shapes": []},
        {"min_time": "long"},
        {"unknown": 1},
    ],
)
def test_damaged_settings_are_one_line(change: dict[str, Any]) -> None:
    data = BenchSettings(MODELS).to_json()
    with pytest.raises(TrpexportError, match="are damaged"):
        BenchSettings.from_json(data | change)
    with pytest.raises(TrpexportError, match="are damaged"):
        BenchSettings.from_json({})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ()}, "nothing to bench: name an ONNX file"),
        ({"provider": "cpuu"}, "unknown provider 'cpuu': did you mean cpu"),
        ({"provider_options": {"a": "1"}}, "cpu has no option a"),
        ({"threads": ()}, "threads can't be 0: choose 1 or more"),
        ({"threads": (2, 0)}, "threads can't be 0"),
        ({"batch": 0}, "batch can't be 0"),
        ({"min_time": -1.0}, r"min_time can't be -1\.0: choose 0 or more"),
        ({"min_time": float("nan")}, "min_time can't be nan"),
        ({"min_time": float("inf")}, "min_time can't be inf"),
        ({"min_runs": 0}, "min_runs can't be 0"),
        ({"warmup_seconds": -1.0}, "warmup_seconds can't be"),
        ({"seed": -1}, "seed can't be -1"),
        ({"graph_optimization": "most"}, "'most': choose from disable, basic"),
        ({"data": "x.npy", "shapes": {"x": (1,)}}, "data bring shapes of their own"),
    ],
)
def test_what_can_not_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(TrpexportError, match=message):
        BenchSettings(**({"models": MODELS} | change))


def test_the_method_follows_the_settings() -> None:
    method = BenchSettings(MODELS, min_time=2, min_runs=7, warmup_seconds=3, seed=5).method
    assert (method.min_seconds, method.min_runs, method.seed) == (2, 7, 5)
    assert method.warm_up.max_seconds == 3


# --- files and bundles ----------------------------------------------------------------------


def bundle(directory: Path, **facts: Any) -> Path:
    directory.mkdir(parents=True)
    (directory / MODEL).write_bytes(b"network")
    if name := facts.get("baseline"):
        (directory / name).write_bytes(b"baseline")
    write_manifest(directory, facts)
    return directory


def test_files_are_called_by_their_names(tmp_path: Path) -> None:
    paths = [tmp_path / "a/base.onnx", tmp_path / "b/dec.onnx", tmp_path / "c/model.onnx"]
    found = find_models(paths)
    assert [model.label for model in found] == ["base.onnx", "dec.onnx", "c"]
    assert [model.path for model in found] == list(map(str, paths))


def test_files_of_the_same_name_are_called_by_their_paths(tmp_path: Path) -> None:
    paths = [tmp_path / "a/net.onnx", tmp_path / "b/net.onnx", tmp_path / "other.onnx"]
    labels = [model.label for model in find_models(paths)]
    assert labels == [str(paths[0]), str(paths[1]), "other.onnx"]


def test_bundles_stand_for_their_networks(tmp_path: Path) -> None:
    dense, spatial = bundle(tmp_path / "dense"), bundle(tmp_path / "spatial")
    assert find_models([dense, spatial]) == (
        ModelFile(str(dense / MODEL), "dense"),
        ModelFile(str(spatial / MODEL), "spatial"),
    )


def test_a_bundle_alone_knows_its_baseline(tmp_path: Path) -> None:
    out = bundle(tmp_path / "out", baseline="baseline.onnx")
    other = bundle(tmp_path / "other")
    expected = (
        ModelFile(str(out / "baseline.onnx"), "baseline.onnx"),
        ModelFile(str(out / MODEL), "out"),
    )
    assert find_models([out]) == expected
    assert [model.label for model in find_models([other, out])] == ["other", "out"]
    assert [model.label for model in find_models([other])] == ["other"]


def test_a_baseline_outside_the_bundle(tmp_path: Path) -> None:
    dense = bundle(tmp_path / "dense")
    out = bundle(tmp_path / "out")
    write_manifest(out, {"baseline": "../dense/model.onnx"})
    assert [model.label for model in find_models([out])] == ["dense", "out"]
    (dense / MODEL).unlink()
    with pytest.raises(ModelError, match=r"lacks its baseline \.\./dense/model\.onnx"):
        find_models([out])


def test_a_directory_that_is_no_sound_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a bundle"):
        find_models([tmp_path])
    out = bundle(tmp_path / "out")
    (out / MODEL).write_bytes(b"changed")
    with pytest.raises(ModelError, match="was changed after the export"):
        find_models([out])


ADVICE = {
    **{"provider": "cpu", "threads": 2},
    "options": {"graph_optimization": "extended", "allow_spinning": False, "arena": False},
}


def advised(tmp_path: Path, advice: Any = ADVICE) -> Path:
    (tmp_path / MODEL).write_bytes(b"a network")
    (tmp_path / "baseline.onnx").write_bytes(b"another")
    session = {"file": MODEL, "speedup": 1.1, **advice}
    write_manifest(tmp_path, {"baseline": "baseline.onnx", "session": session})
    return tmp_path


def test_a_bundle_recommends_options_of_its_session(tmp_path: Path) -> None:
    base, model = find_models([advised(tmp_path)])
    assert (base.advice, model.advice) == (None, ADVICE)
    assert ModelFile.from_json(json.loads(json.dumps(model.to_json()))) == model
    settings = BenchSettings((base, model))
    assert settings.session(model, 2) == ADVICE["options"]
    # It holds where it was measured alone, and what is asked for goes before it.
    assert settings.session(base, 2) == settings.session(model, 1) == {}
    assert BenchSettings((model,), provider="arm").session(model, 2) == {}
    asked = BenchSettings((model,), graph_optimization="all", allow_spinning=True)
    assert asked.session(model, 2) == {"arena": False}


def test_a_forged_recommendation_opens_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    forged = {**ADVICE, "options": {"arena": False, "profile_prefix": "/tmp/x", "threads": 9}}
    (model,) = find_models([advised(tmp_path / "one", forged) / MODEL, tmp_path / "one"])[1:]
    assert BenchSettings((model,)).session(model, 2) == {"arena": False}
    with pytest.raises(ModelError, match="damaged"):
        find_models([advised(tmp_path / "one", {**ADVICE, "options": {"arena": "no"}})])
