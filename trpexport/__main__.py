"""Run the command line: ``python -m trpexport``."""

from __future__ import annotations

import importlib
import signal
import sys

from trpexport.garbage import leave_to_the_system, search_after_imports
from trpexport.standard_output import end_output, open_missing_streams
from trpexport.supervision import supervised

# Those that read what strangers wrote; training starts processes of its own.
_SUPERVISED = frozenset(
    ("inspect", "decompose", "export", "verify", "flops", "bench", "eval", "gate")
)


def main() -> None:
    """Run the command line and exit with its code."""
    open_missing_streams()
    search_after_imports()
    code = supervised(_run) if _SUPERVISED.intersection(sys.argv[1:2]) else _run()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was asked for is done or broken off
    end_output()
    leave_to_the_system()
    sys.exit(code)


def _run() -> int:
    try:
        return int(importlib.import_module("trpexport.cli").run())
    except KeyboardInterrupt:  # before or after the command line could take it
        print("error: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


if __name__ == "__main__":
    main()
