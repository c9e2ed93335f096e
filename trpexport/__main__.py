"""Run the command line: ``python -m trpexport``."""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    """Run the command line and exit with its code."""
    cli = importlib.import_module("trpexport.cli")
    sys.exit(cli.run())


if __name__ == "__main__":
    main()
