"""Image files that a table lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.datasets.picturing import encoded, pixels, write_folder
from trpexport.datasets import open_dataset
from trpexport.errors import DataError

FILES = {f"img/{i}.png": encoded(pixels(i)) for i in range(4)}


def listed(folder: Path, text: str, encoding: str = "utf-8") -> str:
    write_folder(folder, FILES)
    (folder / "a.csv").write_bytes(text.encode(encoding))
    return f"imagelist:{folder / 'a.csv'}"


def error(folder: Path, text: str) -> str:
    with pytest.raises(DataError) as caught:
        dataset = open_dataset(listed(folder, text))
        for name in dataset.readers:
            split = dataset.images(name)
            for index in range(len(split)):
                split.image(index)
    assert "\n" not in str(caught.value)
    return str(caught.value)


NAMES = ("path,label", ("ant", "bee"), ("bee", "ant", "bee"), [1, 0, 1])
NUMBERS = ("path,label", ("0", "1", "2"), ("2", "0", "2"), [2, 0, 2])


@pytest.mark.parametrize(("head", "classes", "labels", "numbers"), [NAMES, NUMBERS])
@pytest.mark.parametrize("comma", [",", ";", "\t", ", "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_labels_are_names_or_numbers(
    tmp_path: Path,
    head: str,
    classes: tuple[str, ...],
    labels: tuple[str, ...],
    numbers: list[int],
    comma: str,
    end: str,
) -> None:
    rows = [head, *(f"img/{i}.png,{label}" for i, label in enumerate(labels))]
    text = end.join(row.replace(",", comma) for row in rows)
    dataset = open_dataset(listed(tmp_path, text, "utf-8-sig"))
    assert dataset.classes == classes
    split = dataset.split("test")
    assert split.labels.tolist() == numbers
    np.testing.assert_array_equal(split.image(2), pixels(2))


def test_columns_go_by_their_names_and_others_are_left_out(tmp_path: Path) -> None:
    text = "id,Class,Subset,width,FileName\n7,dog,train,4,img/0.png\n8,cat,val,4,img/1.png\n"
    dataset = open_dataset(listed(tmp_path, text))
    assert dataset.classes == ("cat", "dog")
    assert dataset.split("train").labels.tolist() == [1]
    assert dataset.split("test").labels.tolist() == [0]  # val, where there is no test
    np.testing.assert_array_equal(dataset.split("test").image(0), pixels(1))


def test_without_names_columns_have_an_order(tmp_path: Path) -> None:
    dataset = open_dataset(listed(tmp_path, "img/0.png,cat,train\nimg/1.png,dog,test\n"))
    assert [len(dataset.split(name)) for name in ("train", "test")] == [1, 1]


def test_val_is_left_out_where_there_is_a_test(tmp_path: Path) -> None:
    text = "path,label,split\nimg/0.png,0,val\nimg/1.png,1,test\nimg/2.png,2,validation"
    dataset = open_dataset(listed(tmp_path, text))
    np.testing.assert_array_equal(dataset.split("test").image(0), pixels(1))
    assert list(dataset.readers) == ["test"]


def test_without_labels_it_calibrates(tmp_path: Path) -> None:
    dataset = open_dataset(listed(tmp_path, "path\nimg/0.png\nimg/1.png\n"))
    assert len(dataset.images("test")) == 2
    with pytest.raises(DataError, match="needed here: give the list a column label"):
        dataset.split("test")


def test_paths_may_be_absolute_or_quoted(tmp_path: Path) -> None:
    write_folder(tmp_path / "with, comma", {"x.png": encoded(pixels(9))})
    text = f'path,label\n"with, comma/x.png",0\n{tmp_path / "img" / "0.png"},0\n'
    split = open_dataset(listed(tmp_path, text)).split("test")
    np.testing.assert_array_equal(split.image(0), pixels(9))
    np.testing.assert_array_equal(split.image(1), pixels(0))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,label\nimg/0.png,0\nimg/9.png,1", r"line 3 of .*a.csv names img/9.png, and"),
        ("path,label\n,0", "line 2 of .*names no image"),
        ("path,label\nimg,0", "line 2 of .*img is no file"),
        ("path,label\nimg/0.png,", "line 2 of .*has no label: give it one"),
        ("path,label\nimg/0.png,0\nimg/1.png,-1", "line 3 of .*has the label -1: number the"),
        ("path,label\nimg/0.png,99999999999", "line 2 of .*number the classes 0, 1, 2"),
        ("path,label\nimg/0.png,3\nimg/1.png,cat", "line 2 of .*the label 3, a number"),
        ("path,label,split\nimg/0.png,0,dev", "line 2 of .*has the split dev: choose from train"),
        ("path,label,split\nimg/0.png,0,", "line 2 of .*has the split of no name"),
        ("path,label\nimg/0.png", "line 2 of .*has 1 columns: give it all of path, label"),
        ("label,split\n0,test", "line 1 of .*names the columns label, split, none of them path"),
        ("nonsense\nmore", "line 1 of .*correct the path, or name the columns path,label,split"),
        ("path,label\n", "lists no images"),
        ("", "lists no images"),
        ("path,label\nimg/0.png\x00,0", "line 2 of"),
        ("path,label\n\x1b[2J.png,0", "line 2 of"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        raise DataError(error(tmp_path, text))


def test_what_can_not_be_decoded_is_named_with_its_line(tmp_path: Path) -> None:
    write_folder(tmp_path, FILES)
    (tmp_path / "img" / "bad.png").write_bytes(b"hello")
    said = error(tmp_path, "path,label\nimg/0.png,0\nimg/bad.png,0\n")
    assert f"bad.png (line 3 of {tmp_path / 'a.csv'}) can't be decoded" in said


def test_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"path,label\n\xff\xfe,0")
    with pytest.raises(DataError, match="no text in UTF-8"):
        open_dataset(str(tmp_path / "a.csv"))
