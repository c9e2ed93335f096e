"""Run the command line: ``python -m trpexport``."""

from __future__ import annotations

import importlib
import signal
import sys

from trpexport.standard_output import end_output


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        code = importlib.import_module("trpexport.cli").run()
    except KeyboardInterrupt:  # before or after the command line could take it
        print("error: interrupted", file=sys.stderr)
        code = 128 + signal.SIGINT
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # what was asked for is done or broken off
    end_output()
    sys.exit(code)


if __name__ == "__main__":
    main()
