"""Networks are timed on real inputs, of whole shapes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.latency.networks import SHAPE, twins
from trpexport.errors import ModelError
from trpexport.inputs import Inputs
from trpexport.latency.stopwatch import Conditions, LocalStopwatch, Stopwatch
from trpexport.networks.onnx_settings import OnnxSettings


@pytest.mark.parametrize("batch", [None, 3])
def test_open_sizes_are_those_of_the_inputs(tmp_path: Path, batch: int | None) -> None:
    file = tmp_path / "open.onnx"
    settings = OnnxSettings(dynamic_batch=True, dynamic={"input": {2: "height", 3: "width"}})
    twins().write_onnx(file, settings)
    clock: Stopwatch = LocalStopwatch(Conditions(batch=batch))
    with pytest.raises(ModelError, match="has dynamic dimensions: give its shape"):
        clock.profiles([file], 2)
    sized = clock.at(Inputs.of({"input": SHAPE}))
    assert sized.conditions.shapes == {"input": (batch or SHAPE[0], *SHAPE[1:])}
    (profile,) = sized.profiles([file], 2)
    assert profile.nodes[0].seconds > 0
    assert all(one.seconds > 0 for one in sized.race([file, file], 0.01))
