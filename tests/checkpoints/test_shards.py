"""Checkpoints in several files beside their index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from trpexport.checkpoints.reading import read_state_dict
from trpexport.errors import CheckpointError

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.weight": torch.ones(4)}


def sharded(folder: Path, kind: str = "safetensors", **index: Any) -> Path:
    places = {}
    for number, (name, tensor) in enumerate(WEIGHTS.items()):
        file = f"model-{number}.{kind}"
        places[name] = file
        if kind == "bin":
            torch.save({name: tensor}, folder / file)
        else:
            save_file({name: tensor}, folder / file)
    path = folder / f"model.{kind}.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": places, **index}))
    return path


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_all_files_are_one_checkpoint(tmp_path: Path, kind: str) -> None:
    path = sharded(tmp_path, kind)
    found = read_state_dict(path)
    assert found.tensors.keys() == WEIGHTS.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in WEIGHTS.items())
    before = found.sha256
    if kind == "safetensors":
        save_file({"b.weight": torch.zeros(4)}, tmp_path / "model-1.safetensors")
        assert read_state_dict(path).sha256 != before


@pytest.mark.parametrize(
    ("weight_map", "says"),
    [
        ({"a.weight": "../model-0.safetensors"}, "names the file '../model-0.safetensors', which"),
        ({"a.weight": "/etc/passwd"}, "which is not beside it"),
        ({"a.weight": "model.safetensors.index.json"}, "which is not beside it"),
        ({"a.weight": "gone.safetensors"}, "there is no file"),
        ({"c.weight": "model-0.safetensors"}, "c.weight is in none of its files"),
        ({}, "has no 'weight_map'"),
        ({"a.weight": 3}, "has no 'weight_map'"),
        ([1], "has no 'weight_map'"),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, weight_map: Any, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        read_state_dict(sharded(tmp_path, weight_map=weight_map))


def test_an_index_that_is_no_json(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors.index.json"
    path.write_bytes(b"{")
    with pytest.raises(CheckpointError, match="can't be read as JSON"):
        read_state_dict(path)
