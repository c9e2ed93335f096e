"""A run's directory: what stands in it after whatever went wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from trpexport.errors import OutputError, TrainingError
from trpexport.training.run_directory import LOCK, METRICS, RUN, STATE, RunDirectory, prune

FACTS = {"arch": "resnet20", "seed": 0, "size": None}


def enter(directory: RunDirectory, facts: Mapping[str, Any], *, restart: bool) -> None:
    with directory.opened(facts, restart=restart):
        pass


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    made = RunDirectory(tmp_path / "deep" / "run")
    enter(made, FACTS, restart=False)
    return made


def test_the_same_run_goes_on(directory: RunDirectory) -> None:
    directory.write_state({"epoch": 3})
    enter(directory, dict(FACTS), restart=False)
    assert directory.read_state() == {"epoch": 3}
    # A setting that runs before it did not know, and that is left out.
    enter(directory, {**FACTS, "new": None}, restart=False)


def test_another_run_is_not_touched(directory: RunDirectory) -> None:
    directory.write_state({"epoch": 3})
    with pytest.raises(
        TrainingError, match=r"other settings \(seed 0 then, 1 now\): choose another"
    ):
        enter(directory, {**FACTS, "seed": 1}, restart=False)
    assert directory.read_state() == {"epoch": 3}
    enter(directory, {**FACTS, "seed": 1}, restart=True)
    assert directory.read_state() is None
    assert json.loads((directory.path / RUN).read_text())["seed"] == 1


def test_a_directory_of_other_files_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    for restart in (False, True):
        with pytest.raises(OutputError, match="no training run: choose another place"):
            enter(RunDirectory(tmp_path), FACTS, restart=restart)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(OutputError, match="can't write"):
        enter(RunDirectory(tmp_path / "run"), FACTS, restart=False)


KILLED = """
import os, signal
from pathlib import Path
from trpexport.training.run_directory import RunDirectory
Path.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
RunDirectory(Path("run")).opened({"seed": 0}, restart=False).__enter__()
"""


def test_a_run_killed_as_it_began_is_begun_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == -signal.SIGKILL
    run = RunDirectory(tmp_path / "run")
    assert [path.suffix for path in run.path.iterdir() if path.name != LOCK] == [".tmp"]
    with run.opened(FACTS, restart=False):
        assert {path.name for path in run.path.iterdir()} == {RUN, LOCK}
    assert [path.name for path in run.path.iterdir()] == [RUN]


@pytest.mark.parametrize("restart", [False, True])
def test_nobody_enters_where_another_trains(directory: RunDirectory, restart: bool) -> None:
    with directory.opened(FACTS, restart=False):
        directory.write_state({"epoch": 3})
        with pytest.raises(OutputError, match=r"run is in use by process \d+ on .*wait for it"):
            enter(RunDirectory(directory.path), FACTS, restart=restart)
        assert directory.read_state() == {"epoch": 3}
    enter(directory, FACTS, restart=False)


@pytest.mark.parametrize("text", ["", "{", "[1]", "\xff", '"x"', "[" * 100_000])
def test_damaged_settings(directory: RunDirectory, text: str) -> None:
    (directory.path / RUN).write_bytes(text.encode("latin-1"))
    with pytest.raises(TrainingError, match="restart the run"):
        enter(directory, FACTS, restart=False)
    enter(directory, FACTS, restart=True)


@pytest.mark.parametrize("keep", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_state(directory: RunDirectory, keep: float) -> None:
    directory.write_state({"model": {"weight": torch.zeros(1000)}})
    data = (directory.path / STATE).read_bytes()
    (directory.path / STATE).write_bytes(data[: int(keep if keep >= 1 else keep * len(data))])
    with pytest.raises(TrainingError, match="damaged") as caught:
        directory.read_state()
    assert "\n" not in str(caught.value)


def test_a_state_is_never_unpickled_into_code(directory: RunDirectory) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return subprocess.getoutput, ("touch /tmp/trpexport-bomb",)

    torch.save({"epoch": Bomb()}, directory.path / STATE)
    with pytest.raises(TrainingError, match="damaged"):
        directory.read_state()
    torch.save([1], directory.path / STATE)
    with pytest.raises(TrainingError, match="no training state"):
        directory.read_state()


def test_metrics_of_steps_that_are_done_again_are_dropped(directory: RunDirectory) -> None:
    for step in (10, 20, 30):
        directory.add_metrics({"step": step})
    with (directory.path / METRICS).open("a") as file:
        file.write('{"step": 4')  # the run was killed as it wrote
    with (directory.path / METRICS).open("ab") as file:
        file.write(b"\n\xff\n" + b"[" * 100_000)  # and the disk is not what it was
    directory.cut_metrics(20)
    assert (directory.path / METRICS).read_text() == '{"step": 10}\n{"step": 20}\n'
    directory.cut_metrics(0)
    assert (directory.path / METRICS).read_text() == ""


def test_a_state_that_can_not_be_written_leaves_the_one_before(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.write_state({"epoch": 1})

    def full(*_: object) -> None:
        raise RuntimeError(
            "[enforce fail at inline_container.cc:659] . unexpected: file write failed"
        )

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="no space left"):
        directory.write_state({"epoch": 2})
    assert directory.read_state() == {"epoch": 1}
    assert sorted(path.name for path in directory.path.iterdir()) == [RUN, STATE]


def test_a_full_disk(small_disk: Path) -> None:
    directory = RunDirectory(small_disk / "run")
    enter(directory, FACTS, restart=False)
    directory.write_state({"epoch": 1, "model": torch.zeros(600_000)})
    with pytest.raises(OutputError, match="no space left there; free some") as caught:
        directory.write_state({"epoch": 2, "model": torch.ones(600_000)})
    assert "\n" not in str(caught.value)
    state = directory.read_state()
    assert state is not None
    assert state["epoch"] == 1
    (small_disk / "rest").write_bytes(bytes(1_200_000))
    with pytest.raises(OutputError, match="no space left"):
        for _ in range(1000):
            directory.add_metrics({"step": 1, "note": "x" * 4000})
    directory.cut_metrics(0)


def runs_of_a_thousand_bytes(folder: Path, *names: str) -> None:
    """Make runs that were written one after the other."""
    for age, name in enumerate(names):
        enter(RunDirectory(folder / name), FACTS, restart=False)
        (folder / name / STATE).write_bytes(b"0" * 1000)
        for file in (folder / name).iterdir():
            os.utime(file, (1000 + age, 1000 + age))


def test_runs_written_longest_ago_go_first(tmp_path: Path) -> None:
    runs_of_a_thousand_bytes(tmp_path, "b", "c", "a")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "state.pt").write_bytes(b"0" * 9000)
    prune(tmp_path, 4000)
    assert len(list(tmp_path.iterdir())) == 4
    prune(tmp_path, 2300)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "c", "others"}
    prune(tmp_path, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"others"}
    prune(tmp_path / "nowhere", 0)


def test_a_run_in_use_is_not_taken_away(tmp_path: Path) -> None:
    runs_of_a_thousand_bytes(tmp_path, "old", "new")
    with RunDirectory(tmp_path / "old").opened(FACTS, restart=False):
        prune(tmp_path, 1500)
        assert (tmp_path / "old" / STATE).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
