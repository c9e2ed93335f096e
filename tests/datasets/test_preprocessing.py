"""Resizing, cutting and normalising."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.datasets.picturing import encoded, pixels, write_folder
from trpexport.datasets import ArraySplit, Preprocessing, open_dataset
from trpexport.datasets.preprocessing import with_channels
from trpexport.errors import DataError

RGB = ((0.5, 0.25, 0.0), (0.5, 1.0, 0.25))


def split_of(*shapes: tuple[int, int]) -> ArraySplit:
    images = np.stack([pixels(i, *shape).transpose(2, 0, 1) for i, shape in enumerate(shapes)])
    return ArraySplit(images, np.arange(len(shapes)))


def test_normalise() -> None:
    images = np.array([255, 255, 0], np.uint8).reshape(1, 3, 1, 1)
    normalised = Preprocessing(*RGB).normalise(images)
    assert normalised.dtype == np.float32
    np.testing.assert_allclose(normalised.ravel(), [1.0, 0.75, 0.0])


def test_normalise_wants_its_own_channels() -> None:
    with pytest.raises(DataError, match="1 channel, the preprocessing has a mean for 3"):
        Preprocessing(*RGB).normalise(np.zeros((2, 1, 4, 4), np.uint8))


def test_prepare_without_sizes_only_transposes() -> None:
    image = pixels(0, 5, 7)
    np.testing.assert_array_equal(Preprocessing(*RGB).prepare(image), image.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("height", "cut", "top"),
    # As torchvision rounds half of the rest: 0.5 and 2.5 to even.
    [(8, 8, 0), (8, 7, 0), (8, 6, 1), (8, 5, 2), (8, 3, 2), (8, 2, 3)],
)
def test_the_centre_is_cut(height: int, cut: int, top: int) -> None:
    image = pixels(0, height, 9)
    cut_out = Preprocessing(*RGB, size=(cut, 9)).prepare(image)
    np.testing.assert_array_equal(cut_out, image[top : top + cut].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("height", "width", "resized"), [(40, 60, (20, 30)), (61, 40, (30, 20)), (10, 10, (20, 20))]
)
def test_resize_is_pillows_of_the_whole_image(
    height: int, width: int, resized: tuple[int, int]
) -> None:
    image = pixels(1, height, width)
    expected = Image.fromarray(image).resize(resized[::-1], Image.Resampling.BILINEAR)
    prepared = Preprocessing(*RGB, resize=20).prepare(image)
    np.testing.assert_array_equal(prepared, np.asarray(expected).transpose(2, 0, 1))
    cut = Preprocessing(*RGB, resize=20, size=(16, 16)).prepare(image)
    top, left = (resized[0] - 16) // 2, (resized[1] - 16) // 2
    np.testing.assert_array_equal(cut, prepared[:, top : top + 16, left : left + 16])


def test_grey_images_are_resized() -> None:
    grey = pixels(2, 9, 9)[..., :1]
    assert Preprocessing((0.5,), (0.5,), resize=3).prepare(grey).shape == (1, 3, 3)


@given(height=st.integers(1, 40), width=st.integers(1, 40), shorter=st.integers(1, 40))
def test_the_shorter_edge_gets_the_length(height: int, width: int, shorter: int) -> None:
    image = np.zeros((height, width, 1), np.uint8)
    shape = Preprocessing((0.5,), (0.5,), resize=shorter).prepare(image).shape[1:]
    assert min(shape) == shorter
    assert max(shape) == math.floor(shorter * max(height, width) / min(height, width))


def test_a_resize_that_no_memory_holds() -> None:
    for shape, shorter in (((2, 2), 20_000), ((1, 1000), 600)):
        with pytest.raises(DataError, match="can't be resized to"):
            Preprocessing(*RGB, resize=shorter).prepare(np.zeros((*shape, 3), np.uint8))


def test_a_too_small_image() -> None:
    image = pixels(0, 20, 30)
    with pytest.raises(DataError, match="20x30 is smaller than the 24x24 to cut out"):
        Preprocessing(*RGB, size=(24, 24)).prepare(image)
    with pytest.raises(DataError, match="even with its shorter edge 23, is smaller"):
        Preprocessing(*RGB, size=(24, 24), resize=23).prepare(image)
    assert Preprocessing(*RGB, size=(24, 24), resize=24).prepare(image).shape == (3, 24, 24)


@pytest.mark.parametrize(
    "preprocessing",
    [
        Preprocessing(*RGB),
        Preprocessing(*RGB, size=(4, 5)),
        Preprocessing(*RGB, size=(4, 5), resize=12),
    ],
)
def test_the_short_cut_agrees(preprocessing: Preprocessing) -> None:
    split = split_of(*[(8, 9)] * 6)
    prepared = preprocessing.prepare_split(split, [5, 0, 5])
    assert prepared.flags.c_contiguous
    one_by_one = [preprocessing.prepare(split.image(index)) for index in (5, 0, 5)]
    np.testing.assert_array_equal(prepared, np.stack(one_by_one))


def test_only_the_images_asked_for_are_decoded(tmp_path: Path) -> None:
    good, bad = encoded(pixels(0)), b""
    folder = write_folder(tmp_path, {"a/0.png": good, "a/1.png": bad, "a/2.png": good})
    split = open_dataset(f"imagefolder:{folder}").split("test")
    assert Preprocessing(*RGB).prepare_split(split, np.array([2, 0])).shape == (2, 3, 4, 4)
    with pytest.raises(DataError, match=r"1\.png can't be decoded"):
        Preprocessing(*RGB).prepare_split(split, [0, 1])


def test_sizes_that_differ_need_one_size(tmp_path: Path) -> None:
    files = {"a/0.png": encoded(pixels(0, 6, 8)), "a/1.png": encoded(pixels(1, 9, 7))}
    split = open_dataset(f"imagefolder:{write_folder(tmp_path, files)}").split("test")
    with pytest.raises(DataError, match=r"differ in size \(6x8 and 9x7\): give"):
        Preprocessing(*RGB).prepare_split(split, [0, 1])
    assert Preprocessing(*RGB, size=(6, 6)).prepare_split(split, [0, 1]).shape == (2, 3, 6, 6)


finite = st.floats(-10, 10)
positive = st.floats(1e-6, 10)
edges = st.integers(1, 1000)
preprocessings = st.integers(1, 4).flatmap(
    lambda n: st.builds(
        Preprocessing,
        st.tuples(*[finite] * n),
        st.tuples(*[positive] * n),
        st.none() | st.tuples(edges, edges),
        st.none() | edges,
    )
)


@given(preprocessings)
def test_json_round_trip(preprocessing: Preprocessing) -> None:
    text = json.dumps(preprocessing.to_json())
    assert Preprocessing.from_json(json.loads(text), "x") == preprocessing


@pytest.mark.parametrize(
    "change",
    [
        {"mean": None},
        {"mean": []},
        {"mean": [0.5]},
        {"mean": ["a", "b", "c"]},
        {"mean": [math.nan, 0, 0]},
        {"std": [1, 1, 0]},
        {"std": [1, 1, math.inf]},
        {"size": [32]},
        {"size": [0, 32]},
        {"size": "ab"},
        {"size": 32},
        {"resize": -1},
        {"resize": math.inf},
        {"resize": [1]},
    ],
)
def test_damaged_json(change: dict[str, object]) -> None:
    with pytest.raises(DataError, match=r"^the bundle: its preprocessing is damaged"):
        Preprocessing.from_json(Preprocessing(*RGB).to_json() | change, "the bundle")


@pytest.mark.parametrize("data", [None, 3, [], "mean", {}])
def test_json_of_another_kind(data: object) -> None:
    with pytest.raises(DataError, match="is damaged"):
        Preprocessing.from_json(data, "x")  # type: ignore[arg-type]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_become_those_of_the_mean_as_pillow_makes_them(channels: int) -> None:
    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[channels]
    values = np.random.default_rng(0).integers(0, 256, (7, 5, channels), np.uint8)
    picture = Image.fromarray(values if channels > 1 else values[..., 0], mode)
    planes = values.transpose(2, 0, 1)
    np.testing.assert_array_equal(with_channels(planes, 1)[0], np.asarray(picture.convert("L")))
    colours = np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(with_channels(planes, 3), colours)
    grey = with_channels(planes / 255, 1)
    np.testing.assert_allclose(grey * 255, with_channels(planes, 1), atol=0.6)
    assert with_channels(planes, 7) is not None  # left for the caller to refuse
