"""What works on this machine, and the command for what does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from trpexport.report.blocks import Block, Column, Kind, Role, Table, Text, Tone, Value


def doctor_view(facts: Mapping[str, Any], purposes: Mapping[str, str]) -> tuple[Block, ...]:
    """Show what is installed, and which providers work.

    Args:
        facts: what :func:`~trpexport.measure.doctor.diagnose` returned.
        purposes: what each extra is for.
    """
    return (
        *_machine(facts["machine"]),
        Table(
            (
                Column("extra", "extra", Kind.NAME),
                Column("purpose", "for", Kind.PROSE),
                Column("state", "state", Kind.PROSE),
            ),
            tuple(
                {"extra": name, "purpose": purposes[name], "state": _extra(extra)}
                for name, extra in facts["extras"].items()
            ),
        ),
        Table(
            (Column("provider", "provider", Kind.NAME), Column("state", "state", Kind.PROSE)),
            tuple(
                {
                    "provider": name,
                    "state": _good("works") if one["works"] else one["reason"],
                }
                for name, one in facts["providers"].items()
            ),
        ),
        *_commands(facts["extras"]),
    )


def _commands(extras: Mapping[str, Any]) -> Iterator[Block]:
    commands = [extra["install"] for extra in extras.values() if extra["install"]]
    if commands:
        yield Text("Where it is needed, install what is missing:")
    for command in commands:
        yield Text(f"  {command}", Role.COMMAND)


def _machine(machine: Mapping[str, Any] | None) -> Iterator[Block]:
    if machine is None:
        return
    cores, versions = machine["cores"], machine["versions"]
    yield Text(
        f"{machine['cpu'] or machine['architecture']}, {cores['usable']} usable "
        f"core{'' if cores['usable'] == 1 else 's'}, "
        f"{', '.join(machine['instruction_sets'])}"
    )
    yield Text(f"Python {versions['python']}, ONNX Runtime {versions['onnxruntime']}")


def _extra(extra: Mapping[str, Any]) -> Any:
    if not extra["missing"]:
        return _good("installed")
    packages: dict[str, list[str]] = {}
    for name, reason in extra["missing"].items():
        packages.setdefault(reason, []).append(name)
    return "; ".join(f"{reason}: {', '.join(names)}" for reason, names in packages.items())


def _good(text: str) -> Value:
    return Value(text, Kind.NAME, tone=Tone.GOOD)
