"""What commands make of broken ONNX files: each must end with an exit code of its own and one line.

    python -m benchmarks.fuzz_onnx FILE.onnx [...] [--seeds N] [--commands inspect flops ...]

Breaks each file in every way of ``benchmarks/mutations.py``, in ``--seeds`` places each, and runs
every command on every broken file in a process of its own: forked from one that has the libraries
loaded, and supervised as the command line is. Adds to ``results/fuzz_onnx.json``.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.environment import RESULTS, environment, run
from benchmarks.mutations import broken
from trpexport.supervision import supervised

RESULT = RESULTS / "fuzz_onnx.json"
COMMANDS = ("inspect", "flops", "decompose", "verify")
_REFUSED, _NOTHING_CHEAPER, _DIFFERS = 2, 3, 4


def outcome(arguments: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run the command line in a fork of this process: return its exit code and standard error."""
    outputs = [folder / "stdout", folder / "stderr"]
    child = os.fork()
    if child == 0:
        for number, path in enumerate(outputs, 1):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        code = 70
        try:
            command_line = importlib.import_module("trpexport.cli").run
            code = supervised(partial(command_line, list(arguments)))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status), outputs[1].read_text(errors="replace")


def verdict(command: str, code: int, stderr: str) -> str:
    """Say how a command ended; what begins with "bad" must not be."""
    errors = [line for line in stderr.splitlines() if not line.startswith(("- ", "note: "))]
    if "Traceback" in stderr:
        return "bad: traceback"
    if code == 0:
        return "done"
    if code == _REFUSED and len(errors) == 1 and errors[0].startswith("error: "):
        if "library crashed" in errors[0]:
            return "refused: a library's crash was caught"
        return "refused: stopped" if "was stopped" in errors[0] else "refused"
    if code == _NOTHING_CHEAPER and command == "decompose":
        return "nothing to rewrite"
    if code == _DIFFERS and command == "verify":
        return "differs"
    return f"bad: exit code {code}, {len(errors)} lines"


def arguments_of(command: str, file: Path, sound: Path, folder: Path) -> list[str]:
    """Return what is typed."""
    extra = {
        "decompose": [
            *("--criterion", "fraction:0.5", "--rank-multiple", "1"),
            *("--keep-expensive", "--verify-seconds", "0.5"),
            *("--force", "-o", str(folder / "bundle")),
        ],
        "verify": [str(sound), "--images", "2"],
    }
    return [command, str(file), *extra.get(command, [])]


def fuzzed(file: Path, commands: Sequence[str], seeds: range, folder: Path) -> list[dict[str, Any]]:
    """Break a file, run all commands on each broken one, and return what became of it."""
    found = []
    place = folder / "broken" / "model.onnx"
    place.parent.mkdir(exist_ok=True)
    (place.parent / "model.data").write_bytes(bytes(64))
    for seed in seeds:
        for name, content in broken(file.read_bytes(), seed):
            place.write_bytes(content)
            for command in commands:
                start = time.perf_counter()
                code, stderr = outcome(arguments_of(command, place, file, folder), folder)
                found.append(
                    {
                        "mutation": name,
                        "seed": seed,
                        "command": command,
                        "verdict": verdict(command, code, stderr),
                        "seconds": round(time.perf_counter() - start, 2),
                        "error": stderr.strip().splitlines()[-1:],
                    }
                )
    return found


def preload(file: Path, commands: Sequence[str], folder: Path) -> None:
    """Load what the commands load for a sound file, so that each fork begins with it.

    They run in a process of their own: one that has computed has threads, and is not to be forked.
    """
    run_command, found = importlib.import_module("trpexport.cli").run, folder / "modules"
    child = os.fork()
    if child == 0:
        try:
            sys.stdout = sys.stderr = io.StringIO()
            for command in commands:
                run_command(arguments_of(command, file, file, folder))
            found.write_text("\n".join(sys.modules))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    for name in found.read_text().split():
        with suppress(ImportError):  # what makes itself while it is imported has no file
            importlib.import_module(name)


def main() -> None:
    """Break files, and tell what became of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--commands", nargs="+", default=COMMANDS)
    parser.add_argument("--print", action="store_true", help="print all as JSON, write nothing")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    results = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    with tempfile.TemporaryDirectory() as name:
        preload(args.files[0], args.commands, Path(name))
        for file in args.files:
            found = fuzzed(file, args.commands, range(args.seeds), Path(name))
            if args.print:
                print(json.dumps(found))
                continue
            counts = Counter(one["verdict"] for one in found)
            bad = [one for one in found if one["verdict"].startswith("bad")]
            results[file.name] = {
                "files": len(found) // len(args.commands),
                "runs": len(found),
                "commands": list(args.commands),
                "seeds": args.seeds,
                "ended": dict(sorted(counts.items())),
                "slowest_seconds": max(one["seconds"] for one in found),
                "bad": bad,
                "environment": environment(),
            }
            RESULT.write_text(json.dumps(results, indent=1) + "\n")
            print(file.name, dict(counts))
            for one in bad:
                print("   ", one)


if __name__ == "__main__":
    run(main)
