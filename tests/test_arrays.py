"""The one file of named arrays: what is in it, and what a broken one does."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trpexport.arrays import read_arrays, write_arrays
from trpexport.errors import DataError, ModelError, OutputError
from trpexport.tensors import Arrays

ARRAYS: Arrays = {
    "logits": np.array([[1.0], [np.nan]]),
    "file": np.arange(12, dtype=np.int8).reshape(3, 4)[:, ::2],
    "allow_pickle": np.asfortranarray(np.ones((2, 3), np.float32)),
    "text": np.asarray("é"),
    "none": np.zeros((0, 3), bool),
    "x": np.ones(1),
    "x.npy": np.zeros(1),
    "array:x": np.ones(2),
    "a/b": np.full(3, 1 + 2j),
}


def read(path: Path) -> Arrays:
    return read_arrays(path)


def assert_same(found: Arrays, expected: Arrays) -> None:
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("compressed", [False, True])
def test_any_array_under_any_name_survives(tmp_path: Path, compressed: bool) -> None:
    write_arrays(tmp_path / "a.npz", ARRAYS, compressed=compressed)
    assert_same(read(tmp_path / "a.npz"), ARRAYS)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("compressed", [False, True])
def test_the_file_is_numpys_own_byte_for_byte(tmp_path: Path, compressed: bool) -> None:
    """So files of earlier versions, which numpy wrote, are read, and anybody can read these."""
    arrays: dict[str, Any] = {
        name: array for name, array in ARRAYS.items() if name not in {"file", "allow_pickle"}
    }
    save = np.savez_compressed if compressed else np.savez
    save(tmp_path / "numpy.npz", **arrays)
    write_arrays(tmp_path / "ours.npz", arrays, compressed=compressed)
    assert (tmp_path / "ours.npz").read_bytes() == (tmp_path / "numpy.npz").read_bytes()
    assert_same(read(tmp_path / "numpy.npz"), arrays)


def test_a_bare_array_has_the_files_name(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.arange(3))
    assert_same(read(tmp_path / "images.npy"), {"images": np.arange(3)})


def test_python_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    objects = np.array([{}], dtype=object)
    with pytest.raises(ValueError, match="allow_pickle"):
        write_arrays(path, {"x": objects})
    assert list(tmp_path.iterdir()) == []
    np.savez(path, x=objects)
    np.save(tmp_path / "b.npy", objects)
    for damaged in (path, tmp_path / "b.npy"):
        with pytest.raises(ModelError, match="is damaged or holds no arrays: run again"):
            read(damaged)


def test_the_caller_says_what_is_raised_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for content, says in (
        (None, "can't read .*No such file"),
        (b"", "a.npz is damaged or holds no arrays: save it again"),
        (b"PK\x03\x04 cut short", "is damaged"),
        (b"\x93NUMPY cut short", "is damaged"),
    ):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DataError, match=says):
            read_arrays(path, remedy="save it again", error=DataError)
    with pytest.raises(DataError, match=r"can't read .*: Is a directory"):
        read_arrays(tmp_path, remedy="save it again", error=DataError)


def test_an_entry_that_goes_on_behind_its_array_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, {"x": np.ones(3)})
    with zipfile.ZipFile(path) as archive:
        entry = archive.read("x.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", entry + b"\0")
    with pytest.raises(ModelError, match="is damaged"):
        read(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
@pytest.mark.parametrize("compressed", [False, True])
def test_damage_is_found_or_harmless(tmp_path: Path, compressed: bool, data: st.DataObject) -> None:
    path = tmp_path / "damaged.npz"
    write_arrays(path, ARRAYS, compressed=compressed)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= data.draw(st.integers(1, 255))
    else:
        del content[place:]
    path.write_bytes(content)
    try:
        found = read(path)
    except ModelError:
        return
    for name, array in found.items():
        if name in ARRAYS:
            np.testing.assert_array_equal(array, ARRAYS[name])


def test_a_full_disk_leaves_nothing(small_disk: Path) -> None:
    with pytest.raises(OutputError, match="no space left"):
        write_arrays(small_disk / "a.npz", {"x": np.zeros(1_000_000)})
    assert list(small_disk.iterdir()) == []
