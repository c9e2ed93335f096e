"""Dimensions that a file leaves open: how they are named, and which sizes are tried."""

from __future__ import annotations

import pytest

from trpexport.errors import ModelError
from trpexport.inputs import Inputs
from trpexport.networks.dynamic import other_sizes, parse_dynamic

BOTH = Inputs.of({"image": (1, 3, 16, 12), "boxes": (1, 5, 4)})


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((), {}),
        (("height", "width"), {"image": {2: "height", 3: "width"}}),
        (("width", "boxes:1=count"), {"image": {3: "width"}, "boxes": {1: "count"}}),
    ],
)
def test_dimensions_are_named(texts: tuple[str, ...], expected: dict[str, dict[int, str]]) -> None:
    assert parse_dynamic(texts, BOTH) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("depth", "names no dimension of image=1x3x16x12, boxes=1x5x4: give height or width"),
        ("box:1=count", "as in image:2=length"),
        ("boxes:0=count", "boxes has axes 1 to 2 besides its batch"),
        ("boxes:3=count", "boxes has axes 1 to 2 besides its batch"),
        ("boxes:1=batch", "names no dimension"),
        ("boxes:1=5", "names no dimension"),
    ],
)
def test_other_names_are_one_line(text: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        parse_dynamic([text], BOTH)
    assert "\n" not in str(caught.value)


def test_height_is_of_images_alone() -> None:
    with pytest.raises(ModelError, match="as in input:2=length"):
        parse_dynamic(["height"], Inputs.of((1, 8, 100)))


def test_larger_and_smaller_sizes_are_tried_and_others_than_squares() -> None:
    inputs = Inputs.of((2, 3, 16, 16))
    groups = list(other_sizes(inputs, {"input": {2: "height", 3: "width"}}))
    firsts = [group[0].first.shape for group in groups]
    assert firsts == [(2, 3, 24, 24), (2, 3, 12, 12), (2, 3, 12, 24)]
    assert all(size.first.shape != (2, 3, 16, 16) for group in groups for size in group)
    assert groups[1][-1].first.shape[2:] == (32, 32)  # the last of which are multiples of 32
