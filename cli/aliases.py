"""Names of yesterday: options and ways of commands that are called otherwise today."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from trpexport.errors import TrpexportError

# Old options by command, and what they are called now. The old ones stay for one version.
OPTIONS: Mapping[str, Mapping[str, str]] = {
    "train": {"--batch-size": "--batch", "--val-resize": "--resize"},
    "finetune": {"--batch-size": "--batch", "--val-resize": "--resize"},
    "decompose": {
        "--calib-images": "--images",
        "--calib-seed": "--seed",
        "--calib-cache": "--cache",
        "--baseline": "--add-baseline",
    },
    "export": {"--calib-images": "--images", "--calib-seed": "--seed"},
    "tune": {"--calib-images": "--images", "--calib-seed": "--seed"},
    "quantize": {
        "--calib-images": "--images",
        "--calib-seed": "--seed",
        "--limit": "--data-images",
    },
    "verify": {"--count": "--images", "--seconds": "--verify-seconds", "--shape": "--input-shape"},
    "flops": {"--shape": "--input-shape"},
    "bench": {"--data": "--inputs", "--shape": "--input-shape"},
    "profile": {"--shape": "--input-shape"},
    "emulate": {"--data": "--inputs", "--shape": "--input-shape"},
    "eval": {"--limit": "--images"},
    "gate": {"--limit": "--images", "--shape": "--input-shape"},
    "arm-setup": {"--directory": "--out"},
}


# Old ways of `bench`: the flag, and the command that it became.
WAYS: Mapping[str, str] = {"--profile": "profile", "--emulate": "emulate", "--compare": "compare"}
_CPU = "--cpu"  # which --emulate gave


def modern(typed: Sequence[str], note: Callable[[str], None]) -> list[str]:
    """Return what was typed in the names of today.

    Args:
        typed: a command and its arguments.
        note: told of each old name, once.

    Raises:
        TrpexportError: several ways of one command were typed.
    """
    command, *words = _by_command(list(typed), note) or [""]
    old = OPTIONS.get(command, {})
    end = words.index("--") if "--" in words else len(words)
    said: set[str] = set()
    for index in range(end):
        name, equals, value = words[index].partition("=")
        if name in old:
            words[index] = old[name] + equals + value
            if name not in said:
                note(f"{name} is called {old[name]} now; the old name goes in the next version")
            said.add(name)
    return [command, *words] if typed else []


def _by_command(typed: list[str], note: Callable[[str], None]) -> list[str]:
    """Return a way of ``bench`` as the command that it has become."""
    if typed[:1] != ["bench"]:
        return typed
    ways = {name for word in typed if (name := word.partition("=")[0]) in WAYS}
    if len(ways) > 1:
        raise TrpexportError(f"{' and '.join(sorted(ways))} exclude each other: give one of them")
    for way in ways:
        command = WAYS[way]
        note(
            f"bench {way} is a command of its own now: trpexport {command}; the old way goes in "
            "the next version"
        )
        renamed = [word.replace(way, _CPU) if word.startswith(way) else word for word in typed]
        return [command, *(word for word in renamed[1:] if command == "emulate" or word != _CPU)]
    return typed
