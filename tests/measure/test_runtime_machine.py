from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import onnxruntime
import pytest

from trpexport import __version__
from trpexport.measure import machine
from trpexport.measure.arm_cores import core_name
from trpexport.measure.machine import fingerprint, machine_facts

XEON = """\
processor\t: {0}
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
cpu MHz\t\t: {1}
flags\t\t: fpu sse2 hypervisor avx f16c fma avx2 avx512f avx512bw avx512vl avx512_vnni amx_tile

"""
ARM_CORE = """\
processor\t: {0}
BogoMIPS\t: 48.00
Features\t: {1}
CPU implementer\t: {2}
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {3}
CPU revision\t: 0

"""
A55 = "fp asimd evtstrm aes asimdhp cpuid asimddp"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def core(index: int, **files: str) -> dict[str, str]:
    return {
        f"sys/devices/system/cpu/cpu{index}/{name.replace('__', '/')}": text
        for name, text in files.items()
    }


@pytest.fixture
def xeon(tmp_path: Path) -> Path:
    """Two cores of two threads each."""
    files = {
        "proc/cpuinfo": "".join(XEON.format(n, f"2700.{n}") for n in range(4)),
        "proc/meminfo": "MemTotal:       16374860 kB\nMemFree:        1 kB\n",
        "proc/loadavg": "0.50 1.25 2.00 3/86 262\n",
        ".dockerenv": "",
    }
    for n, siblings in enumerate(("0,2", "1,3", "0,2", "1,3")):
        files |= core(n, topology__core_cpus_list=siblings + "\n")
    return write(tmp_path, files)


@pytest.fixture
def rk3588(tmp_path: Path) -> Path:
    """Four little and four big cores; the little ones have no i8mm."""
    cores = [("0xd05", A55)] * 4 + [("0xd0b", f"{A55} i8mm")] * 4
    files = {
        "proc/cpuinfo": "".join(
            ARM_CORE.format(n, features, "0x41", part) for n, (part, features) in enumerate(cores)
        ),
        "proc/meminfo": "MemTotal:        8123456 kB\n",
        "proc/loadavg": "0.00 0.00 0.00 1/86 262\n",
        "sys/firmware/devicetree/base/model": "Radxa ROCK 5B\0",
    }
    for n in range(8):
        files |= core(
            n,
            topology__core_cpus_list=f"{n}\n",
            cpufreq__scaling_governor="performance\n" if n < 4 else "ondemand\n",
            cpufreq__scaling_cur_freq="1800000\n" if n < 4 else "2256000\n",
        )
    return write(tmp_path, files)


def test_an_x86_machine(xeon: Path) -> None:
    facts = machine_facts(xeon)
    assert facts["cpu"] == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert (facts["cores"]["physical"], facts["cores"]["logical"]) == (2, 4)
    assert facts["instruction_sets"] == [
        *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
        "amx_tile",
    ]
    assert facts["memory_bytes"] == 16374860 * 1024
    assert facts["load_average"] == [0.5, 1.25, 2.0]
    assert facts["frequency_mhz"] == 2700.3
    assert facts["governor"] is None
    assert facts["board"] is None
    assert facts["virtualization"] == ["container", "virtual machine"]
    assert facts["kleidiai"] is False


def test_an_arm_machine_of_big_and_little_cores(rk3588: Path) -> None:
    facts = machine_facts(rk3588)
    assert facts["cpu"] == "4x Cortex-A55 + 4x Cortex-A76"
    assert facts["board"] == "Radxa ROCK 5B"
    assert (facts["cores"]["physical"], facts["cores"]["logical"]) == (8, 8)
    assert facts["instruction_sets"] == ["asimd", "asimdhp", "asimddp"]  # what all cores have
    assert facts["governor"] == "ondemand, performance"
    assert facts["frequency_mhz"] == 2256
    assert facts["virtualization"] == []
    assert facts["kleidiai"] is False  # its float32 kernels need SME


def test_the_software_is_in_the_facts() -> None:
    facts = machine_facts()
    assert facts["architecture"] == platform.machine()
    assert facts["os"] == {"system": platform.system(), "release": platform.release()}
    assert facts["versions"]["onnxruntime"] == onnxruntime.__version__
    assert facts["versions"]["trpexport"] == __version__
    assert facts["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert facts["providers"] == onnxruntime.get_available_providers()
    assert facts["cores"]["logical"] >= facts["cores"]["usable"] >= 1
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    facts = machine_facts(write(tmp_path, {"proc/version": "?"}))
    assert facts["instruction_sets"] == []
    assert facts["cores"]["physical"] is None
    assert (facts["cpu"], facts["governor"], facts["frequency_mhz"]) == (None, None, None)
    assert facts["memory_bytes"] > 2**20  # by sysconf
    fingerprint(facts)


def test_a_mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "hw.physicalcpu: 8\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_SME: 0\n"
    lines += "hw.optional.AdvSIMD: 1\nmachdep.cpu.brand_string: Apple M2\n"

    def output(*command: str) -> str | None:
        return lines if command[0] == "sysctl" else None

    monkeypatch.setattr(machine, "_output", output)
    facts = machine_facts(tmp_path)
    assert facts["cpu"] == "Apple M2"
    assert facts["cores"]["physical"] == 8
    assert facts["instruction_sets"] == ["asimd", "asimddp"]


@pytest.mark.parametrize(
    ("implementer", "part", "name"),
    [
        (0x41, 0xD03, "Cortex-A53"),
        (0x41, 0xD08, "Cortex-A72"),
        (0x41, 0xD0C, "Neoverse-N1"),
        (0x41, 0xD40, "Neoverse-V1"),
        (0x41, 0xD4F, "Neoverse-V2"),
        (0x51, 0x001, "Oryon"),
        (0x41, 0xFFF, "ARM core 0x41/0xfff"),
        (0x99, 0x001, "ARM core 0x99/0x001"),
    ],
)
def test_arm_cores_by_name(implementer: int, part: int, name: str) -> None:
    assert core_name(implementer, part) == name


@pytest.mark.parametrize(
    ("content", "features", "expected"),
    [
        (b"..N11ArmKleidiAI8MlasConv..", f"{A55} sme2", True),
        (b"................", f"{A55} sme", False),
        (None, f"{A55} sme", None),
        (b"..N11ArmKleidiAI8MlasConv..", A55, False),
    ],
)
def test_kleidiai_is_told_by_the_library_and_the_processor(
    content: bytes | None,
    features: str,
    expected: bool | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = ModuleType("onnxruntime")
    package.__file__ = str(tmp_path / "onnxruntime/__init__.py")
    package.__version__ = "1.31.1"  # type: ignore[attr-defined]
    package.get_available_providers = lambda: []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime", package)
    (tmp_path / "onnxruntime/capi").mkdir(parents=True)
    if content is not None:
        library = "onnxruntime/capi/onnxruntime_pybind11_state.cpython-311-aarch64-linux-gnu.so"
        (tmp_path / library).write_bytes(content)
    root = write(tmp_path / "root", {"proc/cpuinfo": ARM_CORE.format(0, features, "0x41", "0xd84")})
    assert machine_facts(root)["kleidiai"] is expected


# --- the repository -------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert machine_facts()["git"] is None
    commit_one_file(tmp_path)
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    assert machine_facts()["git"] == {"commit": head.stdout.strip()}
    monkeypatch.setenv("PATH", "")
    assert machine_facts()["git"] is None


def commit_one_file(folder: Path) -> None:
    (folder / "a").write_text("1")
    name = ("-c", "user.name=a", "-c", "user.email=a@b")
    for command in (("init", "-q"), ("add", "a"), (*name, "commit", "-q", "-m", "1")):
        subprocess.run(["git", "-C", str(folder), *command], check=True)


PROGRAM = "touch ran; cat"


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize(
    "setting",
    [
        ("core.fsmonitor", "touch ran; false"),
        ("filter.x.clean", PROGRAM),
        ("filter.x.process", PROGRAM),
        ("core.hooksPath", "hooks"),
        ("core.pager", PROGRAM),
        ("core.sshCommand", PROGRAM),
        ("diff.external", PROGRAM),
        ("alias.rev-parse", f"!{PROGRAM}"),
    ],
    ids=lambda setting: setting[0],
)
def test_no_program_that_a_repository_names_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: tuple[str, str]
) -> None:
    commit_one_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".gitattributes").write_text("* filter=x\n")
    (tmp_path / "a").write_text("2")  # of the same size: git would have to look into it
    hook = tmp_path / "hooks" / "post-index-change"
    hook.parent.mkdir()
    hook.write_text("#!/bin/sh\ntouch ran\n")
    hook.chmod(0o755)
    subprocess.run(["git", "config", *setting], check=True)
    assert list(machine_facts()["git"]) == ["commit"]
    assert not (tmp_path / "ran").exists()


# --- the same machine? ----------------------------------------------------------------------


def test_load_and_frequency_do_not_make_another_machine(xeon: Path) -> None:
    before = fingerprint(machine_facts(xeon))
    (xeon / "proc/loadavg").write_text("9.00 9.00 9.00 3/86 262\n")
    (xeon / "proc/meminfo").write_text("MemTotal:       16370000 kB\n")  # another kernel
    (xeon / "proc/cpuinfo").write_text("".join(XEON.format(n, "800.0") for n in range(4)))
    assert fingerprint(machine_facts(xeon)) == before
    assert before["memory in GiB"] == 16


@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("cpu", "other", "CPU"),
        ("architecture", "aarch64", "architecture"),
        ("memory_bytes", 2**35, "memory in GiB"),
        ("os", {"system": "Darwin"}, "operating system"),
        ("cores", {"physical": 4, "logical": 4}, "physical cores"),
        ("cores", {"physical": 2, "logical": 2}, "logical cores"),
    ],
)
def test_hardware_makes_another_machine(xeon: Path, key: str, value: Any, name: str) -> None:
    facts = machine_facts(xeon)
    before, after = fingerprint(facts), fingerprint(facts | {key: value})
    assert before[name] != after[name]
