"""onnxsim may crash, hang or be wrong: the export goes on without it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import onnx
import pytest

from tests.artifact.networks import SHAPE, export_modules, kept, tiny
from trpexport.artifact.build import ExportSettings
from trpexport.networks.onnx import simplifying as simplify
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.network import TorchNetwork
from trpexport.runtime.verify import verify_bundle

QUICK = ExportSettings(17, legacy_exporter=True, verify_seconds=0)


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("crash", "boom"),
        ("silence", "ended with code 0"),
        ("hang", "more than 120 seconds"),
        ("missing", "not installed"),
        ("wrong", "changed what the network computes"),
        ("invalid", "can't be used"),
    ],
)
def test_export_goes_on_without_onnxsim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, says: str
) -> None:
    run = subprocess.run

    def faulty(command: list[str], **options: Any) -> Any:
        source, target = Path(command[-2]), Path(command[-1])
        if fault == "hang":
            raise subprocess.TimeoutExpired(command, options["timeout"])
        if fault == "crash":
            return run(["sh", "-c", "echo boom >&2; kill -SEGV $$"], **options)
        if fault == "silence":
            return run(["true"], **options)
        network = onnx.load(source)
        if fault == "wrong":
            first = network.graph.initializer[0]
            first.raw_data = bytes(len(first.raw_data))
        else:
            del network.graph.node[:]
        onnx.save(network, target)
        return run(["true"], **options)

    if fault == "missing":
        monkeypatch.setattr(simplify, "find_spec", lambda name: None)
    else:
        monkeypatch.setattr(subprocess, "run", faulty)
    model = tiny()
    report = export_modules(model, kept(model), tmp_path / "out", settings=QUICK)
    (note,) = report.data["notes"]
    assert note.startswith("simplify was left out: ")
    assert says in note
    step = next(step for step in report.data["steps"] if step["name"] == "simplify")
    assert step["outputs"] == {}
    assert step["note"] == note
    assert "simplify-model.onnx" not in {path.name for path in (tmp_path / "out").iterdir()}
    assert verify_bundle(tmp_path / "out").is_equivalent


def test_onnxsim_gets_nothing_that_takes_long_to_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "modules/onnxsim"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(
        "import shutil, sys\n"
        "for name in ('torch', 'sympy'):\n"
        "    try:\n"
        "        __import__(name)\n"
        "    except ImportError:\n"
        "        continue\n"
        "    sys.exit(f'{name} can be imported')\n"
        "shutil.copyfile(*sys.argv[1:])\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    source, target = tmp_path / "source.onnx", tmp_path / "target.onnx"
    source.write_bytes(b"a network")
    simplify.simplify(source, target)
    assert target.read_bytes() == b"a network"


def test_weights_that_onnxsim_puts_in_a_second_file_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run

    def divided(command: list[str], **options: Any) -> Any:
        done = run(command, **options)
        network = onnx.load(command[-1])
        onnx.save(network, command[-1], save_as_external_data=True, size_threshold=0)
        return done

    monkeypatch.setattr(subprocess, "run", divided)
    model = tiny()
    report = export_modules(model, kept(model), tmp_path / "out", settings=QUICK)
    step = next(step for step in report.data["steps"] if step["name"] == "simplify")
    assert step["outputs"] and step["note"] is None
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("golden.npz", "manifest.json", "model.onnx", "model.safetensors"),
        *("plan.json", "report.json"),
    }
    assert report.data["file_bytes"] > 4 * sum(p.numel() for p in model.parameters())


def test_files_of_libraries_names_in_the_working_directory_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.onnx"
    TorchNetwork(tiny(), SHAPE).write_onnx(model, OnnxSettings(17, legacy_exporter=True))
    monkeypatch.chdir(tmp_path)
    for name in ("onnxsim", "onnx", "numpy", "json"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / f'{name} ran')!r}, 'w')")
    simplify.simplify(model, tmp_path / "simplified.onnx")
    assert not list(tmp_path.glob("* ran"))
