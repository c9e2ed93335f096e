"""Networks from Python that are fast where they will run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trpexport.api.networks import Images
    from trpexport.artifact.build import BundleReport, ExportSettings
    from trpexport.choose.by_latency import ByLatency
    from trpexport.datasets import Preprocessing
    from trpexport.inputs import InputsLike
    from trpexport.pipeline import Decomposable
    from trpexport.refining.refinement import Refinement

Announce = Callable[[str], None]
_CALIBRATED = 512
_HELD_OUT = 256  # samples of an iterable besides


def tune(
    model: str | Path,
    chooser: ByLatency,
    *,
    images: Images,
    data: Images | None = None,
    count: int = _CALIBRATED,
    preprocessing: Preprocessing | None = None,
    out: str | Path | None = None,
    settings: ExportSettings | None = None,
    outputs: Sequence[str] = (),
    inputs: InputsLike | None = None,
    arch: str | None = None,
    factory: str | None = None,
    refine: float | Refinement | None = None,
    precision: str = "fp32",
    device: str = "auto",
    ray: str | None = None,
    device_label: str | None = None,
    announce: Announce | None = None,
) -> BundleReport:
    """Write the fastest network found within a limit, measured beside the original.

    Args:
        model: the path of a checkpoint or of an ONNX file. A module goes to
            :func:`trpexport.decompose`, with the same chooser.
        chooser: the limit and the device: :class:`~trpexport.ByLatency`.
        images: unlabelled images to fit the factors to, as :func:`trpexport.decompose` takes them.
        data: labelled images that a drop is told by; None for those of ``images`` that nothing
            is fitted to.
        count: how many images to calibrate on.
        preprocessing: how images become input; as the checkpoint says where it is None.
        out: the bundle's directory; named after the file where it is None.
        settings: how it is exported.
        outputs: names of the outputs whose errors count, or globs of them, where not all do.
        inputs: shapes of the inputs; as the checkpoint or the file says where it is None.
        arch: the checkpoint's architecture, where it can't be recognised.
        factory: ``package.module:factory`` that makes the checkpoint's network.
        refine: minutes to train the fitted factors further, as for :func:`trpexport.decompose`; or
            a :class:`~trpexport.Refinement`.
        precision: in which ranks are to be fast, as in ``int8``: layers are timed in it, and the
            network is written in it as well. Errors and drops are those of the float32 file.
            ``"free"`` chooses float32 or int8 for each layer, and the limit is one on that network.
        device: where the factors are fitted, as for :func:`trpexport.decompose`; layers are timed
            where the chooser says.
        ray: address of a Ray cluster whose processors fit the factors of several candidates at
            once; ``"auto"`` for the one that runs here.
        device_label: Ray resource of the nodes of the cluster to time on; where the chooser says
            where it is None.
        announce: called with a line on each step.

    Returns:
        The report; ``data["latency"]`` says what was measured.

    Raises:
        NothingToDoError: the network can't be made faster, or the limit can't be met; nothing is
            written.
        TrpexportError: the network, the images or the place can't be used.
    """
    from trpexport.artifact.build import ExportSettings
    from trpexport.calibration_data import CalibrationData
    from trpexport.datasets.given import data_from
    from trpexport.inputs import Inputs
    from trpexport.refining.refinement import Refinement
    from trpexport.stages import Stages
    from trpexport.tuning import Tuning

    known = None if inputs is None else Inputs.of(inputs)
    drawn = data_from(images, known, limit=count + _HELD_OUT)
    judged = None if data is None else data_from(data, known)
    if ray is not None:
        say = announce or (lambda line: None)
        chooser, device = chooser.on_cluster(ray, say, device_label), "cpu"
    how = settings or ExportSettings()
    how = replace(how, preprocessing=how.preprocessing or preprocessing)
    refinement = Refinement(refine, device=device) if isinstance(refine, int | float) else refine
    job = Tuning(chooser, how, outputs, refinement=refinement, precision=precision, device=device)
    return job(
        source_of(model, inputs, arch, factory),
        CalibrationData(drawn, count, preprocessing=preprocessing, judged=judged),
        None if out is None else Path(out),
        Stages(announce),
    )


def source_of(
    model: str | Path, inputs: InputsLike | None, arch: str | None, factory: str | None
) -> Decomposable:
    """Say which checkpoint or ONNX file to read, and how."""
    from trpexport.onnx_files import OnnxFileSource
    from trpexport.onnxfile.recognition import is_onnx
    from trpexport.pipeline import Source

    path = Path(model)
    return OnnxFileSource(path, inputs) if is_onnx(path) else Source(path, arch, factory, inputs)
