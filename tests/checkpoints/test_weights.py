"""Values and types of weights."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from trpexport.checkpoints.weights import float32_weights
from trpexport.errors import CheckpointError

FILE = Path("net.pth")


def test_float32_and_integers_stay_as_they_are() -> None:
    tensors = {"w": torch.ones(2), "bn.num_batches_tracked": torch.tensor(7)}
    weights, notes = float32_weights(FILE, tensors)
    assert weights["w"] is tensors["w"]
    assert weights["bn.num_batches_tracked"].dtype == torch.int64
    assert notes == ()


def test_other_floats_are_cast_exactly_and_said() -> None:
    # 1.5 and -0.25 are exact in every one of these types.
    values = torch.tensor([1.5, -0.25])
    tensors = {"a": values.half(), "b": values.bfloat16(), "c": values.half(), "d": values.double()}
    weights, notes = float32_weights(FILE, tensors)
    assert all(torch.equal(weight, values) for weight in weights.values())
    assert notes == (
        "cast 2 tensors from float16 to float32",
        "cast 1 tensors from bfloat16 to float32",
        "cast 1 tensors from float64 to float32",
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_refused_by_name(value: float) -> None:
    bad = torch.tensor([1.0, value, value, 2.0, 3.0])
    tensors = {"a": torch.ones(2), "fc.weight": bad, "fc.bias": bad}
    with pytest.raises(CheckpointError) as caught:
        float32_weights(FILE, tensors)
    assert str(caught.value).startswith(
        "net.pth: fc.weight has 2 NaN or infinite of 5 values, and 1 more tensors have some: "
    )


def test_a_float64_value_beyond_float32_is_refused() -> None:
    with pytest.raises(CheckpointError, match="w has 1 NaN or infinite of 1 values: "):
        float32_weights(FILE, {"w": torch.tensor([1e300], dtype=torch.float64)})


def test_a_negative_variance_is_refused() -> None:
    tensors = {"bn.running_mean": torch.tensor([-1.0]), "bn.running_var": torch.tensor([0.0])}
    assert float32_weights(FILE, tensors)[1] == ()
    tensors["bn.running_var"] = torch.tensor([-1e-6])
    with pytest.raises(CheckpointError, match=r"bn\.running_var has negative variances"):
        float32_weights(FILE, tensors)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.uint16])
def test_types_that_no_network_computes_in(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointError, match=f"w is of type {name}: save the weights in float32"):
        float32_weights(FILE, {"w": torch.ones(2).to(dtype)})


def test_complex_weights_stay_complex() -> None:
    values = torch.tensor([1.5 + 2j, -0.25])
    weights, notes = float32_weights(
        FILE, {"a": values.to(torch.complex64), "b": values.to(torch.complex128)}
    )
    assert {weight.dtype for weight in weights.values()} == {torch.complex64}
    assert all(torch.equal(weight, values.to(torch.complex64)) for weight in weights.values())
    assert notes == ("cast 1 tensors from complex128 to complex64",)
    with pytest.raises(CheckpointError, match="a has 1 NaN or infinite of 2 values"):
        float32_weights(FILE, {"a": torch.tensor([1j, complex(math.nan, 0)])})
