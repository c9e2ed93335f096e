"""A checkpoint file to a bundle in one go: what the commands ``decompose`` and ``export`` do."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trpexport import bundle
from trpexport.artifact.build import BundleReport, ExportSettings, export_bundle
from trpexport.checkpoints import Checkpoint, load_checkpoint
from trpexport.choose.calibrating import CalibrationSettings, Calibrator, Target
from trpexport.choose.planner import Analysis, analyse, keep_all
from trpexport.choose.revision import revise_plan
from trpexport.errors import CheckpointError, NothingToDoError, PlanError
from trpexport.lowrank.criteria import DEFAULT, parse_criterion
from trpexport.lowrank.schemes import SCHEMES
from trpexport.networks.torch.factorize import factorize, is_calibrated
from trpexport.plan import Plan, read_plan
from trpexport.stages import Stages


@dataclass(frozen=True)
class Source:
    """A checkpoint file and how to read it; the arguments of :func:`load_checkpoint`."""

    path: Path
    arch: str | None = None
    model: str | None = None
    input_shape: Sequence[int] | None = None
    unsafe_pickle: bool = False

    def load(self) -> Checkpoint:
        """Read it; the input's shape must be known from here on.

        Raises:
            CheckpointError: as :func:`load_checkpoint`, or nobody says the input's shape.
        """
        checkpoint = load_checkpoint(
            self.path,
            arch=self.arch,
            model=self.model,
            input_shape=self.input_shape,
            unsafe_pickle=self.unsafe_pickle,
        )
        if checkpoint.input_shape is None:
            raise CheckpointError(
                f"{self.path} does not say which input {checkpoint.label} takes: "
                "give it, as in --input-shape 1x3x224x224"
            )
        return checkpoint


@dataclass(frozen=True)
class Decomposition:
    """How to choose the layers and their ranks.

    Attributes:
        scheme: name of the scheme; ``auto``, which needs a target, chooses for each layer.
        criterion: ``NAME:VALUE``; the default one where it is None and there is no target.
        plan: an edited plan file, which then decides instead of scheme and criterion.
        include: glob patterns; only layers that match one are rewritten.
        exclude: glob patterns of layers that stay.
        stride_1_only: leave strided convolutions as they are.
        keep_expensive: rewrite a layer even where that does not make it cheaper.
        calibration: images to fit the factors to, and a target for the ranks; None for plain SVD.
    """

    scheme: str = "spatial"
    criterion: str | None = None
    plan: Path | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    stride_1_only: bool = False
    keep_expensive: bool = False
    calibration: CalibrationSettings | None = None

    @property
    def target(self) -> Target | None:
        """What ranks are chosen for, instead of by a criterion."""
        return None if self.calibration is None else self.calibration.target

    @property
    def options(self) -> dict[str, Any]:
        """The switches that choose the layers."""
        return {
            "include": list(self.include),
            "exclude": list(self.exclude),
            "stride_1_only": self.stride_1_only,
        }

    def check(self) -> None:
        """Refuse what can't be before any work is done.

        Raises:
            TrpexportError: the scheme or the criterion is unknown, or parts exclude each other.
        """
        parse_criterion(self.criterion or DEFAULT)
        if self.scheme != "auto":
            _ = SCHEMES[self.scheme]
        if self.target is not None:
            for name, given in (
                ("--criterion", self.criterion is not None),
                ("--plan", self.plan is not None),
                ("--keep-expensive", self.keep_expensive),
            ):
                if given:
                    raise PlanError(f"{name} and a target exclude each other: give one of them")
        elif self.scheme == "auto" and self.plan is None:
            raise PlanError(
                "--scheme auto chooses by output error: give images and a target, as in "
                "--calib cifar10:DIR --target-macs 0.5"
            )

    def analyse(self, checkpoint: Checkpoint) -> Analysis:
        """Compute the spectra of a checkpoint's network."""
        assert checkpoint.input_shape is not None
        return analyse(
            checkpoint.module,
            input_shape=checkpoint.input_shape,
            scheme=self.scheme,
            architecture=checkpoint.label,
            **self.options,
        )


class NothingCheaperError(NothingToDoError):
    """No layer would get cheaper; ``analysis`` knows which criterion would do.

    Attributes:
        analysis: the spectra; None where a plan file chose the ranks.
        plan: the plan that rewrites nothing.
    """

    def __init__(self, message: str, plan: Plan, analysis: Analysis | None) -> None:
        super().__init__(message)
        self.plan = plan
        self.analysis = analysis


def decompose_checkpoint(
    source: Source,
    decomposition: Decomposition,
    out: Path | None = None,
    *,
    settings: ExportSettings | None = None,
    inputs: NDArray[np.floating[Any]] | None = None,
    stages: Stages | None = None,
) -> BundleReport:
    """Load a checkpoint, decompose, verify, export: all of it or nothing.

    A calibrated network is verified on images of the same data set that it was not calibrated on.

    Args:
        source: the checkpoint.
        decomposition: how to choose the layers and their ranks.
        out: the bundle's directory; a name after checkpoint and scheme where it is None.
        settings: how to export.
        inputs: real inputs to verify on.
        stages: times and announces the stages.

    Raises:
        NothingCheaperError: no layer would get cheaper; nothing is written.
        NothingToDoError: a target can't be met; nothing is written.
        TrpexportError: as the steps themselves.
    """
    settings, stages = settings or ExportSettings(), stages or Stages()
    # What was typed wrong is said before any work is done.
    decomposition.check()
    out = out or default_directory(source.path, decomposition.scheme)
    bundle.check_target(out, replace=settings.replace)
    edited = read_plan(decomposition.plan) if decomposition.plan else None
    with stages("load the checkpoint"):
        checkpoint = source.load()
    if checkpoint.plan is not None:
        raise CheckpointError(
            f"{source.path} is decomposed already: trpexport export {source.path} makes a bundle"
        )
    maker = _Maker(decomposition, checkpoint, edited, source.input_shape, stages)
    calibration = decomposition.calibration
    made = maker.truncated() if calibration is None else maker.calibrated(calibration)
    return export_bundle(
        made.network,
        made.plan,
        out,
        original=checkpoint.module,
        checkpoint=made.checkpoint,
        settings=settings,
        inputs=made.inputs() if inputs is None else inputs,
        notes=made.notes,
        stages=stages,
    )


@dataclass(frozen=True)
class _Made:
    """A factorized network on its way into a bundle.

    Attributes:
        network: the network.
        plan: its plan.
        checkpoint: where it comes from, and how images become its input if that is known by now.
        notes: what the reader of the report should know; complete once ``inputs`` was called.
        inputs: reads real inputs to verify on, or None.
    """

    network: nn.Module
    plan: Plan
    checkpoint: Checkpoint
    notes: Sequence[str]
    inputs: Callable[[], NDArray[np.float32] | None]


@dataclass(frozen=True)
class _Maker:
    """Decomposes a checkpoint.

    Attributes:
        decomposition: how to choose the layers and their ranks.
        checkpoint: the network.
        edited: the plan that ``decomposition`` names, if it does.
        input_shape: as it was typed; None to take what the checkpoint says.
        stages: times and announces the stages.
    """

    decomposition: Decomposition
    checkpoint: Checkpoint
    edited: Plan | None
    input_shape: Sequence[int] | None
    stages: Stages

    def truncated(self) -> _Made:
        """Decompose by the weights' singular values alone."""
        plan = self._plan()
        notes = []
        if self.edited is not None and is_calibrated(self.edited):
            notes.append(
                f"{self.decomposition.plan} is of a calibrated network, these factors are plain "
                "SVD: give --calib to calibrate them again"
            )
        with self.stages("factorize"):
            network = factorize(self.checkpoint.module, plan)
        return _Made(network, plan, self.checkpoint, notes, lambda: None)

    def calibrated(self, settings: CalibrationSettings) -> _Made:
        """Decompose by the outputs on calibration images."""
        if settings.target is None:
            plan = self._plan()
            calibrator = Calibrator(settings, self.checkpoint, plan.input_shape, self.stages)
            found = calibrator.keep_ranks(plan)
        else:
            shape = self.checkpoint.input_shape
            assert shape is not None
            calibrator = Calibrator(settings, self.checkpoint, shape, self.stages)
            found = calibrator.meet(
                settings.target, self.decomposition.scheme, self.decomposition.options
            )
        return _Made(
            found.network,
            found.plan,
            calibrator.checkpoint,
            calibrator.notes,
            calibrator.inputs,
        )

    def _plan(self) -> Plan:
        """Return the plan that the edited one or the criterion makes.

        Raises:
            NothingCheaperError: it rewrites nothing.
            TrpexportError: as :func:`revise_plan` and :func:`analyse`.
        """
        wanted, analysis = self.decomposition, None
        with self.stages("compute spectra"):
            if self.edited is not None:
                plan = revise_plan(
                    self.checkpoint.module,
                    self.edited,
                    input_shape=self.input_shape,
                    keep_expensive=wanted.keep_expensive,
                    source=str(wanted.plan),
                )
            else:
                analysis = wanted.analyse(self.checkpoint)
                criterion = parse_criterion(wanted.criterion or DEFAULT)
                plan = analysis.plan(criterion, keep_expensive=wanted.keep_expensive)
        if not plan.rewritten:
            raise NothingCheaperError(
                f"no layer of {self.checkpoint.label} gets cheaper with {plan.scheme} and "
                f"{plan.criterion}: nothing was written",
                plan,
                analysis,
            )
        return plan


def export_checkpoint(
    source: Source,
    out: Path | None = None,
    *,
    settings: ExportSettings | None = None,
    inputs: NDArray[np.floating[Any]] | None = None,
    stages: Stages | None = None,
) -> BundleReport:
    """Load a checkpoint, export it as it is, verify: all of it or nothing.

    Raises:
        TrpexportError: as the steps themselves.
    """
    settings, stages = settings or ExportSettings(), stages or Stages()
    out = out or default_directory(source.path, "onnx")
    bundle.check_target(out, replace=settings.replace)
    with stages("load the checkpoint"):
        checkpoint = source.load()
    assert checkpoint.input_shape is not None
    plan = checkpoint.plan or keep_all(
        checkpoint.module, input_shape=checkpoint.input_shape, architecture=checkpoint.label
    )
    return export_bundle(
        checkpoint.module,
        plan,
        out,
        checkpoint=checkpoint,
        settings=settings,
        inputs=inputs,
        stages=stages,
    )


def default_directory(checkpoint: Path, suffix: str) -> Path:
    """Return where a bundle goes that was given no place: here, named after its checkpoint."""
    stem = re.sub(r"(\.(pth|pt|th|tar|ckpt|bin|safetensors))+$", "", checkpoint.name)
    return Path(f"{stem}-{suffix}")
