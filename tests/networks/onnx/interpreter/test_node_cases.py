"""Operators against the onnx package's own cases, with the outputs that it wrote down."""

from __future__ import annotations

import warnings
from collections import defaultdict
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray

from trpexport.errors import ModelError
from trpexport.networks.onnx.interpreter import OPERATORS, unknown_operators
from trpexport.networks.onnx.module import OnnxModule
from trpexport.networks.onnx.program import tensor_of

# Collecting the cases takes 20 s.
pytestmark = pytest.mark.slow

# How an operator says that it leaves a case to ONNX Runtime.
LEFT_OUT = ("not computed", "in training mode", "is not known")
# The case takes 2.4 for the length of two pixels; the specification's words and ONNX Runtime don't.
DISPUTED = {
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
}
# Beside ours: they draw random numbers.
RANDOM = ("training_dropout", "dropout_default_mask_ratio", "train")

Cases = dict[tuple[str, str], list[Any]]


@pytest.fixture(scope="module")
def cases() -> Cases:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found: Cases = defaultdict(list)
        for case in collect_testcases(None):
            assert case.model is not None
            model = ir.from_proto(case.model)
            is_known = not unknown_operators(model) and case.name not in DISPUTED
            if is_known and not any(word in case.name for word in RANDOM):
                first = next(iter(model.graph))
                found[first.domain, first.op_type].append((case, model))
        return found


def numbers(value: Any) -> NDArray[Any]:
    array = value if isinstance(value, np.ndarray) else np.asarray(value)
    return array if array.dtype.kind in "biuf" else array.astype(np.float32)


def tolerance(dtype: np.dtype[Any]) -> float:
    return {ml_dtypes.bfloat16: 1e-2, np.float16: 2e-3}.get(dtype.type, 1e-4)


@pytest.mark.parametrize("operator", sorted(OPERATORS), ids=".".join)
def test_an_operator_gives_what_onnx_wrote_down(cases: Cases, operator: tuple[str, str]) -> None:
    for case, model in cases[operator]:
        (inputs, outputs), *_ = case.data_sets
        try:
            module = OnnxModule(model, [])
            with torch.no_grad():
                found = module(*(tensor_of(ir.tensor(np.asarray(x)), "x") for x in inputs))
        except ModelError as error:
            assert any(words in str(error) for words in LEFT_OUT), (case.name, str(error))
            continue
        for ours, theirs in zip(found.values(), outputs, strict=True):
            if not isinstance(theirs, np.ndarray | np.generic | float | int):
                continue  # a number of four bits
            assert tuple(ours.shape) == np.shape(theirs), case.name
            near = tolerance(np.asarray(theirs).dtype)
            wanted = numbers(theirs).astype(np.float64)
            np.testing.assert_allclose(
                ours.double().numpy(), wanted, rtol=near, atol=near, err_msg=case.name
            )


def test_enough_cases_are_run(cases: Cases) -> None:
    assert len(cases) > 100
    assert sum(map(len, cases.values())) > 1200
