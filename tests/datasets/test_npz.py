"""Arrays in a NumPy file."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trpexport.datasets import TensorSet, open_data, open_dataset
from trpexport.datasets.calibration import DatasetImages
from trpexport.datasets.preprocessing import IMAGENET, Preprocessing, unchanged
from trpexport.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)  # (n, h, w, c)
LABELS = np.array([0, 2, 1, 2])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.npz"


def error(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(f"npz:{path}").split("test")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("images", "channels"),
    [
        (PIXELS, 3),
        (PIXELS.transpose(0, 3, 1, 2), 3),
        (PIXELS[..., 0], 1),
        (PIXELS[..., :1], 1),
        (PIXELS[:, np.newaxis, :, :, 0], 1),
    ],
)
def test_layouts(path: Path, images: Any, channels: int) -> None:
    np.savez_compressed(path, images=images, labels=LABELS[:, np.newaxis])
    dataset = open_dataset(f"npz:{path}")
    assert dataset.channels == channels
    assert dataset.classes == ("0", "1", "2")
    assert list(dataset.readers) == ["test"]
    split = dataset.split("test")
    np.testing.assert_array_equal(split.image(2), PIXELS[2, ..., :channels])
    assert split.labels.tolist() == [0, 2, 1, 2]


@pytest.mark.parametrize("names", ["{0}_images {0}_labels", "x_{0} y_{0}"])
def test_train_and_test(path: Path, names: str) -> None:
    arrays: dict[str, Any] = {}
    for split, count in (("train", 4), ("test", 2)):
        images, labels = names.format(split).split()
        arrays |= {images: PIXELS[:count], labels: LABELS[:count]}
    np.savez(path, **arrays)
    dataset = open_dataset(f"npz:{path}")
    assert [len(dataset.split(name)) for name in ("train", "test")] == [4, 2]
    assert dataset.preprocessing == IMAGENET


def test_classes_and_normalisation_may_be_there(path: Path) -> None:
    np.savez(
        path,
        images=PIXELS[..., 0],
        labels=LABELS,
        classes=["ant", "bee", "cow"],
        mean=[0.25],
        std=[0.125],
    )
    dataset = open_dataset(f"npz:{path}")
    assert dataset.classes == ("ant", "bee", "cow")
    assert (dataset.preprocessing.mean, dataset.preprocessing.std) == ((0.25,), (0.125,))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"images": None}, "has no array images, only labels"),
        ({"images": PIXELS[0]}, "it holds 5 images and 4 labels"),
        ({"images": PIXELS[0, 0]}, "its images are (6, 3), not"),
        ({"images": PIXELS[:0]}, "it holds no images"),
        ({"images": PIXELS[:, :0]}, "it holds no images"),
        ({"images": np.array([None] * 4)}, "its images are (4,), not"),
        ({"labels": LABELS[:3]}, "it holds 4 images and 3 labels"),
        ({"labels": LABELS - 1}, "image 0 has the label -1, and there are 2 classes"),
        ({"labels": LABELS.astype(float)}, "its labels are float64 of shape (4,)"),
        ({"labels": np.array([None] * 4)}, "is damaged"),
        ({"labels": np.array(["a"] * 4)}, "is damaged"),
        ({"labels": LABELS * 10**9}, "number the classes 0, 1, 2"),
        ({"labels": np.eye(4, dtype=int)}, "its labels are int64 of shape (4, 4)"),
        ({"classes": ["ant", "bee"]}, "image 1 has the label 2, and there are 2 classes"),
        ({"mean": [0.5], "std": [0.0]}, "a std of (0.0,)"),
    ],
)
def test_unfit_arrays(path: Path, changes: dict[str, Any], why: str) -> None:
    arrays = {"images": PIXELS, "labels": LABELS} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    assert why in error(path)


def test_channels_that_differ(path: Path) -> None:
    np.savez(
        path,
        train_images=PIXELS,
        train_labels=LABELS,
        test_images=PIXELS[..., 0],
        test_labels=LABELS,
    )
    assert "train and test images differ in channels" in error(path)


def test_cut_and_altered_files(path: Path) -> None:
    np.savez_compressed(path, images=PIXELS, labels=LABELS)
    whole = path.read_bytes()
    for at in range(0, len(whole), 37):
        path.write_bytes(whole[:at])
        assert "a.npz" in error(path)
    for at in range(30, 400, 3):  # the compressed images
        altered = bytearray(whole)
        altered[at] ^= 0xFF
        path.write_bytes(altered)
        try:
            open_dataset(f"npz:{path}").split("test")
        except DataError as caught:
            assert "\n" not in str(caught)


def test_other_files(path: Path) -> None:
    np.save(path.with_suffix(".npy"), PIXELS)
    assert "it is no whole .npz file" in error(path.with_suffix(".npy"))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello.txt", "hello")
    assert "has no array images" in error(path)


def test_a_header_that_asks_for_all_memory(path: Path) -> None:
    header = io.BytesIO()
    shape = (2**50, 3, 8, 8)
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    np.savez(path, labels=LABELS)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("images.npy", header.getvalue())
    assert "is damaged" in error(path)


def calibrated(path: Path, how: Preprocessing) -> DatasetImages:
    dataset = open_dataset(f"npz:{path}")
    return DatasetImages(
        dataset, how, (1, *dataset.images("test").image(0).transpose(2, 0, 1).shape)
    )


HOW = Preprocessing((0.5, 0.25, 0.0), (0.5, 0.25, 1.0))


def test_images_without_labels_calibrate_and_do_no_more(path: Path) -> None:
    np.savez(path, images=PIXELS)
    found = calibrated(path, HOW)
    expected = HOW.normalise(np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)))
    np.testing.assert_array_equal(found.inputs, expected)
    for needs in (lambda: open_dataset(f"npz:{path}").split("test"), found.labelled):
        with pytest.raises(DataError, match="label"):
            needs()


def test_a_lone_array_is_the_images_whatever_its_name(path: Path) -> None:
    np.savez(path, whatever=PIXELS)
    assert len(calibrated(path, HOW).inputs) == 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("scale", [1, 1 / 255])
def test_labelled_floats_are_input_as_they_are(path: Path, dtype: type, scale: float) -> None:
    noise = np.random.default_rng(0).standard_normal((4, 3, 5, 6))
    values: Any = (scale * noise).astype(dtype)
    np.savez(path, images=abs(values), labels=LABELS)
    found = calibrated(path, HOW)
    np.testing.assert_array_equal(found.inputs, abs(values).astype(np.float32))
    assert any("as they are" in note for note in found.notes)
    dataset = open_dataset(f"npz:{path}")
    assert dataset.prepared_by(HOW) == unchanged(3)
    assert dataset.split("test").labels.tolist() == LABELS.tolist()


def test_floats_are_pixels_where_mean_and_std_lie_beside_them(path: Path) -> None:
    np.savez(path, images=PIXELS / 255, labels=LABELS, mean=HOW.mean, std=HOW.std)
    whole = HOW.normalise(np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)))
    found = calibrated(path, open_dataset(f"npz:{path}").preprocessing)
    np.testing.assert_allclose(found.inputs, whole, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 1, 90), (4, 90), (4, 64, 8, 8), (4, 3, 5, 6, 7)])
@pytest.mark.parametrize("labels", [{}, {"labels": LABELS}])
def test_floats_of_any_shape_are_a_networks_input(
    path: Path, shape: tuple[int, ...], labels: dict[str, Any]
) -> None:
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    np.savez(path, images=values, **labels)
    found = open_data(f"npz:{path}")
    assert isinstance(found, TensorSet)
    np.testing.assert_array_equal(found.inputs_of(["x"])["x"], values)
    assert found.targets.keys() == ({"target"} if labels else set())


@pytest.mark.parametrize(
    ("images", "why"),
    [
        (np.float32(255) * np.ones((4, 3, 5, 6), np.float32), "save pixels as uint8"),
        (np.full((4, 3, 5, 6), np.nan, np.float32), "NaN or infinity"),
        (np.full((4, 3, 5, 6), 256), "from 0 to 256, not uint8"),
    ],
)
def test_values_that_mean_nothing(path: Path, images: Any, why: str) -> None:
    np.savez(path, images=images, labels=LABELS)
    assert why in error(path)


@pytest.mark.parametrize("shape", [(4, 6, 8, 9), (4, 8, 9, 6), (4, 4, 8, 8), (4, 8, 8, 2)])
def test_any_number_of_channels(path: Path, shape: tuple[int, ...]) -> None:
    channels = min(shape[1], shape[3])
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    np.savez(path, images=values, labels=LABELS)
    dataset = open_dataset(f"npz:{path}")
    assert dataset.channels == channels == len(dataset.preprocessing.mean)
    image = dataset.split("test").image(1)
    expected = values[1] if shape[3] == channels else values[1].transpose(1, 2, 0)
    np.testing.assert_array_equal(image, expected)


def test_a_file_that_unpacks_to_far_more_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(path, images=np.zeros((4, 3, 500, 500), np.uint8), labels=LABELS)
    assert len(open_dataset(f"npz:{path}").split("test")) == 4
    monkeypatch.setattr("trpexport.arrays.memory_allowance", lambda size: 10 * size)
    assert "far more than it is" in error(path)


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such files")
def test_a_pipe_is_refused_at_once(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(DataError, match="it is no plain file"):
        open_dataset(f"npz:{path}")
