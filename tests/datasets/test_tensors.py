"""Raw tensors by input name: files, folders, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpexport.datasets import TensorSet, open_data, open_dataset
from trpexport.errors import DataError
from trpexport.tensors import Array, Arrays

X = np.arange(24, dtype=np.float32).reshape(4, 2, 3)


def saved(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return f"tensors:{path}"


def only(values: Array | Arrays) -> Array:
    assert isinstance(values, np.ndarray)
    return values


def opened(text: str) -> TensorSet:
    found = open_data(text)
    assert isinstance(found, TensorSet)
    return found


def test_inputs_and_targets_of_a_file(tmp_path: Path) -> None:
    mask = np.arange(4)
    text = saved(tmp_path / "a.npz", image=X, length=mask, **{"target.mask": mask, "target.box": X})
    found = opened(text)
    assert len(found) == 4
    assert [*found.inputs_of(("length", "image"))] == ["length", "image"]
    assert np.array_equal(only(found.target([1, 3], "mask")), [1, 3])
    assert {*found.target([0])} == {"mask", "box"}
    with pytest.raises(DataError, match=r"targets for mask, box, none for class: save them as"):
        found.target([0], "class")
    with pytest.raises(DataError, match="holds image, length, the network takes image: save one"):
        found.inputs_of(["image"])


def test_the_only_input_may_have_any_name(tmp_path: Path) -> None:
    found = opened(saved(tmp_path / "a.npz", anything=X, target=np.arange(4)))
    assert np.array_equal(found.inputs_of(["input"])["input"], X)
    assert np.array_equal(only(found.given(["input"])), X)
    assert np.array_equal(only(found.target([2], "logits")), [2])
    np.save(tmp_path / "b.npy", X)
    assert np.array_equal(only(opened(f"tensors:{tmp_path / 'b.npy'}").given(["x"])), X)


def test_a_folder_is_mapped_into_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "target.out.npy", X[:, 0])
    found = opened(f"tensors:{tmp_path}")
    assert isinstance(found.inputs["x"], np.memmap)
    assert np.array_equal(only(found.target([0, 1])), X[:2, 0])


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"target": X}, "holds no inputs of a network: save arrays of numbers"),
        ({"x": X, "target": X[:3]}, "4 of x, 3 of target: the first dimension counts samples"),
        ({"x": X[:0]}, "holds no samples"),
        ({"x": np.float32(3)}, "x is float32 of shape \\(\\), not numbers of several samples"),
        ({"x": np.array(["a"])}, "not numbers of several samples"),
        ({"x": X, "y": np.array([X, None], object)}, "holds no arrays: save arrays of numbers"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, arrays: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        opened(saved(tmp_path / "a.npz", **arrays))
    assert "\n" not in str(caught.value)


def test_damage_and_absence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.npy files"):
        opened(f"tensors:{tmp_path / 'empty'}")
    np.save(tmp_path / "empty" / "x.npy", X)
    whole = (tmp_path / "empty" / "x.npy").read_bytes()
    (tmp_path / "empty" / "x.npy").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"x\.npy is damaged"):
        opened(f"tensors:{tmp_path / 'empty'}")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(DataError, match="damaged"):
        opened(f"tensors:{tmp_path / 'a.npz'}")
    with pytest.raises(DataError, match="write tensors:FILE"):
        open_data("tensors")


def test_no_targets_and_no_images(tmp_path: Path) -> None:
    text = saved(tmp_path / "a.npz", x=X)
    with pytest.raises(DataError, match="has no targets to judge by"):
        opened(text).target([0])
    with pytest.raises(DataError, match="holds raw tensors, images are needed here"):
        open_dataset(text)
