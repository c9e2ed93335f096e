from __future__ import annotations

from pathlib import Path

import pytest

from trpexport.device.emulate.arm_cpus import CPUS, write_guest_files
from trpexport.errors import TrpexportError


def midr(text: str) -> int:
    """The Main ID Register that /proc/cpuinfo spells out: Arm ARM, D19.2, "MIDR_EL1"."""
    facts = dict(line.split(":", 1) for line in text.split("\n\n", maxsplit=1)[0].splitlines())
    value = {name.strip(): int(text, 0) for name, text in facts.items() if text.strip().isalnum()}
    return (
        value["CPU implementer"] << 24
        | value["CPU variant"] << 20
        | 0xF << 16  # the architecture is told by feature registers
        | value["CPU part"] << 4
        | value["CPU revision"]
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [  # QEMU 7.2, target/arm/cpu64.c
        ("cortex-a53", 0x410FD034),
        ("cortex-a72", 0x410FD083),
        ("cortex-a76", 0x414FD0B1),
        ("neoverse-n1", 0x414FD0C1),
    ],
)
def test_cpuinfo_is_of_the_processor_that_qemu_emulates(name: str, expected: int) -> None:
    assert midr(CPUS[name].cpuinfo(1)) == expected


def test_only_armv8_2_cores_have_the_dot_product() -> None:
    assert {name for name, cpu in CPUS.items() if "asimddp" in cpu.features.split()} == {
        "cortex-a76",
        "neoverse-n1",
        "max",
    }


def test_an_unknown_processor_is_answered_with_near_ones() -> None:
    with pytest.raises(TrpexportError, match=r"unknown emulated CPU 'cortex-a71'.*cortex-a72"):
        CPUS["cortex-a71"]


@pytest.mark.parametrize("cores", [1, 3])
def test_the_guest_sees_every_core(tmp_path: Path, cores: int) -> None:
    write_guest_files(tmp_path, CPUS["cortex-a53"], cores)
    listed = (tmp_path / "proc/cpuinfo").read_text().splitlines()
    assert [line for line in listed if line.startswith("processor")] == [
        f"processor\t: {core}" for core in range(cores)
    ]
    system = tmp_path / "sys/devices/system/cpu"
    assert (system / "possible").read_text() == f"0-{cores - 1}\n"
    assert (system / "kernel_max").read_text() == f"{cores - 1}\n"
    assert len(list(system.glob("cpu[0-9]*"))) == cores
    for core in range(cores):
        shared = system / f"cpu{core}/cache/index2/shared_cpu_list"
        assert shared.read_text() == f"{core}\n"
