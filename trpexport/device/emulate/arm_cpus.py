"""The ARM processors that can be emulated, and what a Linux kernel tells of them in /proc and /sys.

ONNX Runtime picks its kernels by these files and by the processor's hardware capabilities. QEMU
emulates the latter, but opens the former on the host: where they show an x86 processor, the
import of onnxruntime for aarch64 dies of SIGSEGV.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trpexport.registry import Registry

_V8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
_V8_2 = f"{_V8_0} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class ArmCpu:
    """A processor by its Main ID Register (MIDR_EL1) and what it can do.

    Attributes:
        part: the part number; the implementer is always ARM (0x41).
        revision: variant and revision, as in r4p1.
        features: the names of its hardware capabilities, as in /proc/cpuinfo.
        note: what a user should know before choosing it.
    """

    part: int
    revision: tuple[int, int]
    features: str
    note: str | None = None

    def cpuinfo(self, cores: int) -> str:
        """Return /proc/cpuinfo of a machine with so many of these cores."""
        variant, patch = self.revision
        return "".join(
            f"processor\t: {core}\n"
            "BogoMIPS\t: 100.00\n"
            f"Features\t: {self.features}\n"
            "CPU implementer\t: 0x41\n"
            "CPU architecture: 8\n"
            f"CPU variant\t: {variant:#x}\n"
            f"CPU part\t: {self.part:#05x}\n"
            f"CPU revision\t: {patch}\n\n"
            for core in range(cores)
        )


# Names and revisions are those of QEMU's -cpu.
CPUS: Registry[ArmCpu] = Registry("emulated CPU")
CPUS.register("cortex-a53", ArmCpu(0xD03, (0, 4), _V8_0))
CPUS.register("cortex-a72", ArmCpu(0xD08, (0, 3), _V8_0))
CPUS.register("cortex-a76", ArmCpu(0xD0B, (4, 1), _V8_2))
CPUS.register("neoverse-n1", ArmCpu(0xD0C, (4, 1), _V8_2))
CPUS.register(
    "max",
    ArmCpu(
        0xD0B,  # it has no part number of its own that software knows
        (4, 1),
        f"{_V8_2} sve sve2 i8mm bf16 sme",
        note="emulates SME, which takes about ten times as long as the other processors",
    ),
)


def write_guest_files(root: Path, cpu: ArmCpu, cores: int) -> None:
    """Write what the emulated program reads of its processor below ``root``.

    Args:
        root: the directory that stands for the root of the guest's file system.
        cpu: the processor.
        cores: number of cores; no less than the host has, since the guest runs on any of them.
    """
    _write(root / "proc/cpuinfo", cpu.cpuinfo(cores))
    system = root / "sys/devices/system/cpu"
    every = f"0-{cores - 1}"
    for name in ("possible", "present", "online"):
        _write(system / name, every)
    _write(system / "kernel_max", str(cores - 1))
    for core in range(cores):
        facts = {
            "topology/physical_package_id": "0",
            "topology/cluster_cpus_list": every,
            "topology/core_siblings_list": every,
            "cache/index2/level": "2",
            "cache/index2/size": "512K",
            "cache/index2/shared_cpu_list": str(core),
            "cpufreq/cpuinfo_max_freq": "2000000",
            "cpufreq/cpuinfo_min_freq": "600000",
        }
        for name, text in facts.items():
            _write(system / f"cpu{core}" / name, text)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if text.endswith("\n") else f"{text}\n", encoding="ascii")
