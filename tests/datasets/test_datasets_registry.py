"""Opening data sets by name, and what all of them keep to."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.datasets.picturing import pixels, two_classes, write_folder
from trpexport.datasets import DATASETS, Dataset, open_data, open_dataset
from trpexport.errors import DataError, MissingDependencyError, TrpexportError


def _cifar(folder: Path, names: tuple[str, ...], label_bytes: int) -> Path:
    record = bytes(label_bytes) + pixels(0, 32, 32).tobytes()
    return write_folder(folder, {f"{name}.bin": record * 2 for name in names})


def make_cifar10(folder: Path) -> Path:
    return _cifar(folder, ("test_batch", *(f"data_batch_{i}" for i in range(1, 6))), 1)


def make_cifar100(folder: Path) -> Path:
    return _cifar(folder, ("train", "test"), 2)


def make_fashion_mnist(folder: Path) -> Path:
    files = {}
    for name in ("train", "t10k"):
        images, labels = bytes((0, 0, 8, 3, 0, 0, 0, 2)), bytes((0, 0, 8, 1, 0, 0, 0, 2))
        files[f"{name}-images-idx3-ubyte"] = images + bytes((0, 0, 0, 28) * 2) + bytes(2 * 784)
        files[f"{name}-labels-idx1-ubyte"] = labels + bytes((9, 0))
    return write_folder(folder, files)


def make_npz(folder: Path) -> Path:
    images, labels = np.zeros((2, 3, 8, 8), np.uint8), np.array([0, 1])
    path = write_folder(folder, {}) / "a.npz"
    np.savez(path, train_images=images, test_images=images, train_labels=labels, test_labels=labels)
    return path


def make_imagefolder(folder: Path) -> Path:
    return write_folder(folder, two_classes("train", "test"))


def make_imagelist(folder: Path) -> Path:
    files = two_classes("train", "test")
    rows = [f"{name},{name.split('/')[1]},{name.split('/')[0]}" for name in files]
    table = "\n".join(["path,label,split", *rows])
    return write_folder(folder, {**files, "a.csv": table.encode()}) / "a.csv"


def make_hf(folder: Path) -> Path:
    datasets = pytest.importorskip("datasets")
    from tests.datasets.tabling import table

    for name in ("train", "test"):
        table().save_to_disk(folder / name)
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert datasets.load_from_disk(str(folder)).keys() == {"train", "test"}
    return folder


# A new data set is added here, and meets the tests below.
MAKERS: dict[str, Callable[[Path], Path] | None] = {
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "digits": None,
    "fashion-mnist": make_fashion_mnist,
    "hf": make_hf,
    "imagefolder": make_imagefolder,
    "imagelist": make_imagelist,
    "npz": make_npz,
}


@pytest.fixture(params=sorted(MAKERS))
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Dataset:
    name: str = request.param
    maker = MAKERS[name]
    return open_dataset(name if maker is None else f"{name}:{maker(tmp_path / 'data')}")


def test_every_data_set_is_tested() -> None:
    others = {"tensors", "npy"}  # are no images, or of one split: test_tensors.py, test_arrays.py
    assert {*MAKERS, *others} == set(DATASETS)


def test_every_data_set(dataset: Dataset) -> None:
    assert list(dataset.readers) == ["train", "test"]
    assert dataset.name.partition(":")[0] in DATASETS
    assert len(dataset.preprocessing.mean) == dataset.channels
    for name in dataset.readers:
        split = dataset.split(name)
        images = split.arrays()
        assert images is not None
        assert images.dtype == np.uint8
        assert images.shape[:2] == (len(split), dataset.channels)
        assert images.flags.writeable  # else torch.from_numpy warns
        assert split.labels.dtype == np.int64
        assert split.labels.flags.writeable
        assert 0 <= split.labels.min() <= split.labels.max() < len(dataset.classes)
        np.testing.assert_array_equal(split.image(1), images[1].transpose(1, 2, 0))
        prepared = dataset.preprocessing.prepare_split(split, [1])
        np.testing.assert_array_equal(prepared[0], images[1])
        assert np.isfinite(dataset.preprocessing.normalise(prepared)).all()


def test_every_data_set_reaches_other_processes(dataset: Dataset) -> None:
    copy = pickle.loads(pickle.dumps(dataset))
    split = pickle.loads(pickle.dumps(copy.split("test")))
    np.testing.assert_array_equal(split.image(0), dataset.split("test").image(0))


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"digits", "hf"}))
def test_a_path_that_is_not_there(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"No such file or directory.*write {name}:"):
        open_dataset(f"{name}:{tmp_path / 'none'}")
    with pytest.raises(DataError, match=f"write {name}:"):
        open_dataset(f"{name}:")


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"digits", "hf", "imagefolder"}))
def test_the_wrong_place(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"hello")
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(DataError) as caught:
            open_dataset(f"{name}:{path}")
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_a_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    make_cifar10(tmp_path / "c")
    assert open_dataset("cifar10:~/c").name == "cifar10:~/c"
    with pytest.raises(DataError, match="~nobody-here"):
        open_dataset("cifar10:~nobody-here/c")


def test_a_path_alone(tmp_path: Path) -> None:
    for name in ("imagefolder", "npz", "imagelist"):
        maker = MAKERS[name]
        assert maker is not None
        path = maker(tmp_path / f"{name}-data")
        found = open_dataset(str(path))
        assert found.name.partition(":")[0] == name
        assert len(found.split("train"))
    with pytest.raises(TrpexportError, match="there is nothing to read at"):
        open_dataset(str(tmp_path / "none"))


def test_unknown_names() -> None:
    with pytest.raises(TrpexportError, match="unknown data set 'cifar': did you mean cifar"):
        open_dataset("cifar:x")


def test_a_split_that_is_not_there() -> None:
    with pytest.raises(DataError, match="digits has no val images, only train, test"):
        open_dataset("digits").split("val")


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("digits", "sklearn.datasets", "scikit-learn"),
        ("hf", "datasets", "datasets"),
        ("imagefolder", "PIL.Image", "pillow"),
    ],
)
def test_missing_packages(
    name: str, module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = MAKERS[name]
    text = name if maker is None else f"{name}:{maker(tmp_path / 'data')}"
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError) as caught:
        open_dataset(text).split("test").image(0)
    assert f"the package {package}: pip install" in str(caught.value)
    assert '[data]"' in str(caught.value)


def test_importing_loads_neither_torch_nor_the_extras() -> None:
    program = (
        "import sys, trpexport.datasets\n"
        "print([m for m in ('torch', 'PIL', 'sklearn', 'datasets') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout == "[]\n"


@pytest.mark.parametrize("text", ["gone.npy", "gone.csv", "gone/folder", "./gone"])
def test_a_path_with_nothing_there_is_told_as_such(text: str) -> None:
    with pytest.raises(DataError, match=f"nothing to read at {text}: check the path"):
        open_data(text)
