"""CIFAR in its binary and its Python version."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trpexport.datasets import open_dataset
from trpexport.datasets.numpy_pickle import read_pickle
from trpexport.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def write(folder: Path, data: bytes, names: tuple[str, ...] = ("test_batch",)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(data)
    return folder


def pickled(protocol: int = 2, **changes: Any) -> bytes:
    batch = {b"batch_label": b"testing", b"labels": [3, 8, 8], b"data": PIXELS}
    batch |= {key.encode(): value for key, value in changes.items()}
    return pickle.dumps(batch, protocol)


def error(text: str) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(text).split("test")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_real_images(shared: Path) -> None:
    dataset = open_dataset(f"cifar10:{shared / 'data/cifar10-lossless'}")
    assert dataset.classes[3] == "cat"
    train, test = dataset.split("train"), dataset.split("test")
    assert (len(train), len(test)) == (5 * 1017, 517)
    # The first test images of CIFAR-10 are a cat, two ships, an airplane and two frogs.
    assert test.labels[:6].tolist() == [3, 8, 8, 0, 6, 6]
    record = (shared / "data/cifar10-lossless/test_batch.bin").read_bytes()[1:3073]
    # Channel by channel, each row by row.
    assert test.image(0)[2, 5].tolist() == [record[c * 1024 + 2 * 32 + 5] for c in range(3)]


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-bin"])
def test_only_a_test_batch(tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder, b"\x03" + PIXELS[0].tobytes(), ("test_batch.bin",))
    dataset = open_dataset(f"cifar10:{tmp_path}")
    assert list(dataset.readers) == ["test"]
    np.testing.assert_array_equal(dataset.split("test").arrays(), PIXELS[:1].reshape(1, 3, 32, 32))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("folder", ["", "cifar-10-batches-py"])
def test_the_python_version(tmp_path: Path, folder: str, protocol: int) -> None:
    write(tmp_path / folder, pickled(protocol), (*TRAIN, "test_batch"))
    dataset = open_dataset(f"cifar10:{tmp_path}")
    assert len(dataset.split("train")) == 15
    split = dataset.split("test")
    assert split.labels.tolist() == [3, 8, 8]
    np.testing.assert_array_equal(split.arrays(), PIXELS.reshape(3, 3, 32, 32))


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    # As cPickle of Python 2 wrote the official files: its strings are bytes, NumPy is an old one.
    pixels = bytes(range(256)) * 12
    data = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\n"
        b"q\x04K\x00\x85U\x01b\x87Rq\x05(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K"
        b"\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00"
        b"\x00" + pixels + b"tbU\x06labelsq\x08]q\x09K\x05aU\x09filenamesq\x0a]q\x0bU\x05a.pngau."
    )
    split = open_dataset(f"cifar10:{write(tmp_path, data)}").split("test")
    assert split.labels.tolist() == [5]
    np.testing.assert_array_equal(
        split.arrays(), np.frombuffer(pixels, np.uint8).reshape(1, 3, 32, 32)
    )


@pytest.mark.parametrize(
    "labels", [np.array([3, 8, 8]), np.array([3, 8, 8], ">i2"), list(np.array([3, 8, 8]))]
)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_other_ways_to_pickle_it(tmp_path: Path, labels: Any, order: Any, protocol: int) -> None:
    data = pickled(protocol, labels=labels, data=np.asarray(PIXELS, order=order))
    split = open_dataset(f"cifar10:{write(tmp_path, data)}").split("test")
    assert split.labels.tolist() == [3, 8, 8]
    np.testing.assert_array_equal(split.arrays(), PIXELS.reshape(3, 3, 32, 32))


def test_cifar100_has_the_fine_labels(tmp_path: Path) -> None:
    records = bytes((4, 30)) + PIXELS[0].tobytes() + bytes((1, 99)) + PIXELS[1].tobytes()
    write(tmp_path / "b" / "cifar-100-binary", records, ("train.bin", "test.bin"))
    batch = pickled(coarse_labels=[4, 1], fine_labels=[30, 99], data=PIXELS[:2])
    write(tmp_path / "p" / "cifar-100-python", batch, ("train", "test", "meta"))
    for name in "bp":
        dataset = open_dataset(f"cifar100:{tmp_path / name}")
        assert len(dataset.classes) == 100
        split = dataset.split("test")
        assert [dataset.classes[label] for label in split.labels] == ["dolphin", "worm"]
        np.testing.assert_array_equal(split.arrays(), PIXELS[:2].reshape(2, 3, 32, 32))


class Malicious:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("function", "name"), [(os.mkdir, "mkdir"), (eval, "eval"), (np.memmap, "numpy.memmap")]
)
def test_code_is_refused(tmp_path: Path, protocol: int, function: Any, name: str) -> None:
    hole = tmp_path / "hole"
    data = pickled(protocol, extra=[Malicious(function, str(hole))])
    message = error(f"cifar10:{write(tmp_path / 'data', data)}")
    assert "holds pickled code (it asks for" in message
    assert name in message
    assert not hole.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": PIXELS}),
        pickled(data=[1, 2, 3]),
        pickled(data=PIXELS.astype(np.float32)),
        pickled(data=PIXELS[:, :3000]),
        pickled(data=PIXELS[0]),
        pickled(data=PIXELS[:0], labels=[]),
        pickled(labels=[1, 2]),
        pickled(labels=[1, 2, 10]),
        pickled(labels=[1, 2, -1]),
        pickled(labels=[1, 2, 2**70]),
        pickled(labels=[1, 2, 0.5]),
        pickled(labels=[1, 2, [3]]),
        pickled(labels=[[1], [2], [3]]),
        pickled(labels="abc"),
        pickled(labels=None),
        # Arrays whose bytes are too few, of objects, and without their state.
        b"(dVdata\ncnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I9\ntcnumpy\ndtype\n(Vu1\ntRI00\nVa\ntbs.",
        b"(dVdata\ncnumpy.core.multiarray\n_reconstruct\n(tR(I1\n(I1\ntcnumpy\ndtype\n(VO\ntRI00\nVa\ntbs.",
        b"(dVdata\ncnumpy.core.multiarray\n_reconstruct\n(tRs.",
        b"(dVdata\ncnumpy\nndarray\ns.",
        b"\x80\x02}U\x04datacnumpy\ndtype\n)R(K\x01NtbX\xff\xff\xff\x7fabc.",
        b"\x80\x02K\x01r\xff\xff\xff\xff.",  # a memo of 4 billion entries
    ],
)
def test_damaged_pickles(tmp_path: Path, data: bytes) -> None:
    message = error(f"cifar10:{write(tmp_path, data)}")
    assert message.startswith(f"{tmp_path}/test_batch is damaged (")
    assert message.endswith("): download or copy it again")


@given(st.data())
def test_altered_pickles(data: st.DataObject) -> None:
    whole = bytearray(pickle.dumps({"data": PIXELS[:1, :4], "labels": [1]}, 2))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    del whole[data.draw(st.integers(0, len(whole))) :]
    try:
        read_pickle(bytes(whole), "x")
    except DataError as caught:
        assert "\n" not in str(caught)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "it holds no images"),
        (bytes(3072), "its 3072 bytes are no multiple of a record's 3073"),
        (bytes(3073) + b"\x0a" + bytes(3072), "image 1 has the label 10, and there are 10 classes"),
    ],
)
def test_damaged_records(tmp_path: Path, data: bytes, why: str) -> None:
    message = error(f"cifar10:{write(tmp_path, data, ('test_batch.bin',))}")
    assert message == f"{tmp_path}/test_batch.bin is damaged ({why}): download or copy it again"


def test_a_missing_batch(tmp_path: Path) -> None:
    write(tmp_path, bytes(3073), tuple(f"{name}.bin" for name in TRAIN[:4]))
    assert "data_batch_5.bin is missing" in error(f"cifar10:{tmp_path}")


def test_an_archive_must_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").touch()
    assert "is a file: unpack it" in error(f"cifar10:{tmp_path / 'a.tar.gz'}")


def test_the_other_cifar(tmp_path: Path) -> None:
    write(tmp_path, bytes(3073), ("test_batch.bin",))
    assert "the archive of cifar100" in error(f"cifar100:{tmp_path}")
