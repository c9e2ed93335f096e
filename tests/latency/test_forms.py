"""A network that is only timed is quantized by no images, into what a real one becomes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.latency.networks import SHAPE
from trpexport.artifact.passes import PRECISIONS
from trpexport.artifact.variants import BlankForm
from trpexport.errors import ModelError
from trpexport.latency.blanks import Blanks
from trpexport.latency.ways import Way
from trpexport.quantization.settings import QuantizationSettings
from trpexport.quantization.static import quantize_static

WAYS = {"first": Way("spatial", 4), "wide": Way("channel", 4)}


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_it_has_the_nodes_of_a_network_that_was_quantized_on_images(
    blanks: Blanks, tmp_path: Path
) -> None:
    file, real = tmp_path / "blank.onnx", tmp_path / "real.onnx"
    blanks.write(file, WAYS)
    images = np.random.default_rng(0).standard_normal((32, *SHAPE[1:])).astype(np.float32)
    quantize_static(file, real, QuantizationSettings(calibration={"input": images}))
    BlankForm("int8")(file)
    assert operators(file) == operators(real)
    assert operators(file)["QuantizeLinear"] > 0


@pytest.mark.parametrize("precision", sorted(PRECISIONS))
def test_nodes_keep_the_names_by_which_their_layers_are_told_or_it_is_refused(
    blanks: Blanks, tmp_path: Path, precision: str
) -> None:
    file = tmp_path / "blank.onnx"
    owners = blanks.write(file, WAYS)
    if not PRECISIONS[precision].keeps_names:
        with pytest.raises(ModelError, match=f"layers lose their names: .* as in fp32,{precision}"):
            BlankForm(precision)
        return
    BlankForm(precision)(file)
    assert owners.keys() <= {node.name for node in onnx.load(file).graph.node}
