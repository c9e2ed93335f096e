"""Networks that fold, mix or fix their batch, from the rewrite to the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from torch import Tensor, nn

from tests.networks.torch.plain import FULL, SHAPE, Plain
from trpexport import bundle
from trpexport.artifact.build import ExportSettings
from trpexport.networks.torch.network import TorchNetwork
from trpexport.pipeline import decompose_network
from trpexport.runtime.verify import verify_bundle

MADE_FOR, MIXES = "is made for batches of", "depends on the others in its batch"


class OneImage(Plain):
    def end(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x.relu().reshape(1, 16, -1).mean(-1))
        return y


class FourImages(Plain):
    def end(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x.relu().reshape(4, 16, -1).mean(-1))
        return y


class TimeFirst(Plain):
    """As CRNN: (time, batch, classes)."""

    def end(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc(x.relu().mean(2).permute(2, 0, 1))
        return y


class Dueling(Plain):
    def end(self, x: Tensor) -> Tensor:
        y = super().end(x)
        return y - y.mean()


class Total(Plain):
    def end(self, x: Tensor) -> Tensor:
        return super().end(x).mean()


class Anchors(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x), self.fc.weight[None] * 1  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("kind", "batch", "says", "is_open"),
    [
        (OneImage, 1, MADE_FOR, False),
        (FourImages, 4, MADE_FOR, False),
        (TimeFirst, 1, MADE_FOR, False),
        (Total, 1, MADE_FOR, False),
        (Anchors, 1, MADE_FOR, False),
        (Dueling, 2, MIXES, True),
        (Plain, 1, None, True),
    ],
)
def test_a_batch_is_open_in_the_file_only_where_the_network_takes_any(
    tmp_path: Path, kind: Callable[[], nn.Module], batch: int, says: str | None, is_open: bool
) -> None:
    network = TorchNetwork.open(kind(), (batch, *SHAPE[1:]))
    settings = ExportSettings(
        dynamic_batch=True, legacy_exporter=True, simplify=False, verify_seconds=0
    )
    small = decompose_network(network, FULL)
    report = small.export(tmp_path / "out", settings=settings)
    notes = report.data["notes"]
    assert any(f"{says}" in note for note in notes) is (says is not None)
    assert any("the ONNX file takes batches of" in note for note in notes) is not is_open
    model = onnx.load(tmp_path / "out" / bundle.MODEL)
    dimension = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert dimension.HasField("dim_param") is is_open
    assert is_open or dimension.dim_value == batch
    assert verify_bundle(tmp_path / "out").is_equivalent
