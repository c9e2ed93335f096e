from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpexport.errors import ModelError
from trpexport.golden import read_golden, write_golden

Arrays = dict[str, np.ndarray[Any, np.dtype[Any]]]
INPUTS: Arrays = {"pixel/values": np.arange(12, dtype=np.float32).reshape(2, 6), "file": np.ones(2)}
OUTPUTS: Arrays = {"logits": np.array([[1.0], [np.nan]]), "allow_pickle": np.array([1, 2])}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "golden.npz"
    write_golden(path, INPUTS, OUTPUTS)
    return path


def test_reads_what_was_written(path: Path) -> None:
    golden = read_golden(path)
    assert list(golden.inputs) == list(INPUTS)
    assert list(golden.outputs) == list(OUTPUTS)
    for name, array in {**INPUTS, **OUTPUTS}.items():
        found = {**golden.inputs, **golden.outputs}[name]
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)


def test_the_file_is_plain_numpy(path: Path) -> None:
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == [
            "input:file",
            "input:pixel/values",
            "output:allow_pickle",
            "output:logits",
        ]


def test_missing_and_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"can't read .*: No such file"):
        read_golden(tmp_path / "golden.npz")
    with pytest.raises(ModelError, match=r"can't read .*: Is a directory"):
        read_golden(tmp_path)


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"input:x": np.ones(1)},
        {"output:y": np.ones(1)},
        {"input:x": np.ones(2), "input:y": np.ones(1), "output:y": np.ones(1)},
        {"input:x": np.ones(0), "output:y": np.ones(0)},
        {"input:x": np.float32(1), "output:y": np.float32(1)},
    ],
)
def test_arrays_that_are_not_golden(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "golden.npz", **arrays)
    with pytest.raises(ModelError, match="holds no golden arrays"):
        read_golden(tmp_path / "golden.npz")


def test_one_bare_array_is_not_golden(tmp_path: Path) -> None:
    with (tmp_path / "golden.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ModelError, match="holds no golden arrays"):
        read_golden(tmp_path / "golden.npz")


def test_damage_is_one_line(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ModelError, match=r"golden\.npz is damaged .*: export the bundle again"):
        read_golden(path)


@pytest.mark.parametrize("outputs", [np.float32(1), np.ones((5, 3, 2)), np.ones((1, 50, 4))])
def test_outputs_need_not_count_images(tmp_path: Path, outputs: Any) -> None:
    write_golden(tmp_path / "golden.npz", {"x": np.ones((3, 2))}, {"y": outputs})
    assert read_golden(tmp_path / "golden.npz").outputs["y"].shape == outputs.shape
