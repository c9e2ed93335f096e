"""onnxsim in a process of its own: it may crash or hang, and the export goes on without it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

SECONDS = 120.0
# onnxsim imports torch where it is installed, for conversions that are not needed here, which
# takes three times as long as simplifying.
_RUN = """
import runpy, sys
sys.modules["torch"] = None
runpy.run_module("onnxsim", run_name="__main__")
"""


def simplify(source: Path, target: Path, *, seconds: float = SECONDS) -> str | None:
    """Write a simplified copy of an ONNX file.

    Args:
        source: the file to simplify.
        target: the file to write.
        seconds: how long it may take.

    Returns:
        None if ``target`` was written, else why not, in one line.
    """
    if find_spec("onnxsim") is None:
        return 'onnxsim is not installed (pip install "trpexport[cpu]")'
    command = [sys.executable, "-c", _RUN, str(source), str(target)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return f"onnxsim took more than {seconds:g} seconds"
    if done.returncode == 0 and target.is_file():
        return None
    target.unlink(missing_ok=True)
    said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return f"onnxsim ended with code {done.returncode}" + (f": {said[-1].strip()}" if said else "")
