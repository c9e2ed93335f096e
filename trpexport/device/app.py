"""The one file that runs on a device: this library's torch-free part as a zipapp.

``python3 trpexport-device.pyz settings.json`` does what the settings say and prints the record
as one line of JSON on standard output; all else goes to standard error. It needs Python, numpy
and onnxruntime. An error that the user can mend is one line, and exit code 2.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trpexport.errors import MissingDependencyError, TrpexportError
from trpexport.files import read_json, writing
from trpexport.runtime.providers import PROVIDERS
from trpexport.standard_output import claimed_output, end_output

MINIMUM_PYTHON = (3, 9)  # older_python.py has what this one lacks
STOP_WITH_INPUT = "--stop-with-input"  # end when standard input ends: whoever asked is gone
ERROR, PROGRESS = "error: ", "- "  # how lines on standard error begin
_MENDED_BY = "\t"  # in a line of an error, what stands before the parameters that mend it

# What needs no torch: single modules, and whole packages with all that is in them.
_MODULES = (
    *("__init__", "_version", "errors", "registry", "plan", "cost", "bundle", "stages"),
    *("files", "directories", "locks", "arrays", "ops", "tensors", "golden", "compare"),
    *("standard_output", "supervision", "schema", "text", "inputs", "foreign", "installing"),
    *("older_python", "shown", "garbage"),
)
_PACKAGES = ("onnxfile", "runtime", "measure", "device")

# Any Python can read this, also one that could not read the rest, to say which one is needed.
_MAIN = f"""\
import sys

if sys.version_info < {MINIMUM_PYTHON!r}:
    sys.stderr.write(
        "{ERROR}this device's %s is Python %d.%d, and {".".join(map(str, MINIMUM_PYTHON))} "
        "is needed: install that there, and name it\\tpython\\n"
        % ((sys.executable,) + tuple(sys.version_info[:2]))
    )
    sys.exit(2)

from trpexport.older_python import complete

complete()

from trpexport.device.app import main

sys.exit(main(sys.argv[1:]))
"""


def build_device_app(target: Path) -> None:
    """Write the zipapp.

    Raises:
        OutputError: ``target`` can't be written.
    """
    package = Path(__file__).parents[1]
    files = [package / f"{name}.py" for name in _MODULES]
    for name in _PACKAGES:
        files += sorted((package / name).rglob("*.py"))
    with (
        writing(target),
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, strict_timestamps=False) as archive,
    ):
        archive.writestr("__main__.py", _MAIN)
        for file in files:
            archive.write(file, Path(package.name) / file.relative_to(package))


def told_error(line: str, where: str) -> TrpexportError:
    """Return the error that a line on a device's standard error tells of.

    Args:
        line: the line, which begins with :data:`ERROR`.
        where: what to call the device.
    """
    text, *parameters = line.removeprefix(ERROR).split(_MENDED_BY)
    return TrpexportError(f"{where}: {text}", parameters=parameters)


def main(arguments: Sequence[str]) -> int:
    """Do what a settings file says, and return the exit code.

    Args:
        arguments: path of the settings, as JSON; before it perhaps :data:`STOP_WITH_INPUT`.
    """
    *options, name = arguments or [""]
    settings = Path(name)
    if options == [STOP_WITH_INPUT]:
        # What an abrupt end leaves behind goes with the directory of the settings.
        os.environ["TMPDIR"] = str(settings.parent)
        threading.Thread(target=_exit_with_input, daemon=True).start()
    try:
        with claimed_output() as output:
            record = _run(_read_settings(settings))
            output.write(json.dumps(record, allow_nan=False) + "\n")
    except TrpexportError as error:
        text = f"{ERROR}{' '.join(str(error).split())}"
        print(_MENDED_BY.join((text, *error.parameters)), file=sys.stderr)
        return 2
    finally:
        end_output()
    return 0


def _exit_with_input() -> None:
    """Wait for the end of standard input, then end at once: nobody waits for the record.

    ssh does not pass on signals, but when it ends so does the input of what it runs.
    """
    while os.read(0, 1024):
        pass
    os._exit(1)


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except (OSError, ValueError, TypeError):
        raise TrpexportError(
            f"{str(path)!r} holds no settings: python3 trpexport-device.pyz settings.json"
        ) from None


def _run(settings: dict[str, Any]) -> dict[str, Any]:
    _check_packages(settings.get("provider", "cpu"))
    if settings.get("kind") == "replay":
        from trpexport.device.app_runs import ReplaySettings, replay

        return replay(ReplaySettings.from_json(settings))
    if settings.get("kind") == "profile":
        from trpexport.measure.profile.jobs import ProfileJob

        return ProfileJob.from_json(settings).run()
    from trpexport.measure.bench import BenchSettings, bench

    return bench(BenchSettings.from_json(settings), announce=_announce)


def _check_packages(provider: str) -> None:
    """Raise MissingDependencyError if a package is not there; with the command that brings it."""
    if importlib.util.find_spec("onnxruntime") is None:
        missing, install = "onnxruntime", PROVIDERS[provider].install
    elif importlib.util.find_spec("numpy") is None:
        missing, install = "numpy", "pip install numpy"
    else:
        return
    if install.startswith("pip "):
        install = f"{sys.executable} -m {install}"
    raise MissingDependencyError(f"{missing} is missing on this device: there, {install}")


def _announce(line: str) -> None:
    print(f"{PROGRESS}{line}", file=sys.stderr, flush=True)
