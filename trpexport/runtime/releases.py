"""Other versions of ONNX Runtime: a wheel in a throw-away virtual environment."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import numpy as np

from trpexport.arrays import write_arrays
from trpexport.errors import ModelError, TrpexportError
from trpexport.foreign import first_line
from trpexport.runtime.load_failures import plain_text
from trpexport.tensors import Array, Arrays

_INSTALL_SECONDS, _RUN_SECONDS = 600.0, 600.0
_NUMPY_2_SINCE = 19  # minor version of ONNX Runtime whose wheels work with numpy 2
_OLDEST_PYTHON, _LATEST_PYTHON = 8, 14
# Runs a network as :func:`~trpexport.runtime.session.run_in_batches` does.
_RUN = """
import json, sys
import numpy as np
import onnxruntime
model, source, target, names = sys.argv[1:]
try:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    with np.load(source, allow_pickle=False) as file:
        feeds = {name: file[str(place)] for place, name in enumerate(json.loads(names))}
    count = len(next(iter(feeds.values())))
    first = session.get_inputs()[0].shape[:1]
    size = first[0] if first and isinstance(first[0], int) else count
    parts = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        some = feeds if size == count else {name: array[rows] for name, array in feeds.items()}
        parts.append(session.run(None, some))
    outputs = [np.concatenate(some)[:count] if len(some) > 1 else some[0] for some in zip(*parts)]
    np.savez(target, **{str(place): array for place, array in enumerate(outputs)})
    print(json.dumps([output.name for output in session.get_outputs()]))
except Exception as error:
    sys.exit(" ".join(str(error).split()))
"""


@dataclass(frozen=True)
class Release:
    """An ONNX Runtime in an environment of its own.

    Attributes:
        version: exactly which.
        python: its interpreter.
    """

    version: str
    python: Path

    def __str__(self) -> str:
        return f"onnxruntime {self.version}"

    def run(self, model: Path, inputs: Arrays) -> dict[str, Array]:
        """Return what a network gives there, by output name.

        Args:
            model: the file.
            inputs: arrays by input name, their first dimensions counting images.

        Raises:
            ModelError: it can't be loaded or run there.
        """
        with TemporaryDirectory() as folder:
            source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
            write_arrays(source, {str(n): array for n, array in enumerate(inputs.values())})
            given = (str(model.resolve()), str(source), str(target), json.dumps([*inputs]))
            done = _process([self.python, "-I", "-c", _RUN, *given], _RUN_SECONDS)
            if done.returncode or not target.is_file():
                reason = plain_text(Exception(_last_line(done)))
                raise ModelError(
                    f"{self} can't run {model.name} ({reason}): name a later version, or "
                    "export with a lower operator set",
                    parameters=("target_ort", "opset"),
                )
            names = json.loads(done.stdout.splitlines()[-1])
            with np.load(target, allow_pickle=False) as file:
                return {name: file[str(place)] for place, name in enumerate(names)}


@cache
def installed(version: str) -> Release:
    """Return a release, installed for as long as this process runs.

    It is the latest patch of a minor version, and of a patch that has no wheel its minor version's
    nearest one. Of several Pythons the one that runs this, or else another for which there is one.

    Args:
        version: as in 1.16 or 1.16.3.

    Raises:
        TrpexportError: there is no wheel for a Python here, or it can't be fetched.
    """
    minor = ".".join(version.split(".")[:2])
    wanted = [f"{version}.*" if version == minor else version]
    if version != minor:
        wanted.append(f"{minor}.*")
    reasons = []
    for python in _pythons():
        for one in wanted:
            folder = Path(mkdtemp(prefix="trpexport-ort-"))
            try:
                release = _install(python, one, folder)
            except (OSError, subprocess.SubprocessError, _RefusedError) as error:
                reasons.append(first_line(error))
                shutil.rmtree(folder, ignore_errors=True)
            else:
                atexit.register(shutil.rmtree, folder, ignore_errors=True)
                return release
    raise TrpexportError(
        f"onnxruntime {version} can't be installed to check with ({reasons[0]}): try the file on "
        "the device itself, or name another version",
        parameters=("check", "target_ort"),
    )


class _RefusedError(Exception):
    """A step of an installation failed."""


def _install(python: str, wanted: str, folder: Path) -> Release:
    _succeeded(_process([python, "-I", "-m", "venv", folder], _INSTALL_SECONDS))
    own = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    minor = int(re.findall(r"\d+", wanted)[1])
    numpy = ["numpy<2"] if minor < _NUMPY_2_SINCE else []
    pip: list[str | Path] = [
        own,
        "-I",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    packages = [f"onnxruntime=={wanted}", *numpy]
    _succeeded(_process([*pip, "--only-binary=:all:", *packages], _INSTALL_SECONDS))
    told = "import onnxruntime; print(onnxruntime.__version__)"
    done = _succeeded(_process([own, "-I", "-c", told], _INSTALL_SECONDS))
    return Release(done.stdout.split()[-1], own)


def _pythons() -> Iterator[str]:
    """Yield the Python that runs this, then others on the path, the latest first."""
    yield sys.executable
    for minor in range(_LATEST_PYTHON, _OLDEST_PYTHON - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found is not None and minor != sys.version_info.minor:
            yield found


def _process(command: list[str | Path], seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
    )


def _succeeded(done: subprocess.CompletedProcess[str]) -> subprocess.CompletedProcess[str]:
    if done.returncode:
        raise _RefusedError(_last_line(done))
    return done


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return said[-1].removeprefix("ERROR: ") if said else f"it ended with code {done.returncode}"
