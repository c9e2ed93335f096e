"""Options that would be ignored are refused in one line, before any work."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from onnx import helper

from tests.conftest import Run

TRAIN = ("train", "--arch", "resnet20", "--data", "gone")
FINETUNE = ("finetune", "gone", "--data", "gone")


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ((*TRAIN, "--trp-energy", "0.9"), "--trp-energy does nothing without --trp: add --trp"),
        ((*TRAIN, "--target-macs", "0.5"), "--target-macs does nothing without --trp: add --trp"),
        (
            (*TRAIN, "--trp", "--target-macs", "0.5", "--trp-energy", "0.9"),
            "--trp-energy does nothing beside --target-macs: leave it out",
        ),
        ((*TRAIN, "--scheme", "channel"), "--scheme does nothing without --trp or --nuclear"),
        ((*TRAIN, "--nuclear-weight", "0", "--trp-period", "2"), "--trp-period does nothing"),
        ((*TRAIN, "--stride-1-only"), "--stride-1-only does nothing without --trp or"),
        (
            (*FINETUNE, "--temperature", "4", "--teacher-weight", "0.5"),
            "--temperature, --teacher-weight do nothing without --teacher: add --teacher NETWORK",
        ),
        (("verify", ".", "--images", "3"), "--images does nothing where a bundle's golden outputs"),
        (
            ("verify", ".", "net.onnx", "--input-shape", "x=1x3"),
            "--input-shape does nothing where a bundle's",
        ),
        (("flops", ".", "--arch", "resnet20"), "--arch does nothing for an ONNX file: leave it"),
        (("flops", "net.onnx", "--unsafe-pickle"), "--unsafe-pickle does nothing for an ONNX"),
    ],
)
def test_ignored_options_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.pth").write_bytes(b"PK\x03\x04")  # as files of torch.save begin
    Path("net.onnx").write_bytes(b"\x08\x08")
    before = sorted(tmp_path.iterdir())
    result = run(*typed)
    assert result.code == 2
    assert says in result.error
    assert sorted(tmp_path.iterdir()) == before


def test_an_error_of_the_library_gets_the_options_of_the_command(
    run: Run, write_onnx: Callable[..., Path]
) -> None:
    free = write_onnx([helper.make_node("Relu", ["x"], ["y"])], {"x": ("n", "c")}, {"y": None})
    for command in (("flops", free), ("bench", free, "--no-memory")):
        assert run(*command).error.endswith("as in x=1x224 (--input-shape)")
    fixed = write_onnx([helper.make_node("Relu", ["x"], ["y"])], {"x": (4, 3)}, {"y": None})
    refused = run("bench", fixed, "--batch", 2).error
    assert refused.endswith("leave the batch out, or export it again with a dynamic one (--batch)")


def test_defaults_are_never_refused(run: Run) -> None:
    for command in (TRAIN, FINETUNE, ("verify", "."), ("flops", "."), ("bench", "gone.onnx")):
        result = run(*command)
        assert result.code == 2
        assert "nothing" not in result.error


@pytest.mark.parametrize("name", ["bench", "decompose", "train"])
def test_the_tables_name_parameters(name: str) -> None:
    module = import_module(f"trpexport.cli.{name}")
    command: Callable[..., Any] = getattr(module, name)
    for row in module._IDLE:
        named = {*row.options, row.beside or row.without}
        assert named <= inspect.signature(command).parameters.keys()
        assert (row.beside is None) != (row.without is None)
