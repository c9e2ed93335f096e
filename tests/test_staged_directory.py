"""A directory that appears whole or not at all, and harms nothing that others put there."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from trpexport import files
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
        monkeypatch.setattr(files, "_renameat2", lambda source, target, flag: False)
    return str(request.param)


@pytest.mark.usefixtures("system")
class TestOneDirectory:
    def make(self, target: Path, text: str = "mine", replaceable: Replaceable = marked) -> None:
        with files.staged_directory(target, replaceable=replaceable) as staging:
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
            files.staged_directory(target, replaceable=anything) as staging,
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
            with files.staged_directory(
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
        with files.staged_directory(target, replaceable=marked) as staging:
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

    def test_of_two_jobs_one_wins_whole_and_the_other_says_so(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        for _ in range(20):
            both = Barrier(2)

            def job(text: str, both: Barrier = both) -> str:
                try:
                    with files.staged_directory(target) as staging:
                        for name in "abc":
                            (staging / name).write_text(text)
                        both.wait()
                except OutputError as error:
                    assert "holds a, b, c" in str(error)
                    return "lost"
                return "won"

            with ThreadPoolExecutor(2) as pool:
                results = list(pool.map(job, ("first", "second")))
            assert sorted(results) == ["lost", "won"]
            winner = ("first", "second")[results.index("won")]
            assert [(target / name).read_text() for name in "abc"] == [winner] * 3
            assert names(tmp_path) == ["out"]
            for name in "abc":
                (target / name).unlink()
            target.rmdir()

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
            files.check_directory(target, replaceable=marked)
        with pytest.raises(OutputError, match=f"out {says}: choose another place"):
            self.make(target)
        assert self.is_still(kind, target, tmp_path)
        assert names(tmp_path) == ["out"]

    def test_a_full_disk_leaves_nothing(self, small_disk: Path) -> None:
        target = small_disk / "out"
        self.make(target, "old")
        with (
            pytest.raises(OutputError, match=f"can't write {target}: no space left there; free"),
            files.staged_directory(target, replaceable=marked) as staging,
        ):
            (staging / "file").write_bytes(bytes(5_000_000))
        assert (target / "file").read_text() == "old"
        assert names(small_disk) == ["out"]


def test_two_jobs_may_replace_the_same_place(tmp_path: Path) -> None:
    """Where the system exchanges names at once, the place is never empty and never half."""
    target = tmp_path / "out"
    make = TestOneDirectory().make
    make(target, "0")

    def job(number: int) -> None:
        for _ in range(40):
            make(target, str(number) * 1000)

    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(job, number) for number in (1, 2)]
        while not all(one.done() for one in jobs):
            assert target.is_dir()
        for one in jobs:
            one.result()
    assert (target / "file").read_text() in ("1" * 1000, "2" * 1000)
    assert names(tmp_path) == ["out"]


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

    monkeypatch.setattr(files, "_renameat2", lambda source, target, flag: False)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OutputError, match="Input/output error"):
        make(target, "new")
    assert (target / "file").read_text() == "old"
    assert names(tmp_path) == ["out"]
