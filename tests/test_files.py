"""What stands on the disk after a write, whatever went wrong and whoever else was writing."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from trpexport import files
from trpexport.errors import OutputError


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


class TestOneFile:
    def test_it_appears_whole_with_the_mode_that_the_user_wants(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            files.write_atomically(tmp_path / "x", b"all of it")
        finally:
            os.umask(before)
        assert (tmp_path / "x").read_bytes() == b"all of it"
        assert mode_of(tmp_path / "x") == 0o640
        assert names(tmp_path) == ["x"]

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_or_not_at_all(self, tmp_path: Path, error: type[BaseException]) -> None:
        path = tmp_path / "x"
        path.write_text("old")
        with pytest.raises(error), files.staged_file(path) as file:
            file.write(b"half")
            raise error
        assert path.read_text() == "old"
        assert names(tmp_path) == ["x"]

    @pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
    def test_a_file_that_is_replaced_hands_on_its_mode(self, tmp_path: Path, mode: int) -> None:
        path = tmp_path / "x"
        path.write_text("old")
        path.chmod(mode)
        with files.staged_file(path) as file:
            (staging,) = (found for found in tmp_path.iterdir() if found != path)
            assert mode_of(staging) == mode  # nobody reads in the meantime what is not theirs
            file.write(b"new")
        assert path.read_text() == "new"
        assert mode_of(path) == mode

    def test_a_symbolic_link_stays_one(self, tmp_path: Path) -> None:
        store = tmp_path / "store"
        store.mkdir()
        (store / "real").write_text("old")
        for name, to in (("link", "store/real"), ("twice", "link"), ("early", "store/new")):
            (tmp_path / name).symlink_to(to)
        files.write_atomically(tmp_path / "twice", b"new")
        files.write_atomically(tmp_path / "early", b"first")  # the file behind it comes to be
        assert (store / "real").read_text() == "new"
        assert (store / "new").read_text() == "first"
        assert all((tmp_path / name).is_symlink() for name in ("link", "twice", "early"))
        assert names(store) == ["new", "real"]

    @pytest.mark.parametrize("kind", ["pipe", "device", "folder", "loop"])
    def test_only_a_plain_file_is_replaced(self, tmp_path: Path, kind: str) -> None:
        place = tmp_path / kind
        if kind == "pipe":
            os.mkfifo(place)
        elif kind == "folder":
            place.mkdir()
        else:
            place.symlink_to("/dev/null" if kind == "device" else kind)
        before = place.lstat()
        with pytest.raises(OutputError, match=f"can't write {place}: .*; choose another place"):
            files.write_atomically(place, b"x")
        assert place.lstat().st_ino == before.st_ino
        assert names(tmp_path) == [kind]

    def test_a_name_may_be_as_long_as_the_system_allows(self, tmp_path: Path) -> None:
        for name in ("x" * 255, "é" * 127):
            files.write_atomically(tmp_path / name, b"x")
            assert (tmp_path / name).read_bytes() == b"x"

    def test_a_full_disk_leaves_the_old_file_alone(self, small_disk: Path) -> None:
        path = small_disk / "x"
        path.write_text("old")
        with pytest.raises(OutputError, match=f"can't write {path}: no space left there; free"):
            files.write_atomically(path, bytes(5_000_000))
        assert path.read_text() == "old"
        assert names(small_disk) == ["x"]

    def test_it_is_on_the_disk_before_it_gets_the_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[tuple[int, int, list[str]]] = []

        def fsync(descriptor: int) -> None:
            found = os.fstat(descriptor)
            synced.append((found.st_ino, found.st_size, names(tmp_path)))

        monkeypatch.setattr(os, "fsync", fsync)
        files.write_atomically(tmp_path / "x", b"12345")
        assert [(inode, size) for inode, size, _ in synced] == [((tmp_path / "x").stat().st_ino, 5)]
        assert "x" not in synced[0][2]


def write_often(path: Path, letter: str) -> None:
    for _ in range(60):
        files.write_json(path, {"written by": letter * 20_000})


def test_a_file_written_from_everywhere_is_always_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.write_json(path, {"written by": "z" * 20_000})
    others = [
        multiprocessing.get_context("spawn").Process(target=write_often, args=(path, letter))
        for letter in "ab"
    ]
    for other in others:
        other.start()
    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(write_often, path, letter) for letter in "cd"]
        while not all(writer.done() for writer in writers) or any(o.is_alive() for o in others):
            text = files.read_json(path)["written by"]
            assert len(text) == 20_000
            assert len(set(text)) == 1
        for writer in writers:
            writer.result()
    for other in others:
        other.join()
        assert other.exitcode == 0
    assert names(tmp_path) == ["x.json"]


KILLED = """
import os, signal
from pathlib import Path
from trpexport import files
Path.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(Path("x"), b"new")
"""


def test_what_a_kill_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    command = [sys.executable, "-c", KILLED]
    assert subprocess.run(command, cwd=tmp_path, check=False).returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 2
    assert (tmp_path / "x").read_text() == "old"
    mine = [".x.0123abcd.tmp2", ".x.0123abcg.tmp", ".y.0123abcd.tmp", "x.0123abcd.tmp"]
    for name in mine:
        (tmp_path / name).touch()
    (tmp_path / ".x.89abcdef.tmp").symlink_to("x")
    with files.staged_file(tmp_path / "x") as living:
        living.write(b"first")
        files.write_atomically(tmp_path / "x", b"second")
    assert (tmp_path / "x").read_bytes() == b"first"
    assert names(tmp_path) == sorted([*mine, ".x.89abcdef.tmp", "x"])


class TestLines:
    def test_lines_of_many_do_not_mix(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda i: files.append_text(path, f"{i} " * 2000 + "\n"), range(80)))
        lines = path.read_text().splitlines()
        assert sorted(line.split()[0] for line in lines) == sorted(map(str, range(80)))
        assert all(line.split() == [line.split()[0]] * 2000 for line in lines)

    def test_a_torn_line_is_left_behind(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        path.write_text("one\ntw")
        files.append_text(path, "three\n")
        assert path.read_text() == "one\ntw\nthree\n"

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ('[1]\n{"tw', "[1]\n[3]\n"),
            ("[1]\n[2]", "[1]\n[2]\n[3]\n"),  # all of it but the end of the line
            ('{"tw', "[3]\n"),
            ('[1]\n{"two": "' + "x" * 200_000, "[1]\n[3]\n"),
            ("[1]\n", "[1]\n[3]\n"),
        ],
    )
    def test_of_json_half_a_line_is_taken_away(
        self, tmp_path: Path, before: str, after: str
    ) -> None:
        path = tmp_path / "log"
        path.write_text(before)
        files.append_text(path, "[3]\n", json_lines=True)
        assert path.read_text() == after

    def test_a_full_disk_leaves_no_half_line(self, small_disk: Path) -> None:
        path = small_disk / "log"
        line = "x" * 299_999 + "\n"
        with pytest.raises(OutputError, match="no space left"):
            for _ in range(100):
                files.append_text(path, line)
        assert set(path.read_text().splitlines(keepends=True)) == {line}


class TestJson:
    def test_there_and_back(self, tmp_path: Path) -> None:
        data = {"é": [1, 2.5, None, True], "deep": {"x": "\n"}}
        files.write_json(tmp_path / "x", data)
        assert files.read_json(tmp_path / "x") == data
        assert (tmp_path / "x").read_bytes() == (json.dumps(data, indent=2) + "\n").encode()

    @pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
    def test_it_has_no_nan(self, tmp_path: Path, number: float) -> None:
        path = tmp_path / "x"
        path.write_text("{}")
        with pytest.raises(ValueError, match="not JSON compliant"):
            files.write_json(path, {"x": number})
        assert path.read_text() == "{}"
        path.write_text(json.dumps([number]))
        with pytest.raises(ValueError, match="is no JSON"):
            files.read_json(path)

    @pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"9" * 10_000])
    def test_damage_is_one_kind_of_error(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(ValueError):
            files.read_json(tmp_path / "x")


class TestCache:
    def test_a_folder_that_the_user_names_is_made(self, tmp_path: Path) -> None:
        assert files.cache_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
        assert (tmp_path / "a" / "b").is_dir()

    @pytest.mark.parametrize("variable", ["/tmp/chosen", "", "relative", None])
    def test_the_users_own(self, monkeypatch: pytest.MonkeyPatch, variable: str | None) -> None:
        monkeypatch.setenv("HOME", "/home/me")
        if variable is None:
            monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", variable)
        expected = "/tmp/chosen" if variable == "/tmp/chosen" else "/home/me/.cache"
        assert files.user_cache() == Path(expected) / "trpexport"

    def test_none_where_the_users_own_cannot_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert files.cache_folder() is None
        with pytest.raises(OutputError, match=r"can't write .*file.x: Not a directory"):
            files.cache_folder(tmp_path / "file" / "x")
