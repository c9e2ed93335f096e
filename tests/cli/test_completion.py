"""What a shell offers: commands, options, and the names that values may have."""

from __future__ import annotations

import importlib
import os

import pytest

from cli import completion
from cli.app import command_line
from trpexport.runtime.providers import PROVIDERS

cli = importlib.import_module("trpexport.cli")


@pytest.mark.parametrize(
    ("offer", "typed", "among"),
    [
        (completion.schemes, "", {"channel", "spatial", "tucker2", "auto"}),
        (completion.schemes, "t", {"tucker2"}),
        (completion.criteria, "e", {"energy"}),
        (completion.architectures, "resnet1", {"resnet18"}),
        (completion.providers, "", set(PROVIDERS)),
        (completion.recipes, "one", {"one-cycle"}),
        (completion.data, "cifar", {"cifar10", "cifar100"}),
        (completion.precisions, "fp16,int8", {"fp16,int8", "fp16,int8-dynamic"}),
        (completion.metrics, "m", {"miou", "mae"}),
        (completion.arm_cpus, "cortex-a7", {"cortex-a72", "cortex-a76"}),
    ],
)
def test_names_of_registries_are_offered(offer: object, typed: str, among: set[str]) -> None:
    assert callable(offer)
    offered = offer(typed)
    assert among <= set(offered)
    assert all(name.startswith(typed) for name in offered)
    assert offered == sorted(offered)


@pytest.mark.parametrize(
    ("line", "among"),
    [
        ("trpexport dec", {"decompose"}),
        ("trpexport bench x --provi", {"--provider", "--provider-option"}),
        ("trpexport bench x --provider cu", {"cuda"}),
        ("trpexport eval x --data dig", {"digits"}),
    ],
)
def test_a_shell_gets_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, among: set[str]
) -> None:
    words = line.split(" ")
    monkeypatch.setitem(os.environ, "_TRPEXPORT_COMPLETE", "complete_bash")
    monkeypatch.setitem(os.environ, "COMP_WORDS", line)
    monkeypatch.setitem(os.environ, "COMP_CWORD", str(len(words) - 1))
    with pytest.raises(SystemExit):
        cli.run([])
    assert among <= set(capsys.readouterr().out.split())


# Options whose values are names of a registry, wherever they are typed.
NAMED = ("scheme", "arch", "provider", "recipe", "data", "calib", "expect", "precision", "metric")


def test_whatever_has_names_offers_them() -> None:
    found = {
        (command.name, option.name): option
        for command in command_line().commands.values()
        for option in command.params
        if option.name in NAMED
    }
    assert {name for _, name in found} == set(NAMED)
    silent = [place for place, one in found.items() if one._custom_shell_complete is None]
    assert silent == []
