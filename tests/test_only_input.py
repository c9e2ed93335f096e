"""A shape without a name is that of the only input, of each network its own."""

from __future__ import annotations

import numpy as np
import pytest

from trpexport.errors import ModelError
from trpexport.tensors import ONLY_INPUT, TensorInfo, resolve_shapes, shapes_by_network

SHAPE = (1, 3, 8, 8)


def info(name: str) -> TensorInfo:
    return TensorInfo(name, ("n", 3, "h", "w"), np.dtype("float32"))


def test_the_only_input_gets_it() -> None:
    assert resolve_shapes([info("x")], {ONLY_INPUT: SHAPE}) == {"x": SHAPE}
    networks = [[info("x")], [info("image")]]
    assert shapes_by_network(networks, {ONLY_INPUT: SHAPE}) == [{"x": SHAPE}, {"image": SHAPE}]


def test_of_several_one_has_to_be_named() -> None:
    with pytest.raises(ModelError, match=r"several inputs \(x, y\): .* as in x=1x3x8x8") as caught:
        resolve_shapes([info("x"), info("y")], {ONLY_INPUT: SHAPE})
    assert caught.value.parameters == ("shapes",)
