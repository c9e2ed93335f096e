"""Jobs in processes of their own, in which nothing of this one is left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Runs a module without the current directory among those that modules are found in: -P does, but
# not in the Python 3.9 of a device.
_RUN = """\
import sys
sys.path = [entry for entry in sys.path if entry]
import runpy
from trpexport.older_python import complete
complete()
runpy.run_module(sys.argv[1], run_name="__main__")
"""


def run_child(
    module: str, job: Mapping[str, Any], environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a module of this library as a program that reads a job, as JSON, on standard input.

    Args:
        module: its dotted name.
        job: what it reads.
        environment: variables to set besides those of this process.
    """
    # The parent may have found this library in an archive, or beside the script that it runs.
    path = os.pathsep.join(entry or str(Path.cwd()) for entry in sys.path)
    return subprocess.run(
        [sys.executable, "-c", _RUN, module],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {}), "PYTHONPATH": path},
    )
