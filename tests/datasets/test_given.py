"""What people hand over from Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from trpexport.datasets import Dataset, TensorSet, open_data
from trpexport.datasets.given import data_from, fingerprint
from trpexport.errors import DataError
from trpexport.inputs import Input, Inputs

FLOATS = np.random.default_rng(0).standard_normal((12, 3, 8, 8)).astype(np.float32)
LABELS = np.arange(12) % 5
TENSORS, CLASSES = torch.from_numpy(FLOATS), torch.from_numpy(LABELS)
PAIRS = TensorDataset(TENSORS, CLASSES)


class Numbered:
    """Items by number, and an end that is no IndexError."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Any:
        return TENSORS[index % 12], int(LABELS[index % 12])


def generator() -> Iterator[Any]:
    yield from torch.split(TENSORS, 5)


PLAIN: dict[str, Callable[[], Any]] = {
    "array": lambda: FLOATS,
    "tensor": lambda: TENSORS,
    "tensor with a gradient": lambda: TENSORS.clone().requires_grad_(),
    "mapping": lambda: {"x": TENSORS},
    "list of batches": lambda: [*torch.split(TENSORS, 5)],
    "list of images": lambda: [*TENSORS],
    "generator": generator,
    "loader": lambda: DataLoader(TENSORS, batch_size=5),  # type: ignore[arg-type]
}
LABELLED: dict[str, Callable[[], Any]] = {
    "loader": lambda: DataLoader(PAIRS, batch_size=5),
    "loader of one": lambda: DataLoader(PAIRS, batch_size=1),
    "data set of torch": lambda: PAIRS,
    "numbered": Numbered,
    "list of pairs": lambda: [*zip(TENSORS, map(int, CLASSES), strict=True)],
    "list of batches": lambda: [
        [*pair] for pair in zip(torch.split(TENSORS, 4), torch.split(CLASSES, 4), strict=True)
    ],
    "mappings": lambda: [{"pixel_values": x, "labels": y} for x, y in DataLoader(PAIRS, 5)],
}


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("known", [None, Inputs.of((1, 3, 8, 8))])
def test_floats_are_input_as_they_are(kind: str, known: Inputs | None) -> None:
    found = data_from(PLAIN[kind](), known)
    assert isinstance(found, TensorSet)
    np.testing.assert_array_equal(found.inputs_of(["any"])["any"], FLOATS)
    assert not found.targets


@pytest.mark.parametrize("kind", LABELLED)
@pytest.mark.parametrize("known", [None, Inputs.of((1, 3, 8, 8))])
def test_labels_are_told_from_inputs(kind: str, known: Inputs | None) -> None:
    found = data_from(LABELLED[kind](), known)
    assert isinstance(found, TensorSet)
    np.testing.assert_array_equal(found.inputs_of(["any"])["any"], FLOATS)
    np.testing.assert_array_equal(found.targets["target"], LABELS)


@pytest.mark.parametrize("shape", [(8, 8, 3), (3, 8, 8), (8, 8)])
@pytest.mark.parametrize("one_by_one", [False, True])
def test_bytes_of_pictures_are_images(shape: tuple[int, ...], one_by_one: bool) -> None:
    values = np.random.default_rng(0).integers(0, 256, (12, *shape), np.uint8)
    given: Any = [(image, 3) for image in values] if one_by_one else values
    if one_by_one and len(shape) == 2:
        given = [(image[None], 3) for image in values]
    found = data_from(given)
    assert isinstance(found, Dataset)
    assert found.channels == (1 if len(shape) == 2 else 3)
    split = found.images("test")
    expected = values.reshape(12, 8, 8, -1) if shape[0] == 8 else values.transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(split.image(5), expected[5])
    assert split.is_labelled == one_by_one


def test_bytes_are_input_where_the_network_takes_bytes() -> None:
    values = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), np.uint8)
    known = Inputs.of({"input": Input((1, 3, 8, 8), "uint8")})
    assert isinstance(data_from(values, known), TensorSet)


def test_several_inputs_come_by_name_or_in_their_order() -> None:
    known = Inputs.of({"left": (1, 4), "right": (1, 4)})
    a, b = torch.randn(6, 4), torch.randn(6, 4)
    for given in (
        {"left": a, "right": b},
        [(a, b)],
        DataLoader(TensorDataset(a, b, torch.arange(6)), batch_size=4),
        [{"left": x, "right": y} for x, y in zip(a, b, strict=True)],
    ):
        found = data_from(given, known)
        assert isinstance(found, TensorSet)
        np.testing.assert_array_equal(found.inputs["right"], b)


def test_an_endless_loader_is_read_as_far_as_is_needed() -> None:
    def endless() -> Iterator[Any]:
        while True:
            yield TENSORS

    assert len(data_from(endless(), limit=30)) == 30  # type: ignore[arg-type]


def test_bfloat16_is_read() -> None:
    found = data_from(TENSORS.bfloat16())
    assert isinstance(found, TensorSet)
    assert found.inputs_of(["x"])["x"].dtype == np.float32


def test_paths(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", FLOATS)
    for given in (tmp_path / "a.npy", str(tmp_path / "a.npy"), tmp_path):
        found = data_from(given)
        assert isinstance(found, TensorSet)
        np.testing.assert_array_equal(found.inputs_of(["x"])["x"], FLOATS)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (3, "can't be a int"),
        ([], "there are no images"),
        (iter(()), "used up before"),
        ([torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 9, 9)], "can't be put together"),
        (["a"], "a sample is a str"),
        ([object()], "a sample is a object"),
        ([{}], "empty items"),
    ],
)
def test_what_is_none_of_that_is_one_line(given: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        data_from(given)
    assert "\n" not in str(caught.value)


def test_what_a_mapping_holds_are_inputs_unless_the_network_has_no_such() -> None:
    both = {"x": TENSORS, "y": TENSORS, "target": CLASSES}
    free = data_from(both)
    assert isinstance(free, TensorSet)
    assert [*free.inputs] == ["x", "y", "target"]
    known = data_from(both, Inputs.of({"x": (1, 3, 8, 8), "y": (1, 3, 8, 8)}))
    assert isinstance(known, TensorSet)
    assert ([*known.inputs], [*known.targets]) == (["x", "y"], ["target"])
    only = data_from([{"x": TENSORS, "y": CLASSES}], Inputs.of({"x": (1, 3, 8, 8)}))
    assert isinstance(only, TensorSet)
    assert ([*only.inputs], [*only.targets]) == (["x"], ["target"])


def test_data_are_told_from_what_stood_under_their_name(tmp_path: Path) -> None:
    pictures, listed = tmp_path / "pictures", tmp_path / "list.csv"
    for name in ("a", "b"):
        (pictures / name).mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(pictures / name / "one.png")
    listed.write_text("path,label\npictures/a/one.png,0\n")
    names = [f"imagefolder:{pictures}", f"imagelist:{listed}"]
    before = [fingerprint(open_data(name)) for name in names]
    assert before == [fingerprint(open_data(name)) for name in names]
    assert [found.rpartition(":")[0] for found in before] == names
    os.utime(pictures / "a/one.png", ns=(1, 1))
    after = [fingerprint(open_data(name)) for name in names]
    assert not {*before} & {*after}
    (pictures / "b/one.png").rename(pictures / "b/two.png")
    again = [fingerprint(open_data(name)) for name in names]
    assert again[0] != after[0]
    assert again[1] == after[1]  # it is not in the list


def test_arrays_are_told_by_their_content() -> None:
    one, other = data_from(FLOATS), data_from(FLOATS[::-1])
    assert fingerprint(one) == fingerprint(data_from(FLOATS.copy())) != fingerprint(other)
