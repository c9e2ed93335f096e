"""Outputs of all kinds have names, and ONNX files have the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trpexport.errors import ModelError
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.outputs import named_tensors
from trpexport.runtime.session import open_session


class Ends(nn.Module):
    def __init__(self, end: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.c, self.d = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.end = end

    def forward(self, x: Tensor) -> Any:
        return self.end(self.c(x), self.d(x))


KINDS: list[tuple[Callable[[Tensor, Tensor], Any], list[str]]] = [
    (lambda a, b: a, ["output"]),
    (lambda a, b: (a, b), ["output_0", "output_1"]),
    (lambda a, b: {"boxes": a, "scores": b}, ["boxes", "scores"]),
    (lambda a, b: {"input": a, "recon": b}, ["output_input", "recon"]),
    (lambda a, b: (a, [b, a + b]), ["output_0", "output_1_0", "output_1_1"]),
    (lambda a, b: {"out": a, "aux": None}, ["out"]),
    (lambda a, b: {"out": a, "more": (b, {"x": a - b})}, ["out", "more_0", "more_1_x"]),
    (lambda a, b: [None, a], ["output_1"]),
    (lambda a, b: a.argmax(1), ["output"]),
]


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(("end", "names"), KINDS)
def test_a_file_has_the_networks_outputs(
    end: Callable[[Tensor, Tensor], Any], names: list[str], legacy: bool, tmp_path: Path
) -> None:
    network = TorchNetwork(Ends(end).eval(), (2, 3, 8, 8))
    path = tmp_path / "model.onnx"
    network.write_onnx(path, OnnxSettings(legacy_exporter=legacy))
    feeds = {"input": np.random.default_rng(0).standard_normal((2, 3, 8, 8), dtype=np.float32)}
    expected, actual = network.run(feeds), open_session(path).run(feeds)
    assert list(expected) == list(actual) == names
    for name in names:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-4, atol=1e-5)
    assert "forward" not in vars(network.model)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ({"n": 5}, "returns no tensor"),
        (None, "returns no tensor"),
        ([], "returns no tensor"),
        ({"a": None}, "returns no tensor"),
        (3.0, "returns no tensor"),
    ],
)
def test_nothing_but_what_is_no_tensor_is_refused(output: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        named_tensors(output)
