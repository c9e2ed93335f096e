"""onnxsim in a process of its own: it may crash or hang, and the work goes on without it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from trpexport.errors import MissingDependencyError, ModelError
from trpexport.foreign import first_line
from trpexport.installing import install_command
from trpexport.onnxfile.external_data import external_files

SECONDS = 120.0
# onnxsim imports torch and sympy where they are installed, for what is not needed here, which takes
# several times as long as simplifying; so do the search for garbage in what it imports, and taking
# that down at the end, when the file is written.
_RUN = """
import gc, os, runpy, sys
gc.disable()
sys.modules["torch"] = sys.modules["sympy"] = None
runpy.run_module("onnxsim", run_name="__main__")
sys.stdout.flush()
os._exit(0)
"""


def simplify_in_place(file: Path) -> None:
    """Fold constants of an ONNX file, and remove what has no effect.

    Raises:
        MissingDependencyError: onnxsim is not installed.
        ModelError: it can't take the file, which stays as it is.
    """
    if external_files(file):
        raise ModelError("onnxsim can't take a file of 2 GB and more")
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        target = Path(folder) / file.name
        simplify(file, target)
        if external_files(target):  # onnxsim writes a second file from some 100 MB on
            _join(target)
        target.replace(file)


def _join(path: Path) -> None:
    """Write an ONNX file and the weights beside it as one file.

    Raises:
        ModelError: it grew to 2 GB or more.
    """
    import onnx

    try:
        onnx.save(onnx.load(path), path)
    except ValueError as error:
        raise ModelError(f"onnxsim made a file of 2 GB and more ({first_line(error)})") from error


def simplify(source: Path, target: Path, *, seconds: float = SECONDS) -> None:
    """Write a simplified copy of an ONNX file.

    Args:
        source: the file to simplify.
        target: the file to write.
        seconds: how long it may take.

    Raises:
        MissingDependencyError: onnxsim is not installed.
        ModelError: it failed; ``target`` is not there then.
    """
    if find_spec("onnxsim") is None:
        raise MissingDependencyError(f"onnxsim is not installed ({install_command('cpu')})")
    # With -P a file that lies in the working directory under a library's name is not run.
    command = [sys.executable, "-P", "-c", _RUN, str(source), str(target)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=False, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"onnxsim took more than {seconds:g} seconds") from None
    if done.returncode or not target.is_file():
        target.unlink(missing_ok=True)
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        last = f": {said[-1].strip()}" if said else ""
        raise ModelError(f"onnxsim ended with code {done.returncode}{last}")
