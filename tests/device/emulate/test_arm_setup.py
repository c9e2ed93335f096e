from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from trpexport.bundle import MANIFEST
from trpexport.device.emulate import arm_setup
from trpexport.device.emulate.arm_setup import default_location, find_environment, prepare
from trpexport.errors import MissingDependencyError, OutputError, TrpexportError


@pytest.mark.parametrize(
    ("cache", "expected"),
    [
        ("/somewhere", "/somewhere/trpexport/arm"),
        (None, "/home/me/.cache/trpexport/arm"),
        ("", "/home/me/.cache/trpexport/arm"),
        ("relative", "/home/me/.cache/trpexport/arm"),
    ],
)
def test_the_place_is_in_the_users_cache_folder(
    monkeypatch: pytest.MonkeyPatch, cache: str | None, expected: str
) -> None:
    monkeypatch.delenv("TRPEXPORT_ARM", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    if cache is None:
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
    assert default_location() == Path(expected)
    monkeypatch.setenv("TRPEXPORT_ARM", "/chosen")
    assert default_location() == Path("/chosen")


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"files": {}}', '{"recipe": 1}'])
def test_what_is_not_prepared_names_the_command(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(TrpexportError, match=r"not prepared in .*: run trpexport arm-setup"):
        find_environment(tmp_path)


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """An environment by its manifest alone, made from what is installed here."""
    facts = {
        "recipe": arm_setup._recipe(),
        "versions": {"qemu": "7.2.22"},
        "counts_unavailable": None,
    }
    target = tmp_path / "arm"
    target.mkdir()
    (target / MANIFEST).write_text(json.dumps(facts))
    return target


def change_recipe(target: Path, name: str, value: object) -> None:
    manifest = json.loads((target / MANIFEST).read_text())
    manifest["recipe"][name] = value
    (target / MANIFEST).write_text(json.dumps(manifest))


def test_another_layout_is_to_be_prepared_again(prepared: Path) -> None:
    assert find_environment(prepared).versions == {"qemu": "7.2.22"}
    change_recipe(prepared, "layout", 0)
    with pytest.raises(TrpexportError, match=r"another version of trpexport: run .* again"):
        find_environment(prepared)


def test_a_command_is_of_one_processor(prepared: Path) -> None:
    environment = find_environment(prepared)
    command = environment.command("cortex-a53", "script.py", "-x")
    assert command[1:3] == ["-cpu", "cortex-a53"]
    assert command[-3:] == [
        str(prepared / "guests/cortex-a53/usr/bin/python3.11"),
        "script.py",
        "-x",
    ]
    assert "-plugin" not in command
    assert str(prepared / "icount.so") in environment.command("cortex-a53", count=True)
    with pytest.raises(TrpexportError, match="unknown emulated CPU"):
        environment.command("cortex-m4")


def test_nothing_of_the_users_environment_gets_in(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LD_PRELOAD", "PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "/mine")
    variables = find_environment(prepared).variables
    assert "/mine" not in variables.values()
    assert variables["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a shell script the only program of its name; there are none but those made so."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(
        platform,
        "freedesktop_os_release",
        lambda: {"PRETTY_NAME": "Debian GNU/Linux 12", "VERSION_CODENAME": "bookworm"},
    )

    def make(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    for name in ("apt-get", "dpkg", "dpkg-deb"):
        make(name, "exit 1")
    return make


def test_what_is_ready_is_left_alone(
    prepared: Path, programs: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", None)  # nothing may be run
    change_recipe(prepared, "icount", None)  # as it is without gcc
    lines: list[str] = []
    environment = prepare(prepared, announce=lines.append)
    assert lines == [f"{prepared} is ready"]
    assert environment == find_environment(prepared)


@pytest.mark.parametrize("name", ["onnxruntime", "numpy", "layout", "icount", "cores"])
def test_another_recipe_is_prepared_anew(
    prepared: Path, programs: Callable[[str, str], None], name: str
) -> None:
    programs("apt-get", "echo 'E: started' >&2; exit 100")
    change_recipe(prepared, name, "another")
    with pytest.raises(TrpexportError, match="started"):
        prepare(prepared)


@pytest.mark.parametrize(
    ("machine", "codename", "here"),
    [("aarch64", "bookworm", "Testix 1 on aarch64"), ("x86_64", "trixie", "Testix 1 on x86_64")],
)
def test_other_systems_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str, codename: str, here: str
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    release = {"PRETTY_NAME": "Testix 1", "VERSION_CODENAME": codename}
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: release)
    with pytest.raises(TrpexportError, match=f"Debian 12 on x86_64, and this is {here}"):
        prepare(tmp_path / "arm")


def test_an_unknown_linux_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_release() -> dict[str, str]:
        raise OSError("no os-release")

    monkeypatch.setattr(platform, "freedesktop_os_release", no_release)
    with pytest.raises(TrpexportError, match="this is an unknown Linux"):
        prepare(tmp_path / "arm")


def test_a_missing_program_is_named(tmp_path: Path, programs: Callable[[str, str], None]) -> None:
    (tmp_path / "programs/dpkg").unlink()
    with pytest.raises(MissingDependencyError, match="dpkg is missing"):
        prepare(tmp_path / "arm")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo 'W: a warning' >&2; echo 'E: Unable to fetch some archives' >&2\n"
            "echo 'more' >&2; exit 100",
            "apt-get can't get Debian's packages: E: Unable to fetch some archives",
        ),
        ("exit 3", "apt-get can't get Debian's packages: exit code 3"),
        ("exit 0", r"apt knows no packages yet: run apt-get update \(as root\), then again"),
    ],
)
def test_a_failure_is_one_line_and_leaves_nothing(
    tmp_path: Path, programs: Callable[[str, str], None], script: str, message: str
) -> None:
    programs("apt-get", script)
    with pytest.raises(TrpexportError, match=f"^{message}$") as caught:
        prepare(tmp_path / "cache/arm")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def test_other_files_are_not_harmed(tmp_path: Path, programs: Callable[[str, str], None]) -> None:
    (tmp_path / "precious").write_text("")
    with pytest.raises(OutputError, match="holds precious, programs: choose another place"):
        prepare(tmp_path)
    (tmp_path / MANIFEST).write_text('{"files": {}}')  # a bundle's
    with pytest.raises(OutputError, match="choose another place"):
        prepare(tmp_path)
    assert (tmp_path / "precious").is_file()


def test_downloads_are_told_with_their_size(
    tmp_path: Path, programs: Callable[[str, str], None]
) -> None:
    programs(
        "apt-get",
        """case "$*" in
        *indextargets*) echo "http://mirror/debian bookworm main" ;;
        *--print-uris*)
            echo "'http://mirror/a' a.deb 1500000 SHA256:0"
            echo "'http://mirror/b' b.deb 2600000 SHA256:0" ;;
        *" download "*) echo "E: gone" >&2; exit 100 ;;
        esac""",
    )
    lines: list[str] = []
    with pytest.raises(TrpexportError, match="E: gone"):
        prepare(tmp_path / "arm", announce=lines.append)
    assert lines[0] == "downloading Debian's index of arm64 packages (about 9 MB)"
    assert lines[1].startswith("downloading Debian's Python for arm64 (4 MB in ")


def test_without_a_compiler_counts_are_unavailable(
    tmp_path: Path, programs: Callable[[str, str], None]
) -> None:
    reason = arm_setup._build_plugin(tmp_path, lambda line: None)
    assert reason is not None
    assert reason.startswith("gcc was missing")
    programs("gcc", "echo 'error: no such header' >&2; exit 1")
    assert arm_setup._build_plugin(tmp_path, lambda line: None) == (
        "compiling the plugin failed: error: no such header"
    )


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_the_plugin_compiles_without_a_warning(tmp_path: Path) -> None:
    process = subprocess.run(
        ["gcc", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", arm_setup._PLUGIN_SOURCE],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C"},
        cwd=tmp_path,
    )
    assert process.stderr == ""
    assert process.returncode == 0
