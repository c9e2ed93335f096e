"""Files from Python in other precisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trpexport.api.networks import Images
    from trpexport.conversion import ConversionReport
    from trpexport.datasets import Preprocessing
    from trpexport.judge.metrics import Metric

Announce = Callable[[str], None]
_CALIBRATED = 512
_HELD_OUT = 256  # samples of an iterable besides


def quantize(
    model: str | Path,
    precisions: Sequence[str] = ("int8",),
    *,
    images: Images | None = None,
    count: int = _CALIBRATED,
    preprocessing: Preprocessing | None = None,
    max_error: float | None = None,
    data: Images | None = None,
    split: str = "test",
    limit: int | None = None,
    max_drop: float | None = None,
    metric: Metric | Callable[..., Any] | str | None = None,
    lower_is_better: bool = False,
    target_ort: str | None = None,
    check: bool = False,
    formats: Sequence[str] = (),
    provider: str = "cpu",
    out: str | Path | None = None,
    replace: bool = False,
    announce: Announce | None = None,
) -> ConversionReport:
    """Write a bundle or an ONNX file in other precisions, each verified against float32.

    Args:
        model: the bundle, to which they are added, or the file.
        precisions: ``"fp16"``, ``"bf16"``, ``"int8"``, ``"int8-dynamic"``.
        images: unlabelled images that int8 is calibrated on, as :func:`trpexport.decompose` takes
            them.
        count: how many of them.
        preprocessing: how images become input; None takes what the bundle says.
        max_error: largest error of any output, over its variation; None for any.
        data: labelled images, or raw tensors with targets, to tell a drop by.
        split: which of these images.
        limit: how many of these; None for all.
        max_drop: how much may be lost of ``metric``, in points of a share; None for any.
        metric: what a drop is of, as for :func:`trpexport.evaluate`; None for top-1.
        lower_is_better: of one's own metric, whether a smaller number is the better one.
        target_ort: the oldest version of ONNX Runtime that has to read the files, as in "1.16".
        check: run them in that version, which is installed for it.
        formats: ``"ort"`` for ONNX Runtime's own format besides.
        provider: who will run the files.
        out: of a bundle, where a copy with them goes; of a file, a file or a directory.
        replace: replace what stands there.
        announce: called with a line on each step.

    Raises:
        NothingToDoError: a limit can't be met; nothing is written.
        TrpexportError: the model, the images or the place can't be used.
    """
    from trpexport.artifact.build import ExportSettings
    from trpexport.calibration_data import CalibrationData
    from trpexport.conversion import Conversion, Labelled
    from trpexport.datasets.given import data_from
    from trpexport.judge.examples import find_judge, usual_metric
    from trpexport.stages import Stages

    calibration = labelled = None
    if images is not None:
        opened = data_from(images, limit=count + _HELD_OUT)
        calibration = CalibrationData(opened, count, preprocessing=preprocessing)
    if data is not None:
        judged = data_from(data, limit=limit)
        chosen = usual_metric(judged, metric)
        by = find_judge(judged.name, chosen, lower_is_better=lower_is_better)
        labelled = Labelled(judged, split, limit, preprocessing, by, max_drop)
    settings = ExportSettings(
        precisions=tuple(precisions),
        max_error=max_error,
        replace=replace,
        target_ort=target_ort,
        check_target=check,
        formats=formats,
        preprocessing=preprocessing,
    )
    job = Conversion(settings, calibration, labelled, provider)
    return job(Path(model), None if out is None else Path(out), Stages(announce))
