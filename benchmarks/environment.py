"""What benchmarks share: where results go, what they say of the machine, how a run ends."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trpexport.artifact.facts import versions
from trpexport.errors import TrpexportError
from trpexport.measure.machine import machine_facts

RESULTS = Path(__file__).parent / "results"


def run(main: Callable[[], None]) -> None:
    """Run a benchmark: what is wrong with its arguments or files ends it with one line."""
    try:
        main()
    except TrpexportError as error:
        raise SystemExit(f"error: {error}") from None


def environment() -> dict[str, Any]:
    """Return machine, instruction sets, versions, commit and date."""
    machine = machine_facts()
    return {
        **stamp(),
        "cpu": machine["cpu"] or platform.processor(),
        "instruction_sets": machine["instruction_sets"],
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "versions": versions(),
    }


def stamp() -> dict[str, str]:
    """Return date and commit: of a row in a file whose other rows may be older."""
    return {"date": datetime.now(UTC).date().isoformat(), "commit": _commit()}


def _commit() -> str:
    if shutil.which("git") is None:
        return ""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
