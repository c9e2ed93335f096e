from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from trpexport import older_python
from trpexport.arrays import read_arrays, write_arrays
from trpexport.device.app import MINIMUM_PYTHON, STOP_WITH_INPUT, build_device_app, told_error
from trpexport.device.app_runs import ReplaySettings
from trpexport.errors import OutputError
from trpexport.measure.settings import BenchSettings, ModelFile

WriteOnnx = Callable[..., Path]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("app") / "trpexport-device.pyz"
    build_device_app(path)
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of packages, as on a device: numpy and onnxruntime, and what they need."""
    folder = tmp_path_factory.mktemp("site")
    packages = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs", "onnxruntime", "google", "flatbuffers", "packaging"):
        if (packages / name).exists():
            (folder / name).symlink_to(packages / name)
    return folder


def device_python(*arguments: str | Path, site: Path | None = None) -> list[str]:
    """The command of a Python with no packages but those of ``site``."""
    code = (
        "import runpy, sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        f"sys.path.append({str(site)!r})\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    return [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)]


def run_app(
    app: Path, settings: Mapping[str, object], folder: Path, site: Path | None
) -> subprocess.CompletedProcess[str]:
    (folder / "settings.json").write_text(json.dumps(settings))
    return subprocess.run(
        device_python(app, folder / "settings.json", site=site),
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )


def replay_settings(folder: Path, model: Path) -> dict[str, object]:
    write_arrays(folder / "inputs.npz", {"input": np.eye(3, dtype=np.float32)})
    return ReplaySettings(
        (str(model),), str(folder / "inputs.npz"), (str(folder / "outputs.npz"),)
    ).to_json()


def test_it_runs_a_network_with_numpy_and_onnxruntime_alone(
    app: Path, site: Path, tmp_path: Path, linear: WriteOnnx
) -> None:
    result = run_app(app, replay_settings(tmp_path, linear()), tmp_path, site)
    assert result.stderr == ""
    assert result.returncode == 0
    (line,) = result.stdout.splitlines()
    assert json.loads(line)["onnxruntime"] == onnxruntime.__version__
    weight = np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)
    np.testing.assert_allclose(read_arrays(tmp_path / "outputs.npz")["output"], weight, rtol=1e-6)


def test_every_module_in_it_is_whole(app: Path, site: Path) -> None:
    program = (
        "import pkgutil, importlib, sys\n"
        f"sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        f"sys.path[:0] = [{str(app)!r}, {str(site)!r}]\n"
        "import trpexport.runtime\n"
        "names = [m.name for m in pkgutil.walk_packages(trpexport.__path__, 'trpexport.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "assert not {'torch', 'onnx', 'scipy', 'typer', 'rich'} & set(sys.modules)\n"
        "print(*names)"
    )
    command = [sys.executable, "-I", "-S", "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr == ""
    assert {"trpexport.measure.bench", "trpexport.bundle"} <= set(result.stdout.split())


@pytest.mark.parametrize("absent", ["onnxruntime", "numpy"])
def test_a_missing_package_names_the_command(
    app: Path, site: Path, tmp_path: Path, absent: str
) -> None:
    poor = tmp_path / "site"
    poor.mkdir()
    for package in site.iterdir():
        if not package.name.startswith(absent):
            (poor / package.name).symlink_to(package.resolve())
    result = run_app(app, {"kind": "bench"}, tmp_path, poor)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        f"error: {absent} is missing on this device: there, "
        f"{sys.executable} -m pip install {absent}\n"
    )


def test_a_missing_provider_names_its_package(app: Path, tmp_path: Path) -> None:
    result = run_app(app, {"kind": "bench", "provider": "cuda"}, tmp_path, None)
    assert result.returncode == 2
    assert f'there, {sys.executable} -m pip install "onnxruntime-gpu' in result.stderr


def test_an_error_is_one_line(app: Path, site: Path, tmp_path: Path) -> None:
    settings = replay_settings(tmp_path, tmp_path / "none.onnx")
    result = run_app(app, settings, tmp_path, site)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: there is no file {tmp_path / 'none.onnx'}:")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("content", [None, "{", "3"])
def test_broken_settings_are_told(app: Path, tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "settings.json").write_text(content)
    result = subprocess.run(
        [sys.executable, app, tmp_path / "settings.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "holds no settings: python3 trpexport-device.pyz settings.json" in result.stderr


def test_it_ends_when_nobody_waits(app: Path, tmp_path: Path, write_onnx: WriteOnnx) -> None:
    """The end of standard input ends a measurement that would go on for an hour."""
    path = write_onnx([helper.make_node("Relu", ["x"], ["y"])], {"x": (1, 3)}, {"y": (1, 3)})
    settings = BenchSettings(
        (ModelFile(str(path), "m"),), memory=False, min_time=3600.0, max_time=3600.0
    )
    (tmp_path / "settings.json").write_text(json.dumps(settings.to_json()))
    process = subprocess.Popen(
        [sys.executable, app, STOP_WITH_INPUT, tmp_path / "settings.json"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 1


def test_the_entry_is_readable_by_old_pythons(app: Path) -> None:
    with zipfile.ZipFile(app) as archive:
        entry = archive.read("__main__.py").decode()
    ast.parse(entry, feature_version=(3, 4))
    old = entry.replace("import sys", "import sys; sys.version_info = (3, 8, 18)", 1)
    result = subprocess.run(
        [sys.executable, "-c", old], capture_output=True, text=True, check=False
    )
    assert result.returncode == 2
    assert result.stdout == ""
    needed = ".".join(map(str, MINIMUM_PYTHON))
    error = told_error(result.stderr.rstrip("\n"), "device")
    assert str(error) == (
        f"device: this device's {sys.executable} is Python 3.8, and {needed} is needed: "
        "install that there, and name it"
    )
    assert error.parameters == ("python",)


def test_what_is_copied_is_written_for_the_oldest_python(app: Path) -> None:
    with zipfile.ZipFile(app) as archive:
        sources = {name: archive.read(name).decode() for name in archive.namelist()}
    for name, source in sources.items():
        tree = ast.parse(source, feature_version=MINIMUM_PYTHON)
        assert not [node for node in tree.body if _joins_types(node)], name
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
                assert not isinstance(node.args[1], ast.BinOp), (name, node.lineno)


def _joins_types(node: ast.stmt) -> bool:
    """Whether a statement is ``Name = A | B`` of types, which Python 3.9 can't compute."""
    value = node.value if isinstance(node, ast.Assign) else None
    if not (isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)):
        return False
    sides = (value.left, value.right)
    names = [getattr(side, "id", "") for side in sides]
    is_subscribed = any(isinstance(side, ast.Subscript) for side in sides)
    return is_subscribed or any(name[:1].isupper() and not name.isupper() for name in names)


# What Python 3.9 lacks is taken away before the app runs.
_OLDER = """
import builtins, datetime, hashlib, sys, typing
del hashlib.file_digest, datetime.UTC, typing.Self, sys.stdlib_module_names
new = zip
builtins.zip = lambda *values: new(*values)
from trpexport.older_python import complete
complete()
from trpexport import older_python
from trpexport.device.app import main
sys.exit(main([sys.argv[1]]))
"""


def test_it_runs_without_what_newer_pythons_have(
    app: Path, site: Path, tmp_path: Path, linear: WriteOnnx
) -> None:
    settings = BenchSettings((ModelFile(str(linear()), "m"),), min_time=0.01, memory=False)
    (tmp_path / "settings.json").write_text(json.dumps(settings.to_json()))
    code = (
        "import sys; sys.path[:] = [p for p in sys.path if 'site-packages' not in p]\n"
        f"sys.path[:0] = [{str(app)!r}]; sys.path.append({str(site)!r})\n"
        "import onnxruntime, numpy\n"  # these are those of that Python
        f"{_OLDER}"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, tmp_path / "settings.json"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert len(json.loads(result.stdout)["results"]) == 1


@pytest.mark.parametrize("version", ["3.9", "3.10"])
def test_older_pythons_get_as_far_as_the_packages(app: Path, tmp_path: Path, version: str) -> None:
    python = shutil.which(f"python{version}")
    if python is None or subprocess.run([python, "-c", ""], check=False).returncode:
        pytest.skip(f"needs Python {version}")
    (tmp_path / "settings.json").write_text('{"kind": "bench"}')
    result = subprocess.run(
        [python, "-I", "-S", app, tmp_path / "settings.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "onnxruntime is missing on this device" in result.stderr


def test_a_strict_zip_of_ones_own_is_strict() -> None:
    ours = older_python._Zip
    assert list(ours([1, 2], "ab", strict=True)) == [(1, "a"), (2, "b")]
    assert list(ours([1, 2], "abc")) == [(1, "a"), (2, "b")]
    assert list(ours(strict=True)) == []
    for values in ([1, 2], "abc"), ([1, 2, 3], "ab"):
        with pytest.raises(ValueError, match="different lengths"):
            list(ours(*values, strict=True))


def test_an_error_is_told_with_what_mends_it(
    app: Path, tmp_path: Path, write_onnx: WriteOnnx
) -> None:
    path = write_onnx([helper.make_node("Relu", ["x"], ["y"])], {"x": ("n", "c")}, {"y": None})
    settings = BenchSettings((ModelFile(str(path), "m"),), memory=False)
    (tmp_path / "settings.json").write_text(json.dumps(settings.to_json()))
    result = subprocess.run(
        [sys.executable, app, tmp_path / "settings.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    *_, line = result.stderr.splitlines()
    error = told_error(line, "device")
    assert str(error).startswith("device: the input x float32[nxc] has dynamic dimensions")
    assert error.parameters == ("shapes",)


def test_a_place_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"can't write .*: No such file or directory"):
        build_device_app(tmp_path / "none" / "app.pyz")
