"""A checkpoint file to a bundle in one go: what the commands ``decompose`` and ``export`` do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trpexport import bundle
from trpexport.checkpoints import Checkpoint, load_checkpoint
from trpexport.errors import CheckpointError, NothingToDoError
from trpexport.export.bundling import BundleReport, ExportSettings, export_bundle
from trpexport.lowrank.criteria import DEFAULT, parse_criterion
from trpexport.lowrank.factorize import factorize
from trpexport.lowrank.planner import Analysis, analyse, keep_all
from trpexport.lowrank.revision import revise_plan
from trpexport.lowrank.schemes import SCHEMES
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
        scheme: name of the scheme.
        criterion: ``NAME:VALUE``.
        plan: an edited plan file, which then decides instead of scheme and criterion.
        include: glob patterns; only layers that match one are rewritten.
        exclude: glob patterns of layers that stay.
        stride_1_only: leave strided convolutions as they are.
        keep_expensive: rewrite a layer even where that does not make it cheaper.
    """

    scheme: str = "spatial"
    criterion: str = DEFAULT
    plan: Path | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    stride_1_only: bool = False
    keep_expensive: bool = False

    def analyse(self, checkpoint: Checkpoint) -> Analysis:
        """Compute the spectra of a checkpoint's network."""
        assert checkpoint.input_shape is not None
        return analyse(
            checkpoint.module,
            input_shape=checkpoint.input_shape,
            scheme=self.scheme,
            include=self.include,
            exclude=self.exclude,
            stride_1_only=self.stride_1_only,
            architecture=checkpoint.label,
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

    Args:
        source: the checkpoint.
        decomposition: how to choose the layers and their ranks.
        out: the bundle's directory; a name after checkpoint and scheme where it is None.
        settings: how to export.
        inputs: real inputs to verify on.
        stages: times and announces the stages.

    Raises:
        NothingCheaperError: no layer would get cheaper; nothing is written.
        TrpexportError: as the steps themselves.
    """
    settings, stages = settings or ExportSettings(), stages or Stages()
    # What was typed wrong is said before any work is done.
    criterion, scheme = parse_criterion(decomposition.criterion), SCHEMES[decomposition.scheme]
    out = out or default_directory(source.path, scheme.name)
    bundle.check_target(out, replace=settings.replace)
    edited = read_plan(decomposition.plan) if decomposition.plan else None
    with stages("load the checkpoint"):
        checkpoint = source.load()
    if checkpoint.plan is not None:
        raise CheckpointError(
            f"{source.path} is decomposed already: trpexport export {source.path} makes a bundle"
        )
    analysis = None
    with stages("compute spectra"):
        if edited is not None:
            plan = revise_plan(
                checkpoint.module,
                edited,
                input_shape=source.input_shape,
                keep_expensive=decomposition.keep_expensive,
                source=str(decomposition.plan),
            )
        else:
            analysis = decomposition.analyse(checkpoint)
            plan = analysis.plan(criterion, keep_expensive=decomposition.keep_expensive)
    if not plan.rewritten:
        raise NothingCheaperError(
            f"no layer of {checkpoint.label} gets cheaper with {plan.scheme} and "
            f"{plan.criterion}: nothing was written",
            plan,
            analysis,
        )
    with stages("factorize"):
        factorized = factorize(checkpoint.module, plan)
    return export_bundle(
        factorized,
        plan,
        out,
        original=checkpoint.module,
        checkpoint=checkpoint,
        settings=settings,
        inputs=inputs,
        stages=stages,
    )


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
