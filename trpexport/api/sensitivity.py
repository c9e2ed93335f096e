"""Which layer of a network costs what, from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trpexport.api.networks import Images
    from trpexport.choose.sensitivity import Sensitivity
    from trpexport.datasets import Preprocessing
    from trpexport.inputs import InputsLike

Announce = Callable[[str], None]
_CALIBRATED = 512
_HELD_OUT = 256  # samples of an iterable besides


def sensitivity(
    model: str | Path,
    images: Images,
    *,
    scheme: str = "spatial",
    target_macs: float | None = None,
    ratios: Sequence[float] = (0.75, 0.5, 0.25),
    precisions: Sequence[str] = (),
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    rank_multiple: int | str = "auto",
    count: int = _CALIBRATED,
    preprocessing: Preprocessing | None = None,
    cache: str | Path | None = None,
    inputs: InputsLike | None = None,
    arch: str | None = None,
    factory: str | None = None,
    announce: Announce | None = None,
) -> Sensitivity:
    """Return what each layer of a network loses if it alone is cut, the worst first.

    Args:
        model: the path of a checkpoint or of an ONNX file.
        images: unlabelled images to fit the factors to, as :func:`trpexport.decompose` takes them.
        scheme: what layers are written as; ``"auto"`` for the best of all, layer by layer.
        target_macs: share of the MACs that a budget leaves, to see each layer's cut within it;
            None for no budget.
        ratios: shares of a layer's MACs at which its loss is told.
        precisions: ``"int8"`` to quantize each layer alone as well.
        include: globs of the layers that may be cut; all where there are none.
        exclude: globs of layers that stay.
        rank_multiple: ranks are multiples of it; ``"auto"`` for the processor's.
        count: how many images.
        preprocessing: how images become input; as the checkpoint says where it is None.
        cache: folder where the table is kept, for a budget of the same scheme; None for nowhere.
        inputs: shapes of the inputs; as the checkpoint or the file says where it is None.
        arch: the checkpoint's architecture, where it can't be recognised.
        factory: ``package.module:factory`` that makes the checkpoint's network.
        announce: called with a line on each step.

    Raises:
        NothingToDoError: no layer gets cheaper, or the budget can't be met.
        TrpexportError: the network or the images can't be used.
    """
    from trpexport.api.tuning import source_of
    from trpexport.calibration_data import CalibrationData
    from trpexport.choose.sensitivity import SensitivityJob
    from trpexport.datasets.given import data_from
    from trpexport.inputs import Inputs
    from trpexport.sensing import sense
    from trpexport.stages import Stages

    known = None if inputs is None else Inputs.of(inputs)
    drawn = data_from(images, known, limit=count + _HELD_OUT)
    selection = {"include": include, "exclude": exclude, "rank_multiple": rank_multiple}
    return sense(
        source_of(model, inputs, arch, factory),
        SensitivityJob(scheme, tuple(ratios), target_macs, selection, cache),
        CalibrationData(drawn, count, preprocessing=preprocessing),
        precisions=precisions,
        stages=Stages(announce),
    )
