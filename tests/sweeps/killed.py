"""Run a sweep that is killed after some seconds, again and again, and then to its end.

    python -m tests.sweeps.killed REQUEST.json OUT SECONDS...

What is imported is imported once; each run is a process of its own. Prints how long the last one
took, and how many were killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trpexport as tx
from trpexport.artifact.settings import ExportSettings


def run(request: Mapping[str, Any], out: Path) -> None:
    """Sweep to the end."""
    how = dict(request)
    normalised = how.pop("normalised", None)
    prepared = None
    if normalised is not None:
        mean, std = map(tuple, normalised)
        prepared = tx.Preprocessing(mean, std)
    tx.sweep(
        how.pop("model"),
        how.pop("images"),
        out,
        preprocessing=prepared,
        settings=ExportSettings(verify_seconds=0, legacy_exporter=how.pop("legacy", False)),
        **how,
    )


def killed(child: int, seconds: float) -> bool:
    """Kill a process after so long; tell whether it had not ended before."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            assert status == 0
            return False
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def main() -> None:
    """Do so."""
    request, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    kills = 0
    for seconds in (*map(float, sys.argv[3:]), float("inf")):
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            run(request, out)
            os._exit(0)
        kills += killed(child, seconds)
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - started, "kills": kills}))
    sys.stdout.flush()


if __name__ == "__main__":
    # Forked before anything computes, so that no thread of a library is lost.
    import trpexport.api.sweeping
    import trpexport.sweeps.sweep

    main()
