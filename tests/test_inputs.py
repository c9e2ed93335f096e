"""What a network takes: names, shapes, types, and how JSON has them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from trpexport.errors import DataError
from trpexport.inputs import INPUT, Input, Inputs, images_of, input_of_array, rows

BOTH = Inputs({"image": Input((2, 3, 8, 8)), "ids": Input((2, 5), "int64", 9)})


def test_one_plain_input_is_written_as_ever() -> None:
    one = Inputs.of((1, 3, 8, 8))
    assert one.to_json() == {"input_shape": [1, 3, 8, 8]}
    assert (str(one), list(one), one.batch, one.elements) == ("1x3x8x8", [INPUT], 1, 192)


@pytest.mark.parametrize(
    "inputs", [Inputs.of((4, 3)), BOTH, Inputs.of({"x": (1, 2)}), Inputs({INPUT: BOTH["ids"]})]
)
def test_what_is_written_is_read_back(inputs: Inputs) -> None:
    assert Inputs.from_json(json.loads(json.dumps(inputs.to_json()))) == inputs
    assert Inputs.from_json({"scheme": "spatial"}) is None


def test_another_batch_is_that_of_each() -> None:
    assert {name: one.shape for name, one in BOTH.with_batch(7).items()} == {
        "image": (7, 3, 8, 8),
        "ids": (7, 5),
    }
    assert BOTH.elements == 3 * 8 * 8 + 5
    assert str(BOTH) == "image=2x3x8x8, ids=2x5:int64"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ({"input_shape": [1, 0]}, "sensible size"),
        ({"input_shape": [2**20, 2**20]}, "sensible size"),
        ({"input_shape": []}, "sensible size"),
        ({"input_shape": "13"}, "list of whole numbers"),
        ({"inputs": {}}, "shapes by name"),
        ({"inputs": {"x": 3}}, "shapes by name"),
        ({"inputs": {"x": {"shape": [1, 2], "dtype": "object"}}}, "type of 'x'"),
        ({"inputs": {"x": {"shape": [1, 2], "dtype": "int8", "below": 1.5}}}, "type of 'x'"),
        ({"inputs": {"x": {"shape": [1, 2]}, "y": {"shape": [2, 2]}}}, "same first dimension"),
    ],
)
def test_damage_is_refused(damage: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Inputs.from_json(damage)


IMAGES, IDS = np.zeros((6, 3, 8, 8), np.float32), np.arange(30).reshape(6, 5)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (IMAGES, "for image, the network takes image, ids"),
        ({"image": IMAGES}, "give an array for each"),
        ({"image": IMAGES, "ids": IDS, "more": IDS}, "for image, ids, more"),
        ({"image": IMAGES[:, :2], "ids": IDS}, "for image of shape 6x2x8x8 do not fit"),
        ({"image": IMAGES, "ids": IDS[:5]}, "6 for image, 5 for ids"),
        ({"image": IMAGES, "ids": IDS + 0.5}, "for ids are float64, the network takes int64"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(given: Any, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        BOTH.named(given, "images")
    assert "\n" not in str(caught.value)


def test_arrays_come_in_the_order_of_the_inputs() -> None:
    named = BOTH.named({"ids": IDS, "image": IMAGES}, "images")
    assert list(named) == ["image", "ids"]
    assert images_of(named) == 6
    assert np.array_equal(rows(named, [4, 1])["ids"], IDS[[4, 1]])
    assert images_of(rows(IMAGES, slice(2))) == 2


def test_an_array_is_an_example_of_an_input() -> None:
    assert input_of_array(IMAGES, 1) == Input((1, 3, 8, 8))
    assert input_of_array(IDS) == Input((6, 5), "int64", 30)
    assert input_of_array(IDS > 3) == Input((6, 5), "bool", 2)
