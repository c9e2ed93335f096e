"""A directory that appears whole or not at all, and harms nothing that others put there."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from trpexport import directories
from trpexport.errors import OutputError

Replaceable = Callable[[Path], bool]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def anything(directory: Path) -> bool:
    return True


def marked(directory: Path) -> bool:
    return (directory / "mark").is_file()


@pytest.fixture(params=["renameat2", "rename"])
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Linux as it is, and a system that knows no more than POSIX."""
    if request.param == "rename":
        monkeypatch.setattr(directories, "_renameat2", lambda source, target, flag: False)
    return str(request.param)


@pytest.mark.usefixtures("system")
class TestOneDirectory:
    def make(self, target: Path, text: str = "mine", replaceable: Replaceable = marked) -> None:
        with directories.staged_directory(target, replaceable=replaceable) as staging:
            (staging / "file").write_text(text)
            (staging / "mark").touch()

    def test_it_appears_whole(self, tmp_path: Path) -> None:
        target = tmp_path / "deep" / "out"
        self.make(target)
        assert names(target) == ["file", "mark"]
        assert names(target.parent) == ["out"]

    def test_an_empty_directory_may_stand_there(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        self.make(tmp_path / "out", replaceable=lambda directory: False)
        assert names(tmp_path / "out") == ["file", "mark"]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    @pytest.mark.parametrize("there", [False, True])
    def test_or_not_at_all(self, tmp_path: Path, error: type[BaseException], there: bool) -> None:
        target = tmp_path / "out"
        if there:
            self.make(target, "old")
        with (
            pytest.raises(error),
            directories.staged_directory(target, replaceable=anything) as staging,
        ):
            (staging / "file").write_text("half")
            raise error
        assert names(tmp_path) == ["out"] * there
        assert not there or (target / "file").read_text() == "old"

    @pytest.mark.parametrize("kind", ["thesis", "empty", "file", "link", "dangling", "pipe"])
    @pytest.mark.parametrize("was_empty", [False, True])
    @pytest.mark.parametrize("replaceable", [marked, None])
    def test_what_appears_in_the_meantime_is_not_touched(
        self, tmp_path: Path, kind: str, was_empty: bool, replaceable: Replaceable | None
    ) -> None:
        target, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "mark").touch()
        if was_empty:
            target.mkdir()

        def job() -> None:
            with directories.staged_directory(
                target, replaceable=replaceable or (lambda directory: False)
            ) as staging:
                (staging / "file").write_text("mine")
                if was_empty:
                    target.rmdir()
                self.put(kind, target, elsewhere)

        if kind == "empty" and was_empty:
            return  # one empty directory is as good as another
        says = {"thesis": "holds thesis.tex", "empty": "is empty", "link": "holds mark"}
        with pytest.raises(OutputError, match=says.get(kind, "is not a directory")) as caught:
            job()
        assert "left as it is" in str(caught.value)
        assert self.is_still(kind, target, elsewhere)
        assert names(tmp_path) == ["elsewhere", "out"]
        assert names(elsewhere) == ["mark"]

    @staticmethod
    def put(kind: str, target: Path, elsewhere: Path) -> None:
        if kind in {"thesis", "empty"}:
            target.mkdir()
            if kind == "thesis":
                (target / "thesis.tex").write_text("four years")
        elif kind == "file":
            target.write_text("four years")
        elif kind == "pipe":
            os.mkfifo(target)
        else:
            target.symlink_to(elsewhere if kind == "link" else "nowhere")

    @staticmethod
    def is_still(kind: str, target: Path, elsewhere: Path) -> bool:
        if kind == "thesis":
            return (target / "thesis.tex").read_text() == "four years"
        if kind == "empty":
            return names(target) == []
        if kind == "file":
            return target.read_text() == "four years"
        if kind == "pipe":
            return target.is_fifo()
        return target.readlink() == (elsewhere if kind == "link" else Path("nowhere"))

    def test_what_may_be_replaced_may_appear(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        with directories.staged_directory(target, replaceable=marked) as staging:
            (staging / "file").write_text("mine")
            self.make(target, "another job's")
        assert (target / "file").read_text() == "mine"
        assert names(tmp_path) == ["out"]

    def test_what_is_deleted_is_asked_about(self, tmp_path: Path) -> None:
        """Somebody may act between the last look and the rename: what came then comes back."""
        target = tmp_path / "out"
        self.make(target, "old")
        asked: list[Path] = []

        def replaceable(directory: Path) -> bool:
            asked.append(directory)
            if len(asked) == 2:  # the look before the exchange, and right after it
                answer = marked(directory)
                (directory / "mark").unlink()
                (directory / "thesis.tex").write_text("four years")
                return answer
            return marked(directory)

        with pytest.raises(OutputError, match=r"holds file, thesis\.tex, made by somebody else"):
            self.make(target, "new", replaceable)
        assert len(asked) == 3
        assert (target / "thesis.tex").read_text() == "four years"
        assert (target / "file").read_text() == "old"
        assert names(tmp_path) == ["out"]

    def test_of_two_jobs_the_second_is_told_who_is_there(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        self.make(target, "old")

        def job() -> None:
            with pytest.raises(OutputError) as caught:
                self.make(target, "the second's")
            who = f"process {os.getpid()} on {re.escape(platform.node())} since 20"
            assert re.match(f"{re.escape(str(target))} is in use by {who}", str(caught.value))

        with directories.staged_directory(target, replaceable=marked) as staging:
            (staging / "file").write_text("the first's")
            (staging / "mark").touch()
            with ThreadPoolExecutor(1) as pool:
                pool.submit(job).result()
        assert (target / "file").read_text() == "the first's"
        assert names(tmp_path) == ["out"]

    def test_a_link_stays_and_what_it_points_to_is_replaced(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        self.make(store / "real", "old")
        (tmp_path / "out").symlink_to("store/real")
        self.make(tmp_path / "out", "new")
        assert (tmp_path / "out").readlink() == Path("store/real")
        assert (store / "real" / "file").read_text() == "new"
        assert names(tmp_path) == ["out", "store"]
        assert names(store) == ["real"]

    @pytest.mark.parametrize("kind", ["thesis", "file", "dangling", "pipe"])
    def test_what_stands_there_is_told_before_the_work(self, tmp_path: Path, kind: str) -> None:
        target = tmp_path / "out"
        self.put(kind, target, tmp_path)
        says = "holds thesis.tex" if kind == "thesis" else "is not a directory"
        with pytest.raises(OutputError, match=f"out {says}: choose another place"):
            directories.check_directory(target, replaceable=marked)
        with pytest.raises(OutputError, match=f"out {says}: choose another place"):
            self.make(target)
        assert self.is_still(kind, target, tmp_path)
        assert names(tmp_path) == ["out"]

    def test_a_full_disk_leaves_nothing(self, small_disk: Path) -> None:
        target = small_disk / "out"
        self.make(target, "old")
        with (
            pytest.raises(OutputError, match=f"can't write {target}: no space left there; free"),
            directories.staged_directory(target, replaceable=marked) as staging,
        ):
            (staging / "file").write_bytes(bytes(5_000_000))
        assert (target / "file").read_text() == "old"
        assert names(small_disk) == ["out"]


def test_jobs_that_replace_the_same_place_never_leave_it_empty(tmp_path: Path) -> None:
    target = tmp_path / "out"
    make = TestOneDirectory().make
    make(target, "0")

    def job(number: int) -> None:
        for _ in range(40):
            with suppress(OutputError):  # another one is at work
                make(target, str(number) * 1000)

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(job, number) for number in (1, 2)]
        while not all(one.done() for one in jobs):
            assert target.is_dir()
        for one in jobs:
            one.result()
    assert (target / "file").read_text() in ("1" * 1000, "2" * 1000)
    assert names(tmp_path) == ["out"]


# A job that the system ends, as nothing can be done about, at the moment that a rename is due.
KILLED = """
import os, signal, sys
from pathlib import Path
from trpexport import directories

def dying(call):
    def rename(source, target, *rest):
        if {due}:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(source, target, *rest)
    return rename

if {posix}:
    directories._renameat2 = lambda *arguments: False
else:
    directories._renameat2 = dying(directories._renameat2)
Path.rename = dying(Path.rename)
with directories.staged_directory(Path("out"), replaceable=lambda directory: True) as staging:
    (staging / "file").write_text("new")
    (staging / "mark").touch()
"""


def kill(folder: Path, due: str, *, posix: bool) -> None:
    program = KILLED.format(due=due, posix=posix)
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("due", "posix", "stands"),
    [
        ("str(target) == str(Path('out').absolute())", False, "old"),
        ("target.suffix == '.old'", False, "new"),
        ("target.suffix == '.aside'", True, "old"),
        ("source.suffix == '.tmp'", True, None),
        ("target.suffix == '.tmp'", True, "new"),
        ("target.suffix == '.old'", True, "new"),
    ],
)
def test_a_kill_at_any_rename_leaves_the_old_or_the_new(
    tmp_path: Path, due: str, posix: bool, stands: str | None
) -> None:
    target = tmp_path / "out"
    make = TestOneDirectory().make
    make(target, "old")
    kill(tmp_path, due, posix=posix)
    assert len(names(tmp_path)) > 1
    assert (stands is None) != target.is_dir()
    directories.restore(target)  # as whoever reads it does
    assert (target / "file").read_text() == (stands or "old")
    (tmp_path / ".out.0123abcd.tmp.txt").touch()  # somebody's own
    make(target, "next")
    assert (target / "file").read_text() == "next"
    assert names(tmp_path) == [".out.0123abcd.tmp.txt", "out"]


def test_parents_that_were_made_for_nothing_are_gone(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), directories.place_reserved(tmp_path / "a" / "b" / "out"):
        assert (tmp_path / "a" / "b").is_dir()
        raise RuntimeError
    assert names(tmp_path) == []


def test_a_failed_exchange_brings_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    make = TestOneDirectory().make
    make(target, "old")
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if self.name.endswith(".tmp") and to.name == "out":
            raise OSError(5, "Input/output error")
        return rename(self, to)

    monkeypatch.setattr(directories, "_renameat2", lambda source, target, flag: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        make(target, "new")
    assert (target / "file").read_text() == "old"
    assert names(tmp_path) == ["out"]
