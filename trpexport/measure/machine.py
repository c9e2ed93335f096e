"""Facts of the machine that a measurement was made on, for its record."""

from __future__ import annotations

import mmap
import os
import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trpexport._version import __version__
from trpexport.measure.arm_cores import core_name
from trpexport.runtime.session import import_onnxruntime
from trpexport.schema import text, whole

ROOT = Path("/")
# What the kernel calls the instruction sets that MLAS has kernels for.
_INSTRUCTION_SETS = (
    *("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx_vnni"),
    *("avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme", "sme2"),
)
# What macOS calls them.
_SYSCTL_FEATURES = {
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.arm.FEAT_SME2": "sme2",
}
_GIB = 2**30
_COUNT = (None, whole(1))
MACHINE = {
    "architecture": text,
    "cpu": (None, text),
    "cores": {"physical": _COUNT, "logical": _COUNT},
    "memory_bytes": _COUNT,
    "os": {"system": text},
}
"""What :func:`fingerprint` asks of the facts of a machine."""


def machine_facts(root: Path = ROOT) -> dict[str, Any]:
    """Return what is known of this machine and its software, JSON-ready; None for what is not.

    - ``cpu``: its model; on ARM the cores by name, with how many there are of each.
    - ``architecture``, ``cores`` (``physical``, ``logical``, and those ``usable`` by this
      process), ``instruction_sets`` (as Linux names them, those that matter here), ``board``.
    - ``governor``, ``frequency_mhz`` and ``load_average`` (1, 5, 15 minutes) at this moment.
    - ``memory_bytes``; ``os``; ``virtualization``: container, virtual machine, or empty.
    - ``kleidiai``: whether Arm's KleidiAI kernels run float32 convolutions and products: they
      are built in, and the processor has SME, which all of them need. ONNX Runtime does not tell;
      so its library is searched for them, and None means that it was not found. The provider
      option ``mlas.disable_kleidiai=1`` turns them off.
    - ``versions`` of Python and packages, ``providers`` that onnxruntime has.
    - ``git``: commit of the working directory.

    Args:
        root: where ``/proc`` and ``/sys`` are.
    """
    onnxruntime = import_onnxruntime()
    cpuinfo = _cpuinfo(root) if (root / "proc").is_dir() else {}
    sysctl = {} if cpuinfo else _sysctl()
    instruction_sets = _instruction_sets(cpuinfo, sysctl)
    return {
        "architecture": platform.machine(),
        "cpu": _cpu_model(cpuinfo, sysctl),
        "board": _read(root / "sys/firmware/devicetree/base/model"),
        "cores": _cores(root, cpuinfo, sysctl),
        "instruction_sets": instruction_sets,
        "governor": _governor(root),
        "frequency_mhz": _frequency(root, cpuinfo),
        "load_average": _load_average(root),
        "memory_bytes": _memory_bytes(root),
        "os": {"system": platform.system(), "release": platform.release()},
        "virtualization": _virtualization(root, cpuinfo),
        "kleidiai": _kleidiai(Path(str(onnxruntime.__file__)).parent, instruction_sets),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
            "trpexport": __version__,
        },
        "providers": onnxruntime.get_available_providers(),
        "git": _git(),
    }


def instruction_sets(root: Path = ROOT) -> list[str]:
    """Return the instruction sets of this machine that ONNX Runtime has kernels for.

    Args:
        root: where ``/proc`` is.
    """
    cpuinfo = _cpuinfo(root) if (root / "proc").is_dir() else {}
    return _instruction_sets(cpuinfo, {} if cpuinfo else _sysctl())


def fingerprint(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts by which a machine is told from others; not what changes while it runs.

    Args:
        machine: what :func:`machine_facts` returned, perhaps long ago; has the shape
            :data:`MACHINE`.
    """
    memory = machine["memory_bytes"]
    return {
        "architecture": machine["architecture"],
        "CPU": machine["cpu"],
        "physical cores": machine["cores"]["physical"],
        "logical cores": machine["cores"]["logical"],
        "memory in GiB": None if memory is None else round(memory / _GIB),
        "operating system": machine["os"]["system"],
    }


def _cpuinfo(root: Path) -> dict[str, list[str]]:
    """Return what /proc/cpuinfo says: the values of each key, one a core."""
    values: dict[str, list[str]] = {}
    for line in (_read(root / "proc/cpuinfo") or "").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            values.setdefault(key.strip(), []).append(value.strip())
    return values


def _sysctl() -> dict[str, str]:
    """Return what macOS tells of its hardware."""
    lines = (_output("sysctl", "hw", "machdep.cpu") or "").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _cpu_model(cpuinfo: Mapping[str, list[str]], sysctl: Mapping[str, str]) -> str | None:
    if "CPU part" in cpuinfo:
        pairs = zip(cpuinfo["CPU implementer"], cpuinfo["CPU part"], strict=False)
        cores = Counter(core_name(int(a, 16), int(b, 16)) for a, b in pairs)
        return " + ".join(f"{count}x {name}" for name, count in cores.items())
    names = cpuinfo.get("model name") or [sysctl.get("machdep.cpu.brand_string", "")]
    return names[0] or None


def _cores(
    root: Path, cpuinfo: Mapping[str, list[str]], sysctl: Mapping[str, str]
) -> dict[str, int | None]:
    siblings = {
        _read(file)
        for file in (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology/core_cpus_list")
    }
    physical = len(siblings) or int(sysctl.get("hw.physicalcpu", 0))
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    return {
        "physical": physical or None,
        "logical": len(cpuinfo.get("processor", ())) or os.cpu_count(),
        "usable": usable,
    }


def _instruction_sets(cpuinfo: Mapping[str, list[str]], sysctl: Mapping[str, str]) -> list[str]:
    # Cores of one machine can differ: what they have in common is what every thread can use.
    per_core = [set(line.split()) for key in ("flags", "Features") for line in cpuinfo.get(key, ())]
    features = set.intersection(*per_core) if per_core else set()
    features |= {name for key, name in _SYSCTL_FEATURES.items() if sysctl.get(key) == "1"}
    return [name for name in _INSTRUCTION_SETS if name in features]


def _governor(root: Path) -> str | None:
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")
    return ", ".join(sorted({governor for file in files if (governor := _read(file))})) or None


def _frequency(root: Path, cpuinfo: Mapping[str, list[str]]) -> float | None:
    """Return the highest frequency of a core at this moment."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    kilohertz = [float(found) for file in files if (found := _read(file))]
    megahertz = [k / 1000 for k in kilohertz] or [float(m) for m in cpuinfo.get("cpu MHz", ())]
    return max(megahertz, default=None)


def _load_average(root: Path) -> list[float] | None:
    if loads := _read(root / "proc/loadavg"):
        return [float(load) for load in loads.split()[:3]]
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def _memory_bytes(root: Path) -> int | None:
    for line in (_read(root / "proc/meminfo") or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _virtualization(root: Path, cpuinfo: Mapping[str, list[str]]) -> list[str]:
    signs = {
        "container": any((root / name).exists() for name in (".dockerenv", "run/.containerenv")),
        "virtual machine": "hypervisor" in (cpuinfo.get("flags") or [""])[0].split(),
    }
    return [name for name, is_one in signs.items() if is_one]


def _kleidiai(package: Path, instruction_sets: list[str]) -> bool | None:
    if not {"sme", "sme2"} & set(instruction_sets):
        return False
    for library in (package / "capi").glob("onnxruntime_pybind11_state*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as m:
            return m.find(b"ArmKleidiAI") >= 0
    return None


def _git() -> dict[str, Any] | None:
    # Whether files differ from the commit is not asked: to tell, git may run filters, monitors and
    # transports that a stranger's repository names. What HEAD is, it reads from files alone.
    commit = _output("git", "rev-parse", "HEAD")
    return None if commit is None else {"commit": commit}


def _output(*command: str) -> str | None:
    """Return what a command prints; None if it is not there, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None
