"""Run a sweep that is killed after some lines, again and again, and then to its end.

    python killed.py THINGS OUT LINES...

What is imported is imported once; each run is a process of its own.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import trpexport as tx
from trpexport.artifact.settings import ExportSettings


def run(things: Path, out: Path, lines: int | None) -> None:
    """Sweep, and be killed at a line; at none to the end."""
    left = lines

    def announce(_: str) -> None:
        nonlocal left
        if left is not None:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    tx.sweep(
        things / "net.onnx",
        f"tensors:{things / 'inputs.npz'}",
        out,
        schemes=("channel", "spatial"),
        targets=(0.8, 0.6),
        precisions=("fp32", "int8"),
        data=f"tensors:{things / 'labelled.npz'}",
        metric="rmse",
        rank_multiple=1,
        settings=ExportSettings(verify_seconds=0),
        announce=announce,
    )


def main() -> None:
    """Do so."""
    things, out = map(Path, sys.argv[1:3])
    for lines in (*map(int, sys.argv[3:]), None):
        child = os.fork()
        if child == 0:
            run(things, out, lines)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        ended = -os.waitstatus_to_exitcode(status)
        assert ended == (0 if lines is None else signal.SIGKILL), ended
        sys.stdout.write(f"{len(list(out.glob('*/manifest.json')))}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Forked before anything computes, so that no thread of a library is lost.
    import trpexport.api.sweeping
    import trpexport.sweeps.sweep

    main()
