"""Fashion-MNIST, and the IDX files that it is in."""

from __future__ import annotations

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from trpexport.datasets import open_dataset
from trpexport.datasets.fashion_mnist import read_idx
from trpexport.errors import DataError


def idx(array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


IMAGES = np.arange(2 * 6, dtype=np.uint8).reshape(2, 2, 3)
LABELS = np.array([3, 9], np.uint8)


def write(folder: Path, images: bytes = idx(IMAGES), labels: bytes = idx(LABELS)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train", "t10k"):
        (folder / f"{name}-images-idx3-ubyte").write_bytes(images)
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(labels)
    return folder


def test_real_images(fashion_mnist: Path) -> None:
    for text in ("fashion-mnist", f"fashion-mnist:{fashion_mnist}"):
        dataset = open_dataset(text)
        assert dataset.name == text
        assert dataset.classes[9] == "Ankle boot"
        split = dataset.split("test")
        # The first are an ankle boot, a pullover, two pairs of trousers and a shirt.
        assert split.labels[:5].tolist() == [9, 2, 1, 1, 6]
        assert np.bincount(split.labels).tolist() == [1000] * 10
        images = split.arrays()
        assert images is not None
        assert images.shape == (10_000, 1, 28, 28)
        normalised = dataset.preprocessing.normalise(images)
        assert abs(normalised.mean()) < 0.01
        assert abs(normalised.std() - 1) < 0.01


@pytest.mark.parametrize("below", ["", "FashionMNIST/raw"])
def test_plain_and_gzipped(tmp_path: Path, below: str) -> None:
    folder = write(tmp_path / below)
    plain = folder / "t10k-labels-idx1-ubyte"
    (folder / f"{plain.name}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    split = open_dataset(f"fashion-mnist:{tmp_path}").split("test")
    np.testing.assert_array_equal(split.arrays(), IMAGES[:, np.newaxis])
    assert split.labels.tolist() == [3, 9]


@given(
    arrays(np.uint8, array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4)), st.booleans()
)
def test_idx_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    array: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
    is_gzipped: bool,
) -> None:
    path = tmp_path_factory.mktemp("idx") / "a"
    path.write_bytes(gzip.compress(idx(array)) if is_gzipped else idx(array))
    np.testing.assert_array_equal(read_idx(path, array.ndim), array)


@given(st.data())
def test_a_cut_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = idx(IMAGES)
    if data.draw(st.booleans()):
        whole = gzip.compress(whole)
    path = tmp_path_factory.mktemp("idx") / "a"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError, match=r"a is damaged \(.*\): download or copy it again"):
        read_idx(path, 3)


@pytest.mark.parametrize(
    ("images", "labels", "why"),
    [
        (idx(IMAGES), idx(LABELS[:1]), "it holds 2 images and 1 labels"),
        (idx(IMAGES), idx(np.array([3, 10], np.uint8)), "image 1 has the label 10, and there are"),
        (idx(IMAGES[:0]), idx(LABELS[:0]), "it holds no images"),
        (idx(LABELS), idx(LABELS), "it is no IDX file of 3 dimensions"),
        (idx(IMAGES), idx(IMAGES), "it is no IDX file of 1 dimensions"),
        (b"\0\0\x0d\3" + idx(IMAGES)[4:], idx(LABELS), "it is no IDX file"),
        (idx(IMAGES) + b"x", idx(LABELS), "it says 2x2x3 bytes, and 13 follow"),
        (b"", idx(LABELS), "it is no IDX file"),
        (b"\0\0\x08\3" + b"\xff" * 12, idx(LABELS), "and 0 follow"),
    ],
)
def test_damaged_files(tmp_path: Path, images: bytes, labels: bytes, why: str) -> None:
    dataset = open_dataset(f"fashion-mnist:{write(tmp_path, images, labels)}")
    with pytest.raises(DataError) as caught:
        dataset.split("train")
    assert why in str(caught.value)
    assert "idx" in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    (write(tmp_path) / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"has no t10k-labels-idx1-ubyte and no .*\.gz: name the"):
        open_dataset(f"fashion-mnist:{tmp_path}")


def test_the_debian_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trpexport.datasets.fashion_mnist.DEBIAN", tmp_path / "none")
    with pytest.raises(DataError, match="install the Debian package dataset-fashion-mnist"):
        open_dataset("fashion-mnist")


def test_sizes_multiply_without_overflow(tmp_path: Path) -> None:
    sizes = (2**31, 2**31, 4)
    assert math.prod(sizes) % 2**64 == 0
    (tmp_path / "a").write_bytes(
        bytes((0, 0, 8, 3)) + b"".join(size.to_bytes(4, "big") for size in sizes)
    )
    with pytest.raises(DataError, match="and 0 follow"):
        read_idx(tmp_path / "a", 3)


def test_a_file_that_unpacks_to_far_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 1, 0, 16, 0, 0)) + bytes(1 << 20)))
    assert len(read_idx(path, 1)) == 1 << 20
    monkeypatch.setattr("trpexport.datasets.fashion_mnist.memory_allowance", lambda size: 10 * size)
    with pytest.raises(DataError, match="far more than it is"):
        read_idx(path, 1)
