"""A bundle: what it may replace, and what its manifest notices."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from trpexport import bundle
from trpexport.errors import ModelError, OccupiedError, OutputError


def make(target: Path, text: str = "hello", *, replace: bool = False) -> None:
    with bundle.staged_directory(target, replace=replace) as staging:
        (staging / "file").write_text(text)
        bundle.write_manifest(staging, {"made_by": "test"})


def test_it_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    make(target)
    assert bundle.read_manifest(target)["made_by"] == "test"
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_an_empty_directory_may_stand_there(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    make(target)
    assert (target / "file").read_text() == "hello"


def test_replacing_needs_to_be_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target)
    with pytest.raises(OccupiedError, match="exists: choose another place, or have it replaced"):
        make(target, "new")
    assert (target / "file").read_text() == "hello"
    make(target, "new", replace=True)
    assert (target / "file").read_text() == "new"


def test_what_is_no_bundle_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(OutputError, match="no bundle"):
        make(tmp_path, replace=True)
    with pytest.raises(OutputError, match="not a directory"):
        make(tmp_path / "mine", replace=True)
    with pytest.raises(OutputError, match="is not a directory"):
        make(tmp_path / "mine" / "out")
    assert (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("kind", ["file", "folder", "folder of a bundle's name"])
def test_files_of_somebody_else_in_a_bundle_are_not_lost(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    make(target)
    mine = target / ("notes.txt" if kind == "file" else "notes" if kind == "folder" else "file")
    if kind == "file":
        mine.write_text("precious")
    else:
        mine.unlink(missing_ok=True)
        mine.mkdir()
    with pytest.raises(OutputError, match=rf"\({mine.name}\) and would be lost: move them, or"):
        make(target, "new", replace=True)
    assert mine.exists()
    mine.rename(tmp_path / "moved")
    make(target, "new", replace=True)
    assert (target / "file").read_text() == "new"


@pytest.mark.parametrize("manifest", ["{", '{"files": 3}'])
def test_of_a_damaged_bundle_the_usual_names_are_its_own(tmp_path: Path, manifest: str) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / bundle.MANIFEST).write_text(manifest)
    (target / bundle.MODEL).touch()
    (target / bundle.PLAN).touch()
    make(target, replace=True)
    assert (target / "file").read_text() == "hello"


def test_whoever_opens_a_bundle_finds_the_one_that_was_moved_aside(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target)
    target.rename(tmp_path / ".out.0123abcd.aside")
    assert bundle.is_directory(target)
    assert bundle.read_manifest(target)["made_by"] == "test"


@pytest.mark.parametrize("replace", [False, True])
def test_what_appears_in_the_meantime_is_replaced_only_if_asked_and_a_bundle(
    tmp_path: Path, replace: bool
) -> None:
    target = tmp_path / "out"
    with (
        pytest.raises(OutputError, match=r"out holds thesis\.tex, made by somebody else"),
        bundle.staged_directory(target, replace=replace) as staging,
    ):
        (staging / "file").write_text("mine")
        target.mkdir()
        (target / "thesis.tex").write_text("four years")
    assert [path.name for path in target.iterdir()] == ["thesis.tex"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (target / "thesis.tex").unlink()
    target.rmdir()
    with (
        nullcontext() if replace else pytest.raises(OutputError, match="by somebody else"),
        bundle.staged_directory(target, replace=replace) as staging,
    ):
        (staging / "file").write_text("mine")
        make(target, "another job's")
    assert (target / "file").read_text() == ("mine" if replace else "another job's")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_bundle_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    make(tmp_path / "store")
    (tmp_path / "out").symlink_to("store")
    with pytest.raises(OccupiedError, match="out exists"):
        make(tmp_path / "out", "new")
    make(tmp_path / "out", "new", replace=True)
    assert (tmp_path / "out").readlink() == Path("store")
    assert (tmp_path / "store" / "file").read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "store"]


def test_a_place_that_no_one_can_write() -> None:
    with pytest.raises(OutputError, match="can't write /proc/none/out"):
        bundle.check_target(Path("/proc/none/out"))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda out: (out / "file").write_text("hellO"), "was changed after the export"),
        (lambda out: (out / "file").unlink(), "lacks file"),
        (lambda out: (out / bundle.MANIFEST).unlink(), "is not a bundle"),
        (lambda out: (out / bundle.MANIFEST).write_text("{"), "is damaged"),
        (lambda out: (out / bundle.MANIFEST).write_text("[" * 100_000), "is damaged"),
        (lambda out: (out / bundle.MANIFEST).write_text('{"files": 3}'), "is damaged"),
        (lambda out: (out / bundle.MANIFEST).write_text('{"files": {"a": 1}}'), "is damaged"),
    ],
)
def test_damage_is_noticed(tmp_path: Path, damage: object, says: str) -> None:
    target = tmp_path / "out"
    make(target)
    assert callable(damage)
    damage(target)
    with pytest.raises(ModelError, match=says):
        bundle.read_manifest(target)


def test_manifest_names_cannot_leave_the_bundle(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target)
    data = json.loads((target / bundle.MANIFEST).read_text())
    data["files"]["../secret"] = {"sha256": "0"}
    (target / bundle.MANIFEST).write_text(json.dumps(data))
    with pytest.raises(ModelError, match="is damaged"):
        bundle.read_manifest(target)
