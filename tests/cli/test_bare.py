"""A device's environment: the edge extra, and no torch."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from trpexport import bundle

# What a command that runs a network needs of others: typer loads more once an option is read.
LIBRARIES = """
import onnx, onnxruntime, rich.console, rich.table, typer
def main(option: str = "") -> None: ...
typer.run(main)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_edge_commands_work_without_torch(shared: Path, tmp_path: Path) -> None:
    from trpexport.artifact.build import ExportSettings
    from trpexport.exporting import export_checkpoint
    from trpexport.pipeline import Source

    out = tmp_path / "out"
    checkpoint = Source(shared / "checkpoints/resnet20-12fca82f.th")
    export_checkpoint(checkpoint, out, settings=ExportSettings(verify_seconds=0))

    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "bare")], check=True)
    python = str(tmp_path / "bare/bin/python")
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    constraints = str(ROOT / "constraints.txt")
    subprocess.run([*install, "-c", constraints, "-e", f"{ROOT}[edge]"], check=True)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(tmp_path / "bare/bin/trpexport"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    absent = subprocess.run([python, "-c", "import torch"], check=False, capture_output=True)
    assert absent.returncode != 0
    model = out / bundle.MODEL
    for command in (
        ("bench", model, "--provider", "cpu", "--min-time", "0.1"),
        ("profile", model, "--min-runs", "4"),
        ("verify", out),
        ("verify", model, model),
        ("flops", model),
    ):
        done = run(*command)
        assert done.returncode == 0, done.stderr
        assert done.stdout
    # What needs torch says so in one line.
    done = run("decompose", checkpoint.path)
    assert done.returncode == 2
    assert f'torch is not installed: pip install -e "{ROOT}[cpu]"' in done.stderr

    # Against what the libraries need, in turns: a machine that is slow just now is slow for both.
    own, libraries = [], []
    once = ("--min-time", "0", "--min-runs", "1", "--warmup-seconds", "0", "--no-memory", "--json")
    for _ in range(5):
        started = _children_seconds()
        (entry,) = json.loads(run("bench", model, *once).stdout)["results"][0]["models"]
        between = _children_seconds()
        subprocess.run([python, "-c", LIBRARIES], check=True)
        timed = entry["seconds"]["median"] * (entry["runs"] + entry["rounds"])
        own.append(between - started - timed)
        libraries.append(_children_seconds() - between)
    assert min(own) < 2 * min(libraries)


def _children_seconds() -> float:
    """Return seconds of the processor: what else the machine does must not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
