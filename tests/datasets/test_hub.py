"""Data sets of the library ``datasets``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.datasets.picturing import encoded, pixels, write_folder
from trpexport.datasets import open_dataset
from trpexport.errors import DataError

datasets = pytest.importorskip("datasets")

from tests.datasets.tabling import CLASSES, table  # noqa: E402  needs datasets


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def error(text: str) -> str:
    with pytest.raises(DataError) as caught:
        dataset = open_dataset(text)
        for name in dataset.readers:
            dataset.split(name).arrays()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def save(folder: Path, **tables: Any) -> str:
    datasets.DatasetDict(tables).save_to_disk(folder)
    return f"hf:{folder}"


def test_saved_to_disk(tmp_path: Path) -> None:
    dataset = open_dataset(save(tmp_path / "d", train=table(), test=table((1, 0))))
    assert dataset.classes == tuple(CLASSES)
    assert list(dataset.readers) == ["train", "test"]
    split = dataset.split("train")
    assert split.labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(split.image(2), pixels(2))
    images = split.arrays()
    assert images is not None
    np.testing.assert_array_equal(images[1], pixels(1).transpose(2, 0, 1))


def test_a_table_without_splits(tmp_path: Path) -> None:
    table().save_to_disk(tmp_path / "d")
    assert list(open_dataset(f"hf:{tmp_path / 'd'}").readers) == ["test"]


def test_parquet(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("train", "test"):
        table().to_parquet(tmp_path / "d" / f"{name}.parquet")
    dataset = open_dataset(f"hf:{tmp_path / 'd'}")
    assert list(dataset.readers) == ["train", "test"]
    np.testing.assert_array_equal(dataset.split("test").image(1), pixels(1))
    assert len(open_dataset(f"hf:{tmp_path / 'd/test.parquet'}").split("train")) == 3


def test_a_folder_of_images(tmp_path: Path) -> None:
    names = ("train/ant/0.png", "train/bee/0.png", "test/ant/0.png", "test/bee/0.png")
    files = {name: encoded(pixels(i)) for i, name in enumerate(names)}
    dataset = open_dataset(f"hf:{write_folder(tmp_path / 'd', files)}")
    assert dataset.classes == tuple(CLASSES)
    np.testing.assert_array_equal(dataset.split("test").image(1), pixels(3))


@pytest.mark.parametrize(
    ("splits", "count"),
    [
        ({"validation": (0, 1)}, 2),
        ({"test": (0, 1, 1), "validation": (0, 1)}, 3),
        ({"test": (-1, -1, -1), "validation": (0, 1)}, 2),  # as the hub's ImageNet
    ],
)
def test_validation_stands_in_for_test(
    tmp_path: Path, splits: dict[str, tuple[int, ...]], count: int
) -> None:
    tables = {name: table(labels) for name, labels in splits.items()}
    assert len(open_dataset(save(tmp_path / "d", **tables)).split("test")) == count


def test_columns_are_found_by_type(tmp_path: Path) -> None:
    mixed = table(
        (0, 1),
        coarse_label=(datasets.ClassLabel(names=["x"]), [0, 0]),
        label_text=(datasets.Value("string"), ["ant", "bee"]),
    ).rename_columns({"image": "photo", "label": "fine_label"})
    split = open_dataset(save(tmp_path / "d", test=mixed)).split("test")
    assert split.labels.tolist() == [0, 1]
    np.testing.assert_array_equal(split.image(0), pixels(0))


def test_labels_without_names(tmp_path: Path) -> None:
    plain = table((0, 1, 1)).cast_column("label", datasets.Value("int32"))
    assert open_dataset(save(tmp_path / "d", test=plain)).classes == ("0", "1")


def test_unfit_tables(tmp_path: Path) -> None:
    cases = {
        "has 0 image columns, not one, among label": table().remove_columns("image"),
        "has 0 label columns, not one, among image": table().remove_columns("label"),
        "has the label -1": table((-1, -1)),
        "its labels are": table((0, None)),
    }
    for number, (why, unfit) in enumerate(cases.items()):
        assert why in error(save(tmp_path / str(number), test=unfit))
    assert "has no split train or test, only odd" in error(save(tmp_path / "s", odd=table()))
    split_apart = {"train": table(), "test": table().rename_column("label", "y")}
    assert "its splits differ in their columns" in error(save(tmp_path / "c", **split_apart))


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ({"bytes": b"junk", "path": None}, "image 0 can't be decoded"),
        (None, "image 0 is missing"),
    ],
)
def test_damaged_images(tmp_path: Path, image: object, why: str) -> None:
    unfit = table((0,), image=(datasets.Image(), [image]))
    assert why in error(save(tmp_path / "d", test=unfit))


def test_a_deleted_image(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", {f"train/{n}/0.png": encoded(pixels(0)) for n in CLASSES})
    split = open_dataset(f"hf:{folder}").split("train")
    (folder / "train/ant/0.png").unlink()
    with pytest.raises(DataError, match=r"can't read .*ant/0\.png: No such file"):
        split.image(0)


def test_places_that_hold_no_data_set(tmp_path: Path) -> None:
    assert "write hf:NAME_OR_PATH" in error("hf:")
    assert "No such file" in error(f"hf:{tmp_path / 'none'}")
    (tmp_path / "empty").mkdir()
    assert "name a folder written by save_to_disk" in error(f"hf:{tmp_path / 'empty'}")
    (tmp_path / "file").write_bytes(b"junk")
    assert "can't load hf:" in error(f"hf:{tmp_path / 'file'}")
    save(tmp_path / "cut", test=table())
    for arrow in (tmp_path / "cut").rglob("*.arrow"):
        arrow.write_bytes(arrow.read_bytes()[:100])
    assert "can't load hf:" in error(f"hf:{tmp_path / 'cut'}")


def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(*names: object) -> None:
        asked.append(names)
        raise ConnectionError("Couldn't reach the Hub\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    message = error("hf:someone/pictures:small")
    assert asked == [("someone/pictures", "small")]
    assert message == (
        "can't load hf:someone/pictures:small (Couldn't reach the Hub): check the name and the "
        "network, or name a local folder"
    )
