"""Tune a network to two speed-ups, on a Ray cluster if there is one.

    python -m tests.tuned FOLDER OUT [ADDRESS]

The folder holds ``twins.onnx`` and ``inputs.npz``. What is kept goes beside OUT. Times are made up,
so that they are the same each time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from tests.choose.networks import smooth
from tests.latency.networks import SHAPE, FakeStopwatch, twins
from trpexport import pareto as module
from trpexport.artifact.settings import ExportSettings
from trpexport.calibration_data import CalibrationData
from trpexport.choose.by_latency import ByLatency
from trpexport.datasets import open_data
from trpexport.networks.onnx_settings import OnnxSettings
from trpexport.onnx_files import OnnxFileSource
from trpexport.stages import Stages
from trpexport.tuning import Tuning

SPEEDUPS = (1.2, 1.5)

Job = tuple[OnnxFileSource, CalibrationData]


def twins_in(folder: Path) -> Job:
    """Write the network with twin layers and inputs of it; return both."""
    twins().write_onnx(folder / "twins.onnx", OnnxSettings())
    np.savez(folder / "inputs.npz", input=smooth(40, SHAPE))
    data = CalibrationData(open_data(f"tensors:{folder / 'inputs.npz'}"))
    return OnnxFileSource(folder / "twins.onnx"), data


def main(folder: str, place: str, address: str | None = None) -> None:
    """Do so."""
    out = Path(place)
    chooser = ByLatency(
        scheme="channel", rank_multiple=4, cache=out.with_name("cache"), stopwatch=FakeStopwatch()
    )
    if address is not None:
        chooser = chooser.on_cluster(address, print)
    tuning = Tuning(chooser, ExportSettings(verify_seconds=0), device="cpu")
    data = CalibrationData(open_data(f"tensors:{folder}/inputs.npz"))
    vars(module)["_SPEEDUPS"] = SPEEDUPS
    found = module.pareto(
        tuning, OnnxFileSource(Path(folder) / "twins.onnx"), data, out, Stages(print)
    )
    assert [report.path for report in found[1]] == [out / f"{speedup:g}x" for speedup in SPEEDUPS]


if __name__ == "__main__":
    main(*sys.argv[1:])
