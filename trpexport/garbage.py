"""Python's search for garbage in cycles, left out where there is none.

The search walks over all objects there are. Importing torch makes 250,000 of them and tracing a
network for ONNX as many again, and all last: searching them took a tenth of the time of a command.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_IMPORTED = 300_000  # objects: somewhat more than importing torch makes


def search_after_imports() -> None:
    """Leave out what there is when the first search is due, and put that off until all is imported.

    Every later search is as usual.
    """
    usual = gc.get_threshold()

    def leave_out(*_: Any) -> None:  # called as the first search begins
        gc.callbacks.remove(leave_out)
        gc.freeze()
        gc.set_threshold(*usual)

    gc.callbacks.append(leave_out)
    gc.set_threshold(_IMPORTED, *usual[1:])


@contextmanager
def search_off() -> Iterator[None]:
    """Search for no garbage within the block."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def unsearched() -> Iterator[None]:
    """Search for no garbage within the block, but for all of it behind the block."""
    with search_off():
        yield
    if gc.isenabled():
        gc.collect()


def leave_to_the_system() -> None:
    """Search for no garbage at the end of the process, which gives back all that it holds."""
    gc.freeze()
