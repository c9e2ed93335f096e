"""Files from Python in other precisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trpexport.conversion import ConversionReport
    from trpexport.datasets import Dataset, Preprocessing, TensorSet

Announce = Callable[[str], None]
_CALIBRATED = 512


def quantize(
    model: str | Path,
    precisions: Sequence[str] = ("int8",),
    *,
    images: Dataset | TensorSet | str | None = None,
    count: int = _CALIBRATED,
    preprocessing: Preprocessing | None = None,
    max_error: float | None = None,
    data: Dataset | str | None = None,
    split: str = "test",
    limit: int | None = None,
    max_drop: float | None = None,
    provider: str = "cpu",
    out: str | Path | None = None,
    replace: bool = False,
    announce: Announce | None = None,
) -> ConversionReport:
    """Write a bundle or an ONNX file in other precisions, each verified against float32.

    Args:
        model: the bundle, to which they are added, or the file.
        precisions: ``"fp16"``, ``"bf16"``, ``"int8"``, ``"int8-dynamic"``.
        images: unlabelled images that int8 is calibrated on, as in ``cifar10:DIR``.
        count: how many of them.
        preprocessing: how images become input; None takes what the bundle says.
        max_error: largest error of any output, over its variation; None for any.
        data: labelled images to tell the drop of top-1 by.
        split: which of these.
        limit: how many of these; None for all.
        max_drop: points of top-1 that may be lost; None for any.
        provider: who will run the files.
        out: of a bundle, where a copy with them goes; of a file, a file or a directory.
        replace: replace what stands there.
        announce: called with a line on each step.

    Raises:
        NothingToDoError: a limit can't be met; nothing is written.
        TrpexportError: the model, the images or the place can't be used.
    """
    from trpexport.artifact.build import ExportSettings
    from trpexport.conversion import Conversion, Labelled
    from trpexport.datasets import open_data, open_dataset
    from trpexport.judge.images import choose_images
    from trpexport.pipeline import CalibrationData
    from trpexport.stages import Stages

    calibration = labelled = None
    if images is not None:
        opened = open_data(images) if isinstance(images, str) else images
        calibration = CalibrationData(opened, count, preprocessing=preprocessing)
    if data is not None:
        judged = open_dataset(data) if isinstance(data, str) else data
        labelled = Labelled(choose_images(judged, split, limit), preprocessing, max_drop)
    settings = ExportSettings(precisions=tuple(precisions), max_error=max_error, replace=replace)
    job = Conversion(settings, calibration, labelled, provider)
    return job(Path(model), None if out is None else Path(out), Stages(announce))
