"""Files of ``torch.export.save``: loaded only where that is allowed, and refused in one line."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
import torch

import trpexport
from tests.networks.torch.several import Masked
from trpexport.checkpoints import load_checkpoint
from trpexport.errors import CheckpointError, UnsafeCheckpointError
from trpexport.inputs import Inputs

SHAPES = {"image": (2, 2, 8, 8), "mask": (2, 2, 8, 8)}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("programs") / "masked.pt2"
    x = {name: torch.randn(shape) for name, shape in SHAPES.items()}
    torch.export.save(torch.export.export(Masked().eval(), (), x), path)
    return path


def test_loading_one_has_to_be_allowed(program: Path) -> None:
    with pytest.raises(UnsafeCheckpointError, match=r"is a program of torch\.export") as caught:
        load_checkpoint(program)
    assert "\n" not in str(caught.value)


def test_it_is_decomposed_as_it_stands(program: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(program, unsafe_pickle=True)
    assert checkpoint.label == "masked"
    assert checkpoint.inputs == Inputs.of(SHAPES)
    rank = trpexport.ByCriterion("spatial", "rank:3")
    small = trpexport.decompose(program, rank, unsafe_pickle=True)
    assert [layer.name for layer in small.plan.rewritten] == ["gate", "body"]
    trpexport.export(small, tmp_path / "out", verify_seconds=0)
    assert trpexport.verify(tmp_path / "out").is_equivalent


def test_a_damaged_one_is_one_line(program: Path, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pt2"
    with zipfile.ZipFile(program) as whole, zipfile.ZipFile(path, "w") as part:
        for name in whole.namelist():
            if not name.endswith("model.json"):
                part.writestr(name, whole.read(name))
    with pytest.raises(CheckpointError, match=r"can't be loaded by torch\.export") as caught:
        load_checkpoint(path, unsafe_pickle=True)
    assert "\n" not in str(caught.value)
