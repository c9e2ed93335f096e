"""Weights in other files belong to the network's own directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from trpexport.errors import ModelError
from trpexport.onnxfile.external_data import external_files, external_paths
from trpexport.runtime.session import open_session

WriteOnnx = Callable[..., Path]


@pytest.fixture
def network(write_onnx: WriteOnnx) -> Callable[[str], Path]:
    def write(location: str) -> Path:
        path = write_onnx(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            {"x": (1, 8)},
            {"y": (1, 8)},
            {"w": np.eye(8, dtype=np.float32)},
            save_as_external_data=True,
            location="w.data",
            size_threshold=0,
        )
        if location != "w.data":
            (path.parent / location).parent.mkdir(exist_ok=True)
            (path.parent / "w.data").rename(path.parent / location)
            model = onnx.load(path, load_external_data=False)
            for entry in model.graph.initializer[0].external_data:
                if entry.key == "location":
                    entry.value = location
            path.write_bytes(model.SerializeToString())
        return path

    return write


def moved_out(file: Path, tmp_path: Path) -> Path:
    """Move a file or folder away and leave a link to it."""
    elsewhere = tmp_path / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    return elsewhere


@pytest.mark.parametrize("linked", ["w.data", "folder/w.data", "folder"])
def test_a_link_that_leaves_is_refused_by_all_who_read(
    network: Callable[[str], Path], tmp_path: Path, linked: str
) -> None:
    path = network("w.data" if linked == "w.data" else "folder/w.data")
    moved_out(path.parent / linked, tmp_path)
    for read in (external_files, external_paths, open_session):
        with pytest.raises(ModelError, match="outside its own directory"):
            read(path)


def test_a_link_that_stays_is_followed(network: Callable[[str], Path]) -> None:
    path = network("w.data")
    (path.parent / "w.data").rename(path.parent / "real.data")
    (path.parent / "w.data").symlink_to("real.data")
    assert [str(file) for file in external_files(path)] == ["w.data"]


def test_a_network_behind_a_link_has_its_weights_where_it_lies(
    network: Callable[[str], Path], tmp_path: Path
) -> None:
    path = network("w.data")
    link = tmp_path / "link.onnx"
    link.symlink_to(path)
    assert external_paths(link) == (path.resolve().parent / "w.data",)
    inputs = {"x": np.arange(8, dtype=np.float32)[None]}
    assert np.array_equal(open_session(link).run(inputs)["y"], inputs["x"])
