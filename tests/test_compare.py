from __future__ import annotations

import json
import math
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trpexport.compare import Comparer, Comparison, Tolerance, compare_outputs, note_on_still
from trpexport.errors import ModelError

Array = np.ndarray[Any, np.dtype[Any]]


def compare(reference: Any, candidate: Any) -> Comparison:
    comparer = Comparer()
    comparer.update(np.asarray(reference), np.asarray(candidate))
    return comparer.result()


def test_values_by_hand() -> None:
    # differences 0, 0, 0, 1; RMS of the reference sqrt((9 + 16 + 0 + 25) / 4)
    result = compare([[3.0, 4.0], [0.0, 5.0]], [[3.0, 4.0], [0.0, 6.0]])
    rms = math.sqrt(50 / 4)
    assert result.inputs == 2
    assert result.max_error == pytest.approx(1 / rms)
    assert result.rms_error == pytest.approx(math.sqrt(1 / 4) / rms)
    assert result.cosine == pytest.approx((9 + 16 + 30) / math.sqrt(50 * (9 + 16 + 36)))
    assert result.top1_agreement == 1.0
    assert not result.is_equivalent()
    assert result.is_equivalent(Tolerance(max_error=0.3, rms_error=0.15))
    assert not result.is_equivalent(Tolerance(max_error=0.3, rms_error=0.14))
    assert not result.is_equivalent(Tolerance(max_error=0.2, rms_error=0.15))


@pytest.mark.parametrize(
    ("reference", "candidate", "error"),
    [
        # Off by 1 and 1; they vary by 1 and 1 around 102, 2 and 2 with another element.
        ([[101.0], [103.0]], [[102.0], [102.0]], 1.0),
        ([[101.0, 0.0], [103.0, 4.0]], [[101.0, 0.0], [103.0, 5.0]], (1 / 10) ** 0.5),
        ([[2.0], [2.0]], [[3.0], [3.0]], 0.5),  # nothing varies
        (4.0, 5.0, 0.25),
    ],
)
def test_error_over_the_variation(reference: Any, candidate: Any, error: float) -> None:
    assert compare(reference, candidate).variation_error == pytest.approx(error)


def test_error_over_the_variation_of_several_batches() -> None:
    comparer = Comparer()
    comparer.update(np.array([[101.0]]), np.array([[102.0]]))
    comparer.update(np.array([[103.0], [102.0]]), np.array([[102.0], [102.0]]))
    assert comparer.result().variation_error == pytest.approx(1.0)
    # Images are not along the first dimension: over the RMS then.
    comparer = Comparer()
    comparer.update(np.full((2, 1), 2.0), np.full((2, 1), 3.0))
    comparer.update(np.full((2, 3), 2.0), np.full((2, 3), 3.0))
    assert comparer.result().variation_error == pytest.approx(0.5)


def test_a_rounding_error_beside_zero_is_no_difference() -> None:
    # microsoft/onnxruntime#18946: an element that is off by 66 % at 4.8e-7
    reference = np.array([[7.2e-7, 1.0, -1.0]])
    assert compare(reference, reference + np.array([[4.8e-7, 0, 0]])).is_equivalent()


def test_top1_counts_rows() -> None:
    reference = [[1.0, 2.0], [2.0, 1.0], [0.0, 1.0]]
    assert compare(reference, [[1.0, 2.0], [1.0, 2.0], [0.0, 3.0]]).top1_agreement == 2 / 3


@pytest.mark.parametrize("shape", [(4,), (4, 1), (2, 2, 2), ()])
def test_top1_needs_a_matrix_of_scores(shape: tuple[int, ...]) -> None:
    result = compare(np.ones(shape), np.ones(shape))
    assert result.top1_agreement is None
    assert result.inputs == (shape[0] if shape else 1)
    assert "top-1" not in str(result)


def test_an_output_of_zeros() -> None:
    zeros, off = np.zeros((1, 2)), np.array([[0.0, 1e-30]])
    same, other = compare(zeros, zeros), compare(zeros, off)
    assert (same.max_error, same.rms_error, same.cosine) == (0.0, 0.0, 1.0)
    assert same.is_equivalent()
    assert (other.max_error, other.rms_error, other.cosine) == (math.inf, math.inf, 0.0)
    assert not other.is_equivalent(Tolerance(1e300, 1e300))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["reference", "candidate", "both"])
@pytest.mark.parametrize("later", [False, True])
def test_what_is_not_finite_never_looks_like_agreement(bad: float, where: str, later: bool) -> None:
    sound, broken = np.ones((1, 3)), np.array([[1.0, bad, 1.0]])
    comparer = Comparer()
    comparer.update(
        sound if where == "candidate" else broken, sound if where == "reference" else broken
    )
    if later:
        comparer.update(sound, sound)
    result = comparer.result()
    assert not result.is_equivalent(Tolerance(math.inf, 1e300))
    assert result.max_error == result.rms_error == math.inf
    assert math.isnan(result.cosine)
    assert result.top1_agreement == (0.5 if later else 0.0)
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))["max_error"] is None


def test_values_too_large_to_square_never_look_like_agreement() -> None:
    assert not compare([[1e200, 1.0]], [[1e200, 2.0]]).is_equivalent()


@given(
    arrays.arrays(np.float32, (6, 4), elements=st.floats(-1e3, 1e3, width=32)),
    arrays.arrays(np.float32, (6, 4), elements=st.floats(-1e3, 1e3, width=32)),
    st.lists(st.integers(1, 5), max_size=3).map(sorted),
)
def test_batches_give_the_same_as_the_whole(a: Array, b: Array, cuts: list[int]) -> None:
    comparer = Comparer()
    for part_a, part_b in zip(np.split(a, cuts), np.split(b, cuts), strict=True):
        comparer.update(part_a, part_b)
    whole, streamed = (
        [value for value in astuple(found) if value is not None]
        for found in (compare(a, b), comparer.result())
    )
    assert streamed == pytest.approx(whole, rel=1e-9, abs=1e-12)


@given(arrays.arrays(np.float32, (2, 3), elements=st.floats(-1e3, 1e3, width=32)))
def test_an_array_agrees_with_itself(a: Array) -> None:
    result = compare(a, a)
    assert result.is_equivalent(Tolerance(0, 0))
    assert result.cosine == pytest.approx(1)


def test_one_line_of_text_and_json() -> None:
    result = compare([[0.0, 1.0]], [[0.0, 1.0]])
    assert str(result) == (
        "max error 0, RMS error 0 of the output's RMS, cosine 1.0000000, "
        "top-1 agreement 100.00%, 1 input"
    )
    assert result.to_json() == {
        "inputs": 1,
        "max_error": 0.0,
        "rms_error": 0.0,
        "cosine": 1.0,
        "top1_agreement": 1.0,
        "agreement": None,
        "variation_error": 0.0,
        "varies": None,
    }


@pytest.mark.parametrize(
    ("batches", "varies"),
    [
        ([[[1.0, 2.0], [1.0, 2.0]], [[1.0, 2.0]]], False),
        ([[[1.0, 2.0], [1.0, 2.0]], [[1.0, 3.0]]], True),  # the last batch alone differs
        ([[[1.0], [2.0]], [[1.0], [2.0]]], True),
        ([[[0.0]], [[0.0]]], False),
        ([[[0.0]]], None),  # one image
        ([0.5, 0.5], False),
        ([[[1.0], [1.0]], [[1.0, 2.0]]], False),  # of another size
        ([[[1], [1]]], None),  # classes may well be the same
    ],
)
def test_outputs_that_never_vary(batches: list[Any], varies: bool | None) -> None:
    comparer = Comparer()
    for batch in batches:
        comparer.update(np.array(batch), np.array(batch))
    assert comparer.result().varies is varies


def test_what_is_said_of_them() -> None:
    same, other = np.ones((3, 2)), np.eye(3)
    found = compare_outputs([({"a": same, "b": other, "c": same},) * 2])
    assert str(note_on_still(found, "random inputs")).startswith(
        "a, c do not vary over random inputs, so comparing it says little"
    )
    assert note_on_still({"b": found["b"]}, "random inputs") is None


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (np.ones((2, 3)), np.ones((2, 1))),  # would broadcast
        (np.ones((2, 3)), np.ones((2, 3), np.int64)),
    ],
)
def test_what_can_not_be_compared_is_refused(reference: Array, candidate: Array) -> None:
    with pytest.raises(ModelError, match="can't be compared: float64"):
        compare(reference, candidate)


def test_comparing_nothing_is_an_error() -> None:
    with pytest.raises(ModelError, match="nothing was compared"):
        Comparer().result()
    with pytest.raises(ModelError, match="nothing was compared"):
        compare(np.ones((0, 3)), np.ones((0, 3)))
    with pytest.raises(ModelError, match="nothing was compared"):
        compare_outputs([])


def test_outputs_are_compared_by_name() -> None:
    ones, twos = np.ones((1, 2)), np.full((1, 2), 2.0)
    result = compare_outputs([({"a": ones, "b": twos}, {"b": twos, "a": twos})] * 3)
    assert list(result) == ["a", "b"]
    assert result["a"].max_error == 1.0
    assert result["b"].max_error == 0.0
    assert result["b"].inputs == 3
    with pytest.raises(ModelError, match="can't be compared: a and b"):
        compare_outputs([({"a": ones}, {"b": ones})])


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_whole_numbers_go_by_how_many_are_equal(dtype: type) -> None:
    truth: Array = np.zeros(2000, dtype)
    wrong = truth.copy()
    wrong[:2] = 1
    result = compare(truth, wrong)
    assert result.agreement == 0.999
    assert result.is_equivalent()
    assert "99.90% of the values agree" in str(result)
    wrong[2] = 1
    assert not compare(truth, wrong).is_equivalent()
    assert compare(truth, wrong).is_equivalent(Tolerance.of(0.002))


def test_places_of_maxima_far_apart_are_as_wrong_as_near_ones() -> None:
    near, far = (compare(np.array([500]), np.array([other])) for other in (501, 3))
    assert near.agreement == far.agreement == 0
    assert not near.is_equivalent()


def test_a_tolerance_of_one_number_keeps_the_proportions() -> None:
    assert Tolerance.of(1e-3) == Tolerance()


def test_single_differences_are_held_against_values_far_above_the_rms() -> None:
    # A softmax that is sure of one of 10,000 classes: RMS 0.01, of which 2e-5 is 2e-3.
    reference = np.zeros((1, 10_000), dtype=np.float32)
    reference[0, 7] = 1.0
    candidate = reference.copy()
    candidate[0, 7] -= 2e-5
    candidate[0, 8] += 2e-5
    found = compare_outputs([({"p": reference}, {"p": candidate})])["p"]
    assert found.max_error == pytest.approx(2e-5 / 0.1, rel=1e-2)
    assert found.rms_error == pytest.approx(2e-5 * 2**0.5, rel=1e-2)
    assert found.is_equivalent()
    candidate[0, 7] -= 2e-4
    assert not compare_outputs([({"p": reference}, {"p": candidate})])["p"].is_equivalent()
