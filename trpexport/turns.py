"""Whose turn a machine is: any number of jobs work on it at once, or one is timed alone."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trpexport.files import cache_folder
from trpexport.locks import lock, try_lock


@contextmanager
def working(say: Callable[[str], None]) -> Iterator[None]:
    """Let others work on this machine while the block runs, but not time anything."""
    with _turn(say, alone=False):
        yield


@contextmanager
def alone(say: Callable[[str], None]) -> Iterator[None]:
    """Let no other job work on this machine, or time anything, while the block runs."""
    with _turn(say, alone=True):
        yield


@contextmanager
def _turn(say: Callable[[str], None], *, alone: bool) -> Iterator[None]:
    """Hold the machine's lock, shared or alone; wait for it as long as it takes.

    Whoever waits for it holds the gate, so that none who comes later is let in before: what is to
    be timed waits for what is at work already, however much follows.
    """
    with _opened("machine") as machine:
        with _opened("gate") as gate:
            waits = False
            for descriptor, shared in ((gate, False), (machine, not alone)):
                if try_lock(descriptor, shared=shared) is False:
                    if not waits:
                        say("waiting for what else is at work on this machine")
                    waits = True
                    lock(descriptor, shared=shared)
        yield


@contextmanager
def _opened(name: str) -> Iterator[int]:
    """Open a lock of this machine, which closing lets go of.

    It is that of this user, whose cache other machines may share.
    """
    folder = cache_folder() or Path(tempfile.gettempdir())
    place = folder / f"{name}-{platform.node()}.lock"
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
