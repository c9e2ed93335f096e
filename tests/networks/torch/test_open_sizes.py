"""Poolings that a file may leave the size open of: PyTorch's own numbers at every size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from onnxruntime import InferenceSession
from torch import nn

from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.networks.torch.open_sizes import size_free_forwards
from trpexport.networks.torch.to_onnx import to_onnx


@pytest.mark.parametrize(
    ("pool", "sizes"),
    [
        (nn.AdaptiveAvgPool1d(4), [(8,), (11,), (3,), (1,)]),
        (nn.AdaptiveAvgPool2d((4, 3)), [(8, 9), (7, 5), (2, 2), (13, 4)]),
        (nn.AdaptiveAvgPool2d((None, 3)), [(8, 9), (7, 5)]),
        (nn.AdaptiveAvgPool3d(2), [(2, 4, 6), (3, 5, 7)]),
    ],
)
def test_what_pytorch_computes(pool: nn.Module, sizes: list[tuple[int, ...]]) -> None:
    (forward,) = size_free_forwards(pool).values()
    torch.manual_seed(0)
    for size in sizes:
        for x in (torch.randn(2, 3, *size), torch.randn(3, *size)):
            torch.testing.assert_close(forward(x), pool(x))


def test_poolings_to_one_pixel_are_left_alone() -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool1d(1), nn.AvgPool2d(2))
    assert size_free_forwards(model) == {}


@pytest.mark.parametrize("legacy", [False, True])
def test_a_file_takes_other_sizes(tmp_path: Path, legacy: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.AdaptiveAvgPool2d((4, 3)), nn.Flatten(), nn.Linear(48, 5)
    ).eval()
    path = tmp_path / "model.onnx"
    settings = OnnxSettings(legacy_exporter=legacy, dynamic={"input": {2: "height", 3: "width"}})
    to_onnx(model, (1, 1, 16, 12), path, settings)
    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in ((16, 12), (32, 24), (9, 17)):
        x = torch.randn(1, 1, *size)
        with torch.no_grad():
            expected = model(x)
        (found,) = session.run(None, {"input": x.numpy()})
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert "forward" not in vars(model[1])
