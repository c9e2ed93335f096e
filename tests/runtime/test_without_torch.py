"""The torch-free rooms work where torch can't be imported, and this test could tell if not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from trpexport.bundle import GOLDEN, MODEL, write_manifest
from trpexport.golden import read_golden, write_golden
from trpexport.runtime.session import open_session

TORCH_FREE = [
    f"trpexport.{name}"
    for name in (
        *("_version", "arrays", "bundle", "compare", "cost", "errors", "files", "golden", "plan"),
        *("registry", "stages", "tensors", "text"),
        *("datasets", "device", "judge", "measure", "onnxfile", "report", "runtime"),
    )
]

PROGRAM = """
import importlib, pkgutil, sys
from pathlib import Path

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("torch is blocked here")

sys.meta_path.insert(0, NoTorch())
directory = Path(sys.argv[1])
for name in sys.argv[2:]:
    module = importlib.import_module(name)
    for inner in pkgutil.walk_packages(getattr(module, "__path__", ()), name + "."):
        importlib.import_module(inner.name)

from trpexport.onnxfile.counting import count_onnx
from trpexport.runtime.verify import verify_bundle, verify_models

model = directory / "model.onnx"
assert verify_models(model, model).is_equivalent
assert verify_bundle(directory).is_equivalent
print(count_onnx(model).macs)
assert "torch" not in sys.modules
"""


def run(directory: Path, *modules: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(directory), *modules],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def bundle(tmp_path: Path, linear: Callable[..., Path]) -> Path:
    (tmp_path / MODEL).write_bytes(linear().read_bytes())
    session = open_session(tmp_path / MODEL)
    inputs = session.random_inputs(2)
    write_golden(tmp_path / GOLDEN, inputs, session.run(inputs))
    write_manifest(tmp_path, {})
    return tmp_path


def test_the_edge_room_works_without_torch(bundle: Path) -> None:
    result = run(bundle, *TORCH_FREE)
    assert result.stderr == ""
    assert result.returncode == 0
    assert result.stdout == "12\n"  # 1x3 by 3x4
    assert read_golden(bundle / GOLDEN).inputs["input"].shape == (2, 3)


@pytest.mark.parametrize("module", ["torch", "torch.nn", "trpexport.models_zoo"])
def test_the_test_above_can_fail(bundle: Path, module: str) -> None:
    result = run(bundle, *TORCH_FREE, module)
    assert result.returncode != 0
    assert "ImportError: torch is blocked here" in result.stderr
