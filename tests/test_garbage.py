"""Where Python's search for garbage is left out, and that it comes back."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from typing import Any

import pytest

from trpexport.garbage import unsearched


class Cycle:
    """Garbage that only a search finds."""

    def __init__(self) -> None:
        self.me = self


def found(program: str) -> Any:
    """Return what a process prints as JSON: thresholds are the whole process's."""
    start = "import atexit, gc, json, os, sys\nfrom trpexport.garbage import search_after_imports\n"
    done = subprocess.run(
        [sys.executable, "-c", start + program], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


SEARCHES = "sum(each['collections'] for each in gc.get_stats())"


@pytest.mark.parametrize("before", ["search_after_imports()", "pass"])
def test_what_is_imported_is_not_searched(before: str) -> None:
    made = f"before = {SEARCHES}\nmade = [[] for _ in range(200_000)]\n"
    searches = found(f"{before}\n{made}print({SEARCHES} - before)")
    assert (searches == 0) == (before != "pass")


def test_garbage_is_found_as_usual_once_all_is_imported() -> None:
    usual, thresholds, kept, is_found = found(
        "import weakref\n"
        "class Cycle: pass\n"
        "usual = gc.get_threshold()\n"
        "search_after_imports()\n"
        "made = [[] for _ in range(400_000)]\n"
        "one = Cycle()\n"
        "one.me = one\n"
        "watched = weakref.ref(one)\n"
        "del one\n"
        "more = [[] for _ in range(200_000)]\n"
        "print(json.dumps([usual, gc.get_threshold(), gc.get_freeze_count(), watched() is None]))"
    )
    assert thresholds == usual
    assert kept >= 300_000
    assert is_found


def test_a_command_leaves_nothing_to_search_at_its_end() -> None:
    left = found(
        "out = os.fdopen(os.dup(1), 'w')\n"  # from then on standard output is standard error
        "atexit.register(lambda: print(len(gc.get_objects()), file=out, flush=True))\n"
        "from trpexport.__main__ import main\n"
        "sys.argv = ['trpexport', '--version']\n"
        "main()"
    )
    assert left < 1000  # of 20,000: those of the handlers themselves


def test_no_garbage_is_searched_for_within_a_block() -> None:
    with pytest.raises(ValueError, match="inside"), unsearched():
        watched = weakref.ref(Cycle())
        _ = [[] for _ in range(10_000)]
        assert watched() is not None
        raise ValueError("inside")
    assert gc.isenabled()
    assert watched() is None


def test_a_search_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with unsearched():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
