"""Times are kept from run to run, whoever writes at the same time."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trpexport.errors import OutputError
from trpexport.latency.store import NAME, Store, WayTime
from trpexport.latency.ways import Way

FACTS = {"device": {"CPU": "a"}, "threads": 1}
TIMES = {"conv": {Way("spatial", 8): WayTime(1.0, 2.0, 0.1), Way("channel", 4): WayTime(3, 2, 0)}}


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_was_put_is_found_again(tmp_path: Path, is_kept: bool) -> None:
    # A folder that is not there is made.
    with Store(tmp_path / "a" / "cache" if is_kept else None) as store:
        assert store.times(FACTS, "conv") == {}
        store.put(FACTS, TIMES)
        assert store.times(FACTS, "conv") == TIMES["conv"]
        assert store.times(FACTS, "other") == {}
        assert store.times({**FACTS, "threads": 2}, "conv") == {}
        newer = {Way("spatial", 8): WayTime(1.5, 2.0, 0.1)}
        store.put(FACTS, {"conv": newer})
        assert store.times(FACTS, "conv") == {**TIMES["conv"], **newer}
        (contents,) = store.contents()
        assert contents["threads"] == 1
        assert [time["rank"] for time in contents["times"]] == [4, 8]


def test_the_mean_of_times() -> None:
    mean = WayTime.mean([WayTime(1.0, 2.0, 0.3), WayTime(2.0, 4.0, 0.4)])
    assert (mean.seconds, mean.original, mean.ratio) == (1.5, 3.0, 0.5)
    assert mean.deviation == pytest.approx(0.25)  # sqrt(0.09 + 0.16) / 2


def test_processes_write_at_the_same_time(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from trpexport.latency.store import Store, WayTime
from trpexport.latency.ways import Way
for rank in range(1, 41):
    with Store(Path(sys.argv[1])) as store:
        store.put({"threads": 1}, {sys.argv[2]: {Way("spatial", rank): WayTime(rank, 1, 0)}})
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name], cwd=ROOT)
        for name in ("a", "b")
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    with Store(tmp_path) as store:
        for name in ("a", "b"):
            found = store.times({"threads": 1}, name)
            assert {way.rank: time.seconds for way, time in found.items()} == {
                rank: rank for rank in range(1, 41)
            }


@pytest.mark.parametrize("fault", ["no database", "another version"])
def test_a_file_that_is_something_else_is_told(tmp_path: Path, fault: str) -> None:
    path = tmp_path / NAME
    if fault == "no database":
        path.write_bytes(b"not a database" * 100)
    else:
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 99")
        database.close()
    before = path.read_bytes()
    with Store(tmp_path) as store, pytest.raises(OutputError, match="remove it"):
        store.times(FACTS, "conv")
    assert path.read_bytes() == before


def test_a_write_counts_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    broken = {"conv": {Way("spatial", 8): WayTime(1.0, 2.0, 0.1), Way("x", 1): None}}
    with Store(tmp_path) as store:
        with pytest.raises(AttributeError):
            store.put(FACTS, broken)  # type: ignore[arg-type]
        assert store.times(FACTS, "conv") == {}
