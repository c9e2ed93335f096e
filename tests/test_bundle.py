"""A directory that appears whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trpexport import bundle
from trpexport.errors import ModelError, OutputError


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


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_or_not_at_all(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "out"
    make(target)
    with pytest.raises(error), bundle.staged_directory(target, replace=True) as staging:
        (staging / "file").write_text("half")
        raise error
    assert (target / "file").read_text() == "hello"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failed_swap_brings_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    make(target)
    rename = Path.rename

    def fail_once(self: Path, to: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise OSError(5, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OutputError, match="Input/output error"):
        make(target, "new", replace=True)
    assert (target / "file").read_text() == "hello"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_replacing_needs_to_be_asked_for(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make(target)
    with pytest.raises(OutputError, match="--force"):
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
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="not a directory"):
        make(tmp_path / "dangling")
    assert (tmp_path / "mine").read_text() == "precious"


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


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        bundle.write_json(tmp_path / "x.json", {"x": float("nan")})
