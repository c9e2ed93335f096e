"""Open, choose, rewrite, build: a checkpoint to a decomposed network, and to a bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Generic, Protocol

from torch import nn
from typing_extensions import TypeVar

from trpexport import bundle
from trpexport.artifact.build import BundleReport, ExportSettings, export_bundle
from trpexport.artifact.reference import ReferenceRuns
from trpexport.artifact.verification import FactorizationCheck, verify_factorization
from trpexport.calibration_data import CalibrationData, check_images
from trpexport.checkpoints import Checkpoint, examined, load_checkpoint
from trpexport.choose.base import CalibrationImages, Chooser, Ready
from trpexport.choose.by_criterion import ByCriterion
from trpexport.choose.on_device import OnDevice
from trpexport.errors import CheckpointError, NothingToDoError
from trpexport.expectations import Expectation
from trpexport.inputs import Inputs, InputsLike
from trpexport.networks.base import Network, Origin
from trpexport.networks.torch.devices import AUTO, device_named
from trpexport.networks.torch.network import TorchNetwork
from trpexport.networks.torch.running import one_thread
from trpexport.plan import Plan
from trpexport.refining.refinement import Refinement
from trpexport.shown import Shown
from trpexport.stages import Stages
from trpexport.tensors import Array, Arrays
from trpexport.timestamps import timestamp


@dataclass(frozen=True)
class Source:
    """A checkpoint file and how to read it; the arguments of :func:`load_checkpoint`.

    Attributes:
        expect: images whose classes it should tell; None for no such check.
    """

    path: Path
    arch: str | None = None
    model: str | None = None
    inputs: InputsLike | None = None
    unsafe_pickle: bool = False
    expect: Expectation | None = None

    def load(self, *, examine: bool = True) -> Checkpoint:
        """Read it; the input's shape must be known from here on.

        Args:
            examine: look at what its batch norms recorded, as :func:`load_checkpoint` does.

        Raises:
            CheckpointError: as :func:`load_checkpoint`, or nobody says the input's shape.
        """
        checkpoint = load_checkpoint(
            self.path,
            arch=self.arch,
            model=self.model,
            inputs=self.inputs,
            unsafe_pickle=self.unsafe_pickle,
            examine=examine and self.expect is None,
        )
        assert checkpoint.known_inputs
        return checkpoint if self.expect is None else self.expect.checked(checkpoint)

    def open(self, stages: Stages) -> tuple[Checkpoint, TorchNetwork]:
        """Read it; return where its network comes from, and that.

        Raises:
            CheckpointError: as :meth:`load`.
        """
        with stages("load the checkpoint"):
            checkpoint = self.load()
        return checkpoint, TorchNetwork.open(checkpoint.module, checkpoint.known_inputs)

    def ready(
        self,
        data: CalibrationData | CalibrationImages | None,
        *,
        inputs: Inputs | None = None,
        outputs: Sequence[str] = (),
        stages: Stages,
    ) -> Ready[TorchNetwork, Checkpoint]:
        """Read it, and the images that its network is calibrated on.

        Raises:
            CheckpointError: as :meth:`load`, or it is decomposed already.
            TrpexportError: the images can't be used.
        """
        with stages("load the checkpoint"):
            checkpoint = self.load(examine=data is None)
        if checkpoint.plan is not None:
            raise CheckpointError(
                f"{self.path} is decomposed already: trpexport export {self.path} makes a bundle"
            )
        inputs = Inputs.of(self.inputs or inputs or checkpoint.known_inputs)
        images = None if isinstance(data, CalibrationData) else data
        if isinstance(data, CalibrationData):
            with stages("read calibration images"):
                images, facts = data.read_for(checkpoint, inputs)
            checkpoint = replace(checkpoint, metadata={**checkpoint.metadata, **facts})
        if images is not None and self.expect is None:
            checkpoint = examined(checkpoint, images.inputs)
        network = TorchNetwork.open(checkpoint.module, inputs, outputs)
        checkpoint = replace(checkpoint, module=network.model)  # one copy of it is enough
        return Ready(network, images, checkpoint, checkpoint.label)

    def decompose(
        self,
        chooser: Chooser,
        data: CalibrationData | CalibrationImages | None = None,
        *,
        outputs: Sequence[str] = (),
        refinement: Refinement | None = None,
        device: str = AUTO,
        stages: Stages | None = None,
    ) -> Decomposed[TorchNetwork]:
        """Decompose its network, as :func:`decompose_checkpoint`."""
        return decompose_checkpoint(
            self, chooser, data, outputs=outputs, refinement=refinement, device=device,
            stages=stages,
        )  # fmt: skip


N_co = TypeVar("N_co", bound=Network, covariant=True, default=TorchNetwork)
N = TypeVar("N", bound=Network)


class Decomposable(Protocol):
    """A file whose network can be decomposed."""

    @property
    def path(self) -> Path:
        """The file."""

    def open(self, stages: Stages) -> tuple[Origin, Network]:
        """Read it, as :meth:`Source.open`."""

    def ready(
        self,
        data: CalibrationData | CalibrationImages | None,
        *,
        inputs: Inputs | None = None,
        outputs: Sequence[str] = (),
        stages: Stages,
    ) -> Ready[Network]:
        """Read it and the images, as :meth:`Source.ready`."""

    def decompose(
        self,
        chooser: Chooser,
        data: CalibrationData | CalibrationImages | None = None,
        *,
        outputs: Sequence[str] = (),
        refinement: Refinement | None = None,
        device: str = AUTO,
        stages: Stages | None = None,
    ) -> Decomposed[Network]:
        """Read it and decompose its network, as :meth:`Source.decompose`."""


@dataclass(frozen=True, repr=False)
class Decomposed(Generic[N_co], Shown):
    """A decomposed network.

    Attributes:
        network: the network, chains in the place of layers.
        original: the network before.
        plan: what happened to each layer.
        notes: what the reader of a report should know.
        images: what it was calibrated on; None for the SVD's factors.
        source: where it comes from; None for a module.
    """

    network: N_co
    original: N_co
    plan: Plan
    notes: tuple[str, ...] = ()
    images: CalibrationImages | None = None
    source: Origin | None = None

    @cached_property
    def module(self) -> nn.Module:
        """The decomposed network as a module of one's own, in the precision that it came in.

        What is done to it, training say, is not done to :attr:`network`, which is what is exported.

        Raises:
            PlanError: it is no network of PyTorch.
        """
        return self.network.as_module()

    def verify(self, *, seconds: float = 5.0) -> FactorizationCheck:
        """Compare it with the dense network that its factors stand for, and with the original.

        Args:
            seconds: how long whole networks are compared.

        Raises:
            VerificationError: a layer or the network is not what its factors stand for.
        """
        network, plan = self.network, self.plan
        inputs = None if self.images is None else self.images.unseen()
        runs = ReferenceRuns.of(network, plan.inputs, plan.macs_after, inputs, network.dtype)
        return verify_factorization(self.original, network, plan, runs, seconds=seconds)

    def export(
        self,
        out: str | Path,
        *,
        settings: ExportSettings | None = None,
        inputs: Array | Arrays | CalibrationData | None = None,
        baseline: Mapping[str, bytes] | None = None,
        stages: Stages | None = None,
    ) -> BundleReport:
        """Verify it, write it as ONNX, verify that: a whole bundle or nothing.

        A calibrated network is verified on images that it was not calibrated on, if there are any;
        one with layers in int8 by its plan is written so as well.

        Args:
            out: the bundle's directory.
            settings: how to export.
            inputs: real inputs to verify on.
            baseline: the original network's files, as :func:`export_bundle` takes them.
            stages: times and announces the stages.

        Raises:
            VerificationError: the rewrite or the ONNX file is not equivalent.
            TrpexportError: as :func:`trpexport.artifact.build.export_bundle`.
        """
        notes, settings = self.notes, settings or ExportSettings()
        if isinstance(inputs, CalibrationData):
            inputs = inputs.inputs_for(self.source, self.network.inputs)
        if inputs is None and self.images is not None:
            known = len(self.images.notes)
            inputs = self.images.unseen()
            notes = (*notes, *self.images.notes[known:])
        settings = settings.also_in(chosen := {} if self.images is None else self.plan.precisions)
        return export_bundle(
            self.network, self.plan, out, original=self.original, source=self.source,
            settings=settings, inputs=inputs, notes=notes, stages=stages, baseline=baseline,
            quantization=settings.quantization(self.images, self.network.inputs, chosen),
        )  # fmt: skip

    def shown(self) -> dict[str, object]:
        """Return what to show of it in a session."""
        return self.plan.shown()


def decompose_network(
    network: N,
    chooser: Chooser,
    images: CalibrationImages | None = None,
    *,
    label: str | None = None,
    source: Origin | None = None,
    refinement: Refinement | None = None,
    device: str = AUTO,
    stages: Stages | None = None,
) -> Decomposed[N]:
    """Choose what becomes of each layer of a network, and rewrite it.

    Args:
        network: the network.
        chooser: chooses schemes and ranks.
        images: what to calibrate on; None for the SVD's factors.
        label: what the network is called, for the reader of the plan.
        source: where it comes from.
        refinement: trains the calibrated factors further; None to leave them.
        device: where it is calibrated, as :class:`OnDevice` has it; its factors come back.
        stages: times and announces the stages.

    Raises:
        NothingToDoError: no layer would get cheaper, or what was asked for can't be met.
        ModelError: the network gives NaN for the images, or something else each time.
        TrpexportError: as the chooser.
    """
    stages = stages or Stages()
    if images is not None:  # a fit to what is random, or no number, would be found out too late
        check_images(network, images)
    with one_thread() if images is None else nullcontext():  # calibration takes what there is
        if refinement is not None:
            refinement.check_network(network, images)
        try:
            choice = OnDevice(chooser, device)(network, images, stages, label)
        except NothingToDoError as error:
            error.architecture = label
            raise
        # After an interrupt what was found is all that is wanted.
        if refinement is not None and images is not None and not stages.is_cut_short:
            choice = refinement(network, choice, images, stages)
        small = network.rewritten(choice.chains)
    notes = choice.notes
    if network.outputs and images is not None:
        notes = (*notes, f"errors are those of the outputs {', '.join(network.outputs)} alone")
    return Decomposed(small, network, choice.plan, notes, images, source)


def decompose_checkpoint(
    source: Source,
    chooser: Chooser,
    data: CalibrationData | CalibrationImages | None = None,
    *,
    outputs: Sequence[str] = (),
    refinement: Refinement | None = None,
    device: str = AUTO,
    stages: Stages | None = None,
) -> Decomposed[TorchNetwork]:
    """Load a checkpoint and decompose its network.

    Args:
        source: the checkpoint.
        chooser: chooses schemes and ranks.
        data: what to calibrate on; None for the SVD's factors.
        outputs: globs of the names of the outputs whose errors count; all where there are none.
        refinement: trains the calibrated factors further; None to leave them.
        device: where it is calibrated: ``cpu``, ``cuda``, or ``auto``, as :class:`OnDevice`.
        stages: times and announces the stages.

    Raises:
        NothingToDoError: no layer would get cheaper, or what was asked for can't be met.
        TrpexportError: as the steps themselves.
    """
    stages = stages or Stages()
    chooser.check()
    device_named(device)
    ready = source.ready(data, inputs=chooser.inputs, outputs=outputs, stages=stages)
    if isinstance(chooser, ByCriterion):
        chooser = chooser.as_trained(ready.source.metadata)
    return decompose_network(
        ready.network, chooser, ready.images, label=ready.label, source=ready.source,
        refinement=refinement, device=device, stages=stages,
    )  # fmt: skip


def decompose_to_bundle(
    source: Decomposable,
    chooser: Chooser,
    out: Path | None = None,
    data: CalibrationData | None = None,
    *,
    outputs: Sequence[str] = (),
    refinement: Refinement | None = None,
    device: str = AUTO,
    settings: ExportSettings | None = None,
    inputs: Array | Arrays | CalibrationData | None = None,
    stages: Stages | None = None,
) -> BundleReport:
    """Read a network, decompose, verify, export: all of it or nothing.

    Args:
        source: the checkpoint or ONNX file.
        chooser: chooses schemes and ranks.
        out: the bundle's directory; a name after checkpoint and scheme where it is None.
        data: what to calibrate on; None for the SVD's factors.
        outputs: globs of the names of the outputs whose errors count; all where there are none.
        refinement: trains the calibrated factors further; None to leave them.
        device: where it is calibrated: ``cpu``, ``cuda``, or ``auto``, as :class:`OnDevice`.
        settings: how to export.
        inputs: real inputs to verify on.
        stages: times and announces the stages.

    Raises:
        NothingToDoError: no layer would get cheaper, or what was asked for can't be met; nothing
            is written.
        TrpexportError: as the steps themselves.
    """
    settings, stages = settings or ExportSettings(), stages or Stages()
    # What was typed wrong is said before any work is done.
    chooser.check()
    device_named(device)
    if refinement is not None:
        refinement.check()
    settings.check(has_images=data is not None)
    timestamp()
    out = out or default_directory(source.path, chooser.label)
    with bundle.reserved(out, replace=settings.replace):
        small = source.decompose(
            chooser, data, outputs=outputs, refinement=refinement, device=device, stages=stages
        )
        return small.export(out, settings=settings, inputs=inputs, stages=stages)


def default_directory(checkpoint: Path, suffix: str) -> Path:
    """Return where a bundle goes that was given no place: here, named after what it is made of."""
    stem = re.sub(r"(\.(pth|pt|th|tar|ckpt|bin|safetensors|onnx))+$", "", checkpoint.name)
    return Path(f"{stem}-{suffix}")
