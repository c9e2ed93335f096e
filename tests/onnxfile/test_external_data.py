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


def say(path: Path, **entries: str | None) -> None:
    """Change what a file says of where its weight lies; None takes it away."""
    model = onnx.load(path, load_external_data=False)
    tensor = model.graph.initializer[0]
    told = {entry.key: entry.value for entry in tensor.external_data} | entries
    del tensor.external_data[:]
    for key, value in told.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize("length", ["256", None])
def test_a_weight_that_is_cut_short_is_told_before_it_is_read(
    network: Callable[[str], Path], length: str | None
) -> None:
    path = network("w.data")
    say(path, length=length)
    assert external_files(path)
    data = path.parent / "w.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"w in bytes 0 to 256 of w\.data, which has 255"):
        external_files(path)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"offset": "4"}, "bytes 4 to 260 of w.data, which has 256"),
        ({"offset": str(1 << 60)}, "which has 256"),
        ({"length": str(1 << 60)}, "which has 256"),
        ({"length": "255"}, "nothing that makes sense"),
        ({"offset": "-4"}, "nothing that makes sense"),
        ({"offset": "x"}, "nothing that makes sense"),
        ({"length": "-256"}, "nothing that makes sense"),
    ],
)
def test_a_place_that_is_none_is_told(
    network: Callable[[str], Path], entries: dict[str, str | None], message: str
) -> None:
    path = network("w.data")
    say(path, **entries)
    with pytest.raises(ModelError, match=message) as caught:
        external_files(path)
    assert "\n" not in str(caught.value)
