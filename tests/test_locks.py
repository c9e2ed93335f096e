"""Who holds a lock, and what becomes of it when its holder is gone."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from trpexport.errors import OutputError
from trpexport.locks import locked

HOLDER = """
import os, signal, sys, time
from pathlib import Path
from trpexport.locks import locked
with locked(Path("lock"), Path("place")):
    if os.fork() == 0:  # as the processes that decode images are
        print("held", flush=True)
        time.sleep(20)
        os._exit(0)
    time.sleep(20)
"""


def test_it_names_its_holder_and_is_free_once_that_is_killed(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], cwd=tmp_path, stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        says = (
            f"place is in use by process {process.pid} on {re.escape(platform.node())} since "
            r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC: wait for it, or choose another place$"
        )
        with pytest.raises(OutputError, match=says), locked(lock, Path("place")):
            pass
        process.kill()
        process.wait()
        with locked(lock, Path("place")):  # though its child lives on
            assert lock.exists()
        assert not lock.exists()
        os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1, "since": 3}'])
def test_a_holder_that_says_nothing_of_use(tmp_path: Path, text: str) -> None:
    lock = tmp_path / "lock"
    with locked(lock, Path("place")):
        lock.write_text(text)
        with pytest.raises(OutputError, match="in use by another process"):
            locked(lock, Path("place")).__enter__()
    assert not lock.exists()


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / "lock").symlink_to("mine")
    with (
        pytest.raises(OSError, match=r"symbolic links|Too many"),
        locked(tmp_path / "lock", tmp_path),
    ):
        pass
    assert (tmp_path / "mine").read_text() == "precious"
