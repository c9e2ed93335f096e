"""Against a real sshd on loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import external_data_helper, helper

from tests.device.loopback import Device, wait_until
from trpexport.device import remote
from trpexport.device.remote import run_on_host
from trpexport.device.ssh import connect
from trpexport.errors import MissingDependencyError, ModelError, TrpexportError
from trpexport.measure.settings import BenchSettings, find_models

WriteOnnx = Callable[..., Path]

ROOT = Path(__file__).resolve().parents[2]


def quick(*models: Path, **settings: Any) -> BenchSettings:
    return BenchSettings(
        find_models(models), min_time=0, min_runs=2, warmup_seconds=0.1, memory=False, **settings
    )


def run(device: Device, settings: BenchSettings, **options: Any) -> Mapping[str, Any]:
    return run_on_host("device", settings, **{"python": sys.executable} | device.options | options)


def test_the_record_comes_back_and_nothing_stays(device: Device, linear: WriteOnnx) -> None:
    lines: list[str] = []
    settings = quick(linear(), linear(2.0))
    record = run(device, settings, announce=lines.append)
    assert record["host"] == "device"
    assert record["settings"] == settings.to_json()
    assert record["kind"] == "bench"
    (result,) = record["results"]
    assert [model["runs"] >= 2 for model in result["models"]] == [True, True]
    assert device.left_behind() == []
    assert lines[:2] == ["connect to device", "copy 2 models to device"]
    assert str(device.root) not in str(record)


def test_files_beside_a_model_go_along(
    device: Device, write_onnx: WriteOnnx, tmp_path: Path
) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    weight = np.ones((300, 3), np.float32)
    model = write_onnx(
        nodes,
        {"x": (1, 300)},
        {"y": (1, 3)},
        {"w": weight},
        save_as_external_data=True,
        location="a weight's file",
        size_threshold=0,
    )
    data = tmp_path / "real inputs.npy"
    np.save(data, np.ones((1, 300), np.float32))
    record = run(device, quick(model, data=str(data)))
    assert len(record["results"][0]["models"]) == 1
    assert device.left_behind() == []


@pytest.mark.parametrize(
    ("location", "message"),
    [("../secret", "outside its own directory"), ("/etc/passwd", "outside"), ("x", "missing")],
)
def test_other_files_stay_here(
    write_onnx: WriteOnnx, monkeypatch: pytest.MonkeyPatch, location: str, message: str
) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = write_onnx(nodes, {"x": (1, 3)}, {"y": (1, 3)}, {"w": np.ones((3, 3), np.float32)})
    model = onnx.load(path)
    external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    monkeypatch.setattr(remote, "connect", None)  # it is told before connecting
    with pytest.raises(ModelError, match=message):
        run_on_host("device", quick(path))


def test_an_error_there_is_passed_on_and_nothing_stays(
    device: Device, write_onnx: WriteOnnx
) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model = write_onnx(nodes, {"x": ("n", "columns")}, {"y": ("n", "columns")})
    with pytest.raises(TrpexportError, match=r"^device: .* as in x=") as caught:
        run(device, quick(model))
    assert "\n" not in str(caught.value)
    assert caught.value.parameters == ("shapes",)
    assert device.left_behind() == []


def test_a_missing_package_there_names_the_command(device: Device, linear: WriteOnnx) -> None:
    python = device.program("python", f'exec {sys.executable} -I -S "$@"')
    with pytest.raises(TrpexportError) as caught:
        run(device, quick(linear()), python=str(python))
    assert str(caught.value) == (
        "device: onnxruntime is missing on this device: there, "
        f"{sys.executable} -m pip install onnxruntime"
    )
    assert device.left_behind() == []


def test_no_python_there(device: Device, linear: WriteOnnx) -> None:
    message = "device has no python2.6: install Python there, or name the one that it has"
    with pytest.raises(MissingDependencyError, match=message):
        run(device, quick(linear()), python="python2.6")
    assert device.left_behind() == []


def test_an_old_python_there(device: Device, linear: WriteOnnx) -> None:
    code = (
        "import runpy, sys; sys.version_info = (3, 8, 1); "
        "runpy.run_path(sys.argv[1], {}, '__main__')"
    )
    python = device.program("old", f'exec {sys.executable} -c "{code}" "$@"')
    with pytest.raises(TrpexportError, match=r"device: .* is Python 3\.8, and 3\.9 is needed"):
        run(device, quick(linear()), python=str(python))


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo Traceback >&2; echo 'KeyError: 1' >&2; exit 1", r"KeyError: 1 \(exit code 1\)"),
        ("echo hello", r"exit code 0 \(exit code 0\)"),
    ],
)
def test_a_crash_there_is_one_line(
    device: Device, linear: WriteOnnx, script: str, message: str
) -> None:
    python = device.program("python", script)
    with pytest.raises(TrpexportError, match=f"^device sent no record: {message}$"):
        run(device, quick(linear()), python=str(python))
    assert device.left_behind() == []


def test_a_killed_program_there_is_one_line(device: Device, linear: WriteOnnx) -> None:
    python = device.program("python", "echo '- measure' >&2; kill -KILL $$")
    with pytest.raises(TrpexportError, match=r"ended the run.*killed, for lack of memory perhaps$"):
        run(device, quick(linear()), python=str(python))
    assert device.left_behind() == []


def test_a_full_disk_there(device: Device, linear: WriteOnnx) -> None:
    header = "Filesystem 1024-blocks Used Available Capacity Mounted on"
    device.program("df", f"echo '{header}'; echo 'tmpfs 65536 65535 1 100% /tmp'")
    with pytest.raises(TrpexportError, match=r"device has 0 MB free in .*, and 0 MB are needed"):
        run(device, quick(linear()))
    assert device.left_behind() == []


def test_no_directory_there(device: Device, linear: WriteOnnx) -> None:
    device.program("mktemp", "echo 'mktemp: Read-only file system' >&2; exit 1")
    message = "device can't make a temporary directory: mktemp: Read-only file system"
    with pytest.raises(TrpexportError, match=message):
        run(device, quick(linear()))


def test_a_directory_with_a_strange_name_is_refused(device: Device, linear: WriteOnnx) -> None:
    device.program("mktemp", "echo '/tmp/x; touch /tmp/y'")
    with pytest.raises(TrpexportError, match="can't make a temporary directory"):
        run(device, quick(linear()))


def test_a_copy_that_fails(device: Device, linear: WriteOnnx, tmp_path: Path) -> None:
    device.program("tar", "echo 'tar: write error: No space left on device' >&2; exit 1")
    message = r"can't copy to device:/.*: tar: write error: No space left on device"
    with pytest.raises(TrpexportError, match=message):
        run(device, quick(linear()))
    assert device.left_behind() == []


def test_files_of_any_name_are_copied_without_their_links(device: Device, tmp_path: Path) -> None:
    names = ["it's", 'a "b" $(c)', "-rf", "ünï çode", "x" * 200]
    folder, there = tmp_path / "from", tmp_path / "to"
    (folder / "inner").mkdir(parents=True)
    there.mkdir()
    for name in names:
        (tmp_path / name).write_bytes(name.encode() * 1000)
        (folder / "inner" / name).symlink_to(tmp_path / name)
    with connect("device", **device.options) as connection:
        connection.copy([folder / "inner"], str(there))
    found = {path.name: path for path in (there / "inner").iterdir()}
    assert sorted(found) == sorted(names)
    for name, path in found.items():
        assert not path.is_symlink()
        assert path.read_bytes() == name.encode() * 1000


def test_an_interrupt_ends_the_run_there_and_leaves_nothing(
    device: Device, linear: WriteOnnx, tmp_path: Path
) -> None:
    started, ended = tmp_path / "started", tmp_path / "ended"
    script = f'touch {started}; {sys.executable} "$@"; touch {ended}'
    options = device.options | {"python": str(device.program("python", script))}
    program = (
        "import signal, sys\n"
        "from trpexport.measure.settings import BenchSettings, ModelFile\n"
        "from trpexport.device.remote import run_on_host\n"
        # Tests that a shell runs in the background inherit that interrupts are ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"settings = BenchSettings((ModelFile({str(linear())!r}, 'm'),), min_time=600)\n"
        f"run_on_host('device', settings, **{options!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, cwd=ROOT)
    with process:
        wait_until(started.exists)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert process.stderr.read().endswith(b"KeyboardInterrupt\n")
    assert device.left_behind() == []
    wait_until(ended.exists)


@pytest.mark.parametrize("moment", ["copy 1 model", "measure"])
@pytest.mark.parametrize(
    "number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_a_kill_leaves_nothing_there(
    device: Device, linear: WriteOnnx, tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    """Nothing of this process is left to clean up: the machine does it on its own."""
    device.program("python", f'echo "- measure" >&2; exec {sys.executable} "$@"')
    options = device.options | {"python": str(device.programs / "python")}
    program = (
        "from trpexport.measure.settings import BenchSettings, ModelFile\n"
        "from trpexport.device.remote import run_on_host\n"
        f"settings = BenchSettings((ModelFile({str(linear())!r}, 'm'),), min_time=600)\n"
        "say = lambda line: print(line, flush=True)\n"
        f"run_on_host('device', settings, announce=say, **{options!r})"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        assert any(line.startswith(moment.encode()) for line in process.stdout)
        assert device.left_behind() != []
        process.send_signal(number)
    wait_until(lambda: device.left_behind() == [])
    time.sleep(0.5)  # a copy that goes on after our end must not bring it back
    assert device.left_behind() == []


def test_the_next_run_removes_what_a_loss_of_power_left_there(
    device: Device, linear: WriteOnnx
) -> None:
    for name, keeper in (("trpexport.dead", 2**22 + 1), ("trpexport.alive", os.getpid())):
        (device.root / name).mkdir()
        (device.root / name / "keeper").write_text(f"{keeper}\n")
    (device.root / "trpexport.mine").mkdir()  # by whoever has no keeper
    run(device, quick(linear()))
    assert sorted(device.left_behind()) == ["trpexport.alive", "trpexport.mine"]
    device.clear()


@pytest.mark.parametrize(
    ("python", "word"),
    [
        ("python3.12", "python3.12"),
        ("~/venv/bin/python", "~/venv/bin/python"),
        ("~/my venv/python", "~/'my venv/python'"),
        ("a;b", "'a;b'"),
    ],
)
def test_a_python_is_one_word_of_the_command(python: str, word: str) -> None:
    assert remote._command_word(python) == word


@pytest.mark.parametrize("python", ["", "-c", "a\nb"])
def test_what_is_no_python_is_refused(python: str, linear: WriteOnnx) -> None:
    with pytest.raises(TrpexportError, match="is no program"):
        run_on_host("device", quick(linear()), python=python)


def test_what_is_no_host_is_refused(linear: WriteOnnx) -> None:
    with pytest.raises(TrpexportError, match="is no host"):
        run_on_host("-oProxyCommand=x", quick(linear()))


def test_missing_data_is_told_before_connecting(linear: WriteOnnx) -> None:
    with pytest.raises(TrpexportError, match=r"none\.npy is not a file"):
        run_on_host("device", quick(linear(), data="none.npy"))
