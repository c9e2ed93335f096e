"""All commands, walked through: one meaning for a name, and help for whatever can be typed."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from typing import Any

import pytest

from cli.app import command_line
from cli.pages import examples, summary
from cli.panels import panel_of, panel_of_command
from tests.conftest import Run

COMMANDS: dict[str, Any] = command_line().commands

# Defaults that follow from what a command is for.
OWN_DEFAULTS = {
    "scheme": "tune chooses for each layer",
    "recipe": "finetune has one of its own",
    "out": "a run of training has a directory of its own",
    "verify_seconds": "verify stops at the number of inputs, sweep has many networks to verify",
    "device_label": "tune times here without it",
}


def options(command: Any) -> list[Any]:
    return [param for param in command.params if param.param_type_name == "option"]


BY_NAME: dict[str, list[tuple[str, Any]]] = defaultdict(list)
for _command in COMMANDS.values():
    for _option in options(_command):
        for _name in (*_option.opts, *_option.secondary_opts):
            BY_NAME[_name].append((_command.name, _option))


@pytest.mark.parametrize("name", BY_NAME)
def test_a_name_means_one_thing(name: str) -> None:
    found = [option for _, option in BY_NAME[name]]
    assert len({option.help for option in found}) == 1
    assert len({option.name for option in found}) == 1
    assert len({option.metavar for option in found}) == 1
    assert len({tuple(option.opts) for option in found}) == 1
    assert len({repr(option.default) for option in found}) == 1 or found[0].name in OWN_DEFAULTS


def test_a_thing_has_one_name() -> None:
    names = defaultdict(set)
    for name, found in BY_NAME.items():
        names[found[0][1].help].add(found[0][1].name)
        assert name.startswith("-")
    assert {text: found for text, found in names.items() if len(found) > 1} == {}


@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_can_be_typed_is_explained(name: str) -> None:
    command = COMMANDS[name]
    assert panel_of_command(name), "add it to COMMANDS in cli/panels.py"
    assert summary(command.help).endswith((".", "misuse."))
    for option in options(command):
        assert option.help and option.help[0] != " ", option.opts
        assert panel_of(option.name), f"add {option.name} to OPTIONS in cli/panels.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_examples_can_be_typed(name: str) -> None:
    typed = examples(COMMANDS[name].help)
    assert typed
    known = {name for option in options(COMMANDS[name]) for name in option.opts}
    for line in typed:
        program, command, *words = shlex.split(line)
        assert (program, command) == ("trpexport", name)
        assert {word for word in words if word.startswith("-")} <= known


@pytest.mark.parametrize("name", COMMANDS)
def test_whatever_fails_says_so_to_machines(run: Run, name: str) -> None:
    result = run(name, "--json", "--no-such-option")
    assert result.code == 2
    assert json.loads(result.out) == {"error": result.error[len("error: ") :], "exit_code": 2}
