"""Preparing an aarch64 Python with the real aarch64 ONNX Runtime under QEMU's user emulation.

Nothing is installed on the system: Debian's packages and PyPI's wheels are unpacked into one
directory, in the user's cache folder unless told otherwise.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trpexport.bundle import MANIFEST
from trpexport.device.emulate.arm_cpus import CPUS, write_guest_files
from trpexport.directories import staged_directory
from trpexport.errors import MissingDependencyError, TrpexportError
from trpexport.files import read_json, sha256_of, user_cache, write_json
from trpexport.runtime.session import import_onnxruntime

Announce = Callable[[str], None]

PREPARE = "trpexport arm-setup"  # the command that calls prepare()

_LAYOUT = 1  # of the directory; a change makes existing ones be built anew
_PLUGIN_SOURCE = Path(__file__).parent / "arm" / "icount.c"
_SUITE, _PYTHON = "bookworm", "3.11"  # Debian 12, and the Python that it has
_GUEST_PACKAGES = (
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libssl3", "libexpat1", "libffi8"),
    *("libbz2-1.0", "liblzma5"),
    *(f"libpython{_PYTHON}-minimal", f"libpython{_PYTHON}-stdlib", f"python{_PYTHON}-minimal"),
)
_EMULATOR_PACKAGE = "qemu-user"  # the dynamic build: the static one takes no plugins
_WHEEL_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux2014")


@dataclass(frozen=True)
class ArmEnvironment:
    """A prepared environment; found by :func:`find_environment`, made by :func:`prepare`.

    Attributes:
        root: the directory that holds all of it.
        versions: versions of what runs in it: ``qemu``, ``python``, ``onnxruntime``, ``numpy``.
        counts_unavailable: why instructions can't be counted; None if they can.
    """

    root: Path
    versions: Mapping[str, str]
    counts_unavailable: str | None

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment to run :meth:`command` in; of the user's own, nothing gets in."""
        return {
            "LD_LIBRARY_PATH": str(self.root / "host/usr/lib/x86_64-linux-gnu"),
            "PYTHONPATH": str(self.root / "site"),
            "HOME": str(self.root),
            "ORT_DISABLE_TELEMETRY": "1",
            "OPENBLAS_NUM_THREADS": "1",  # numpy's, which start at its import
            "PYTHONHASHSEED": "0",  # equal hashes, equal instruction counts
        }

    def command(self, cpu: str, *arguments: str, count: bool = False) -> list[str]:
        """Return the command line that runs the emulated Python.

        Args:
            cpu: a name in :data:`~trpexport.device.emulate.arm_cpus.CPUS`.
            arguments: what Python is given.
            count: load the plugin that counts instructions between two markers; see
                ``arm/icount.c``.

        Raises:
            TrpexportError: there is no such CPU.
        """
        CPUS[cpu]  # an unknown name is answered with the near ones
        guest = self.root / "guests" / cpu
        plugin = ("-plugin", str(self.root / "icount.so")) if count else ()
        return [
            *(str(self.root / "host/usr/bin/qemu-aarch64"), "-cpu", cpu, *plugin),
            *("-U", "LD_LIBRARY_PATH", "-L", str(guest)),
            *(str(guest / f"usr/bin/python{_PYTHON}"), *arguments),
        ]


def default_location() -> Path:
    """Return where the environment lies unless told otherwise.

    That is the directory that the variable ``TRPEXPORT_ARM`` names, else one in the user's cache
    folder.

    Raises:
        OutputError: the user has no home.
    """
    if chosen := os.environ.get("TRPEXPORT_ARM"):
        return Path(chosen)
    return user_cache() / "arm"


def find_environment(target: Path | None = None) -> ArmEnvironment:
    """Return the environment that :func:`prepare` made.

    Args:
        target: its directory; :func:`default_location` if None.

    Raises:
        TrpexportError: there is none, or it was made by another version of trpexport.
    """
    target = (target or default_location()).absolute()
    manifest = _read_manifest(target)
    if manifest is None:
        raise TrpexportError(f"the ARM emulation is not prepared in {target}: run {PREPARE}")
    if manifest["recipe"].get("layout") != _LAYOUT:
        raise TrpexportError(
            f"the ARM emulation in {target} was prepared by another version of trpexport: "
            f"run {PREPARE} again"
        )
    return ArmEnvironment(target, manifest["versions"], manifest["counts_unavailable"])


def prepare(target: Path | None = None, *, announce: Announce | None = None) -> ArmEnvironment:
    """Prepare the emulation, unless it is: 70 MB of downloads, 180 MB on disk, half a minute.

    The emulated Python gets the versions of onnxruntime and numpy that are installed here. The
    directory appears whole or not at all.

    Args:
        target: the directory to make; :func:`default_location` if None.
        announce: called with a line on each step, with the size of what it downloads.

    Raises:
        TrpexportError: this is no Debian 12 on x86-64, a registry can't be reached, or what was
            built does not run.
        MissingDependencyError: onnxruntime or a program is missing here.
        OutputError: ``target`` can't be written, or holds something else.
    """
    say = announce or (lambda line: None)
    target = (target or default_location()).absolute()
    recipe = _recipe()
    manifest = _read_manifest(target)
    if manifest is not None and manifest["recipe"] == recipe:
        say(f"{target} is ready")
        return find_environment(target)
    _check_host()
    with staged_directory(target, replaceable=_is_environment) as root:
        _unpack_guest(root, say)
        _unpack_emulator(root, say)
        _install_wheels(root, recipe["onnxruntime"], recipe["numpy"], say)
        for name, cpu in CPUS.items():
            _make_guest(root, name)
            write_guest_files(root / "guests" / name, cpu, os.cpu_count() or 1)
        unavailable = _build_plugin(root, say)
        versions = _try(ArmEnvironment(root, {}, unavailable), say)
        facts = {"recipe": recipe, "versions": versions, "counts_unavailable": unavailable}
        write_json(root / MANIFEST, facts)
    say(f"{target} is ready")
    return find_environment(target)


def _recipe() -> dict[str, Any]:
    """Return what an environment is made from: another recipe makes another environment."""
    import numpy as np

    return {
        "layout": _LAYOUT,
        "onnxruntime": str(import_onnxruntime().__version__),
        "numpy": np.__version__,
        "icount": sha256_of(_PLUGIN_SOURCE) if shutil.which("gcc") else None,
        "cores": os.cpu_count(),
    }


def _read_manifest(target: Path) -> dict[str, Any] | None:
    """Return the facts of an environment; None if there is none: the folder may be a bundle's."""
    try:
        manifest = read_json(target / MANIFEST)
        return {
            "recipe": dict(manifest["recipe"]),
            "versions": dict(manifest["versions"]),
            "counts_unavailable": manifest["counts_unavailable"],
        }
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_environment(directory: Path) -> bool:
    return _read_manifest(directory) is not None


def _check_host() -> None:
    release: Mapping[str, str] = {}
    if sys.platform == "linux":
        try:
            release = platform.freedesktop_os_release()
        except OSError:
            release = {"PRETTY_NAME": "an unknown Linux"}
    if platform.machine() != "x86_64" or release.get("VERSION_CODENAME") != _SUITE:
        here = f"{release.get('PRETTY_NAME', platform.system())} on {platform.machine()}"
        raise TrpexportError(
            f"the ARM emulation is prepared on Debian 12 on x86_64, and this is {here}: run it "
            "in a container of the image python:3.11-bookworm, or measure on an aarch64 machine"
        )
    for program in ("apt-get", "dpkg", "dpkg-deb"):
        if shutil.which(program) is None:
            raise MissingDependencyError(f"{program} is missing: the ARM emulation needs it")


def _unpack_guest(root: Path, say: Announce) -> None:
    """Unpack Debian's aarch64 Python, through a state of apt of its own."""
    apt = root / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (apt / folder).mkdir(parents=True)
    sources, status = apt / "sources.list", apt / "status"
    key = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources.write_text(f"deb [arch=arm64 signed-by={key}] {_mirror()} {_SUITE} main\n")
    status.touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Update::Error-Mode": "any",  # a failed download is an error, no warning
        "Acquire::Languages": "none",
        "Dir::State": apt,
        "Dir::State::status": status,
        "Dir::Cache": apt,
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
    }
    options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]
    say("downloading Debian's index of arm64 packages (about 9 MB)")
    _apt([*options, "update"])
    for package in _download(root, _GUEST_PACKAGES, options, "Debian's Python for arm64", say):
        _run(["dpkg", "-x", str(package), str(root / "sysroot")], "unpacking a package failed")
        package.unlink()
    shutil.rmtree(apt)


def _unpack_emulator(root: Path, say: Announce) -> None:
    """Unpack QEMU and those libraries of its that this machine lacks."""
    plan = _apt(["--simulate", "install", "--no-install-recommends", _EMULATOR_PACKAGE])
    missing = set(re.findall(r"^Inst (\S+)", plan, re.MULTILINE)) | {_EMULATOR_PACKAGE}
    for package in _download(root, sorted(missing), [], "QEMU", say):
        _run(["dpkg", "-x", str(package), str(root / "host")], "unpacking a package failed")
        package.unlink()
    programs = root / "host/usr/bin"  # an emulator for every architecture, of 5 MB each
    for program in programs.iterdir():
        if program.name != "qemu-aarch64":
            program.unlink()


def _install_wheels(root: Path, onnxruntime: str, numpy: str, say: Announce) -> None:
    say(f"downloading onnxruntime {onnxruntime} and numpy {numpy} for aarch64 (about 40 MB)")
    platforms = [part for name in _WHEEL_PLATFORMS for part in ("--platform", f"{name}_aarch64")]
    _run(
        [
            *(
                sys.executable,
                "-P",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ),
            *("--no-deps", "--only-binary=:all:", "--implementation", "cp", *platforms),
            *("--python-version", _PYTHON, "--abi", f"cp{_PYTHON.replace('.', '')}"),
            *("--no-compile", "--root-user-action", "ignore", "--target", str(root / "site")),
            *(f"onnxruntime=={onnxruntime}", f"numpy=={numpy}"),
        ],
        "pip can't get the wheels for aarch64",
    )


def _make_guest(root: Path, cpu: str) -> None:
    """Make a root directory for one CPU: all but /proc and /sys is shared, through links."""
    guest = root / "guests" / cpu
    guest.mkdir(parents=True)
    for entry in (root / "sysroot").iterdir():
        (guest / entry.name).symlink_to(Path("../../sysroot") / entry.name)


def _build_plugin(root: Path, say: Announce) -> str | None:
    """Compile the counting plugin; return why instructions can't be counted if that fails."""
    if shutil.which("gcc") is None:
        return f"gcc was missing when the emulation was prepared: install it, run {PREPARE} again"
    say("compiling the plugin that counts instructions")
    plugin = root / "icount.so"
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", str(plugin), str(_PLUGIN_SOURCE)]
    try:
        _run(command, "compiling the plugin failed")
    except TrpexportError as error:
        return str(error)
    return None


def _try(environment: ArmEnvironment, say: Announce) -> dict[str, str]:
    """Import onnxruntime in the emulation, and return the versions of what runs."""
    say("trying it")
    program = (
        "import json, platform, numpy, onnxruntime\n"
        "versions = {'python': platform.python_version(), 'numpy': numpy.__version__,\n"
        "            'onnxruntime': onnxruntime.__version__}\n"
        "assert platform.machine() == 'aarch64'\n"
        "print(json.dumps(versions))"
    )
    what = "the ARM emulation does not run here"
    qemu = environment.command("cortex-a76")[0]
    banner = _run([qemu, "--version"], what, environment.variables)
    output = _run(
        environment.command("cortex-a76", "-P", "-c", program), what, environment.variables
    )
    version = re.search(r"version (\S+)", banner)
    return {"qemu": version[1] if version else "unknown", **json.loads(output)}


def _mirror() -> str:
    """Return the address of the Debian archive that this machine gets its packages from."""
    form = "$(SITE) $(CODENAME) $(COMPONENT)"
    targets = _apt(["indextargets", "--format", form, "Created-By: Packages"])
    for line in targets.splitlines():
        site, _, rest = line.partition(" ")
        if rest == f"{_SUITE} main":
            return site
    raise TrpexportError("apt knows no packages yet: run apt-get update (as root), then again")


def _download(
    root: Path, packages: Sequence[str], options: Sequence[str], what: str, say: Announce
) -> list[Path]:
    """Download packages into ``root`` and return their files."""
    addresses = _apt([*options, "--print-uris", "download", *packages])
    size = sum(int(n) for n in re.findall(r"^'.*?' \S+ (\d+)", addresses, re.MULTILINE))
    say(f"downloading {what} ({size / 1e6:.0f} MB in {len(packages)} packages)")
    _apt([*options, "download", *packages], cwd=root)
    return sorted(root.glob("*.deb"))


def _apt(arguments: Sequence[str], cwd: Path | None = None) -> str:
    # As root, apt would hand downloads to a user who can't write here.
    command = ["apt-get", "-q", "-q", "-o", "APT::Sandbox::User=root", *arguments]
    return _run(command, "apt-get can't get Debian's packages", cwd=cwd)


def _run(
    command: Sequence[str],
    failure: str,
    variables: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run a program and return its output.

    Raises:
        TrpexportError: it fails; the message begins with ``failure``.
    """
    variables = {**os.environ, "LC_ALL": "C.UTF-8"} if variables is None else variables
    process = subprocess.run(
        command, env=variables, cwd=cwd, capture_output=True, text=True, check=False
    )
    if process.returncode != 0:
        lines = process.stderr.strip().splitlines() or [f"exit code {process.returncode}"]
        errors = [line for line in lines if re.match(r"(E|ERROR|error)\b", line)]
        raise TrpexportError(f"{failure}: {(errors or lines[-1:])[-1]}")
    return process.stdout
