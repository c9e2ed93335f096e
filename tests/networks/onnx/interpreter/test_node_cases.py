"""Operators against the onnx package's own cases: inputs and outputs that it wrote down."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from trpexport.errors import ModelError
from trpexport.networks.onnx.interpreter import unknown_operators
from trpexport.networks.onnx.module import OnnxModule

# What is refused with a reason: ONNX Runtime computes these.
REFUSED = ("numbers of type", "is in training mode", "are not computed", "is not computed")


@cache
def cases() -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return {case.name: case for case in collect_testcases(None)}


def tensors(values: Any) -> Iterator[np.ndarray[Any, Any]]:
    for value in values:
        yield value if isinstance(value, np.ndarray) else np.asarray(value)


def test_every_case_of_a_known_operator_gives_what_onnx_says() -> None:
    wrong, ran, refused = [], 0, 0
    import collections

    global C
    C = collections.Counter()
    for name, case in cases().items():
        model = ir.from_proto(case.model)
        if unknown_operators(model) or "random" in name or ("dropout" in name and "train" in name):
            continue
        try:
            module = OnnxModule(model, [])
            (inputs, outputs), *_ = case.data_sets
            given = [ir.tensor(x) for x in inputs] if False else inputs
            with torch.no_grad():
                found = list(module(*[as_tensor(x) for x in given]).values())
            for ours, theirs in zip(found, outputs):
                theirs = np.asarray(theirs)
                if theirs.dtype.kind not in "biuf":
                    theirs = theirs.astype("f")
                assert tuple(ours.shape) == theirs.shape, (tuple(ours.shape), theirs.shape)
                np.testing.assert_allclose(
                    ours.numpy().astype(np.float64),
                    theirs.astype(np.float64),
                    rtol=1e-2 if "bf" in name else 2e-3 if theirs.dtype == np.float16 else 1e-4,
                    atol=1e-4,
                )
            ran += 1
        except Exception as error:
            if isinstance(error, ModelError) and any(x in str(error) for x in REFUSED):
                refused += 1
                import collections

                C[str(error).split(": ")[-1][-90:]] += 1
                continue
            wrong.append((name, str(error).strip().replace("\n", " ")[:230]))
    for w in wrong:
        print(w)
    print(ran, refused, len(wrong))
    print(*C.most_common(), sep="\n")


def as_tensor(x):
    from trpexport.networks.onnx.program import tensor_of

    return tensor_of(ir.tensor(np.asarray(x)), "x")


test_every_case_of_a_known_operator_gives_what_onnx_says()
