"""``trpexport train`` and ``finetune`` as functions: from settings to checkpoints."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trpexport.checkpoints import Checkpoint, load_bundle, load_checkpoint, save_checkpoint
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import DataError, PlanError, TrainingError
from trpexport.lowrank.trace import evaluating, example_input, run_example
from trpexport.plan import Plan
from trpexport.training.batches import Batches
from trpexport.training.data import TrainingData
from trpexport.training.distillation import Distillation
from trpexport.training.distributed import Workers, joined
from trpexport.training.loop import Loop, Loss
from trpexport.training.recipe import RECIPES, Recipe
from trpexport.training.run_directory import RunDirectory
from trpexport.training.trp import TrainedRankPruning
from trpexport.training.watching import Watcher

if TYPE_CHECKING:  # only for the types: the zoo is loaded by name, see docs/architecture.md
    from models_zoo.family import Architecture


@dataclass(frozen=True)
class LowRank:
    """How a run pulls the network towards low rank.

    Attributes:
        scheme: the scheme that it is going to be decomposed with.
        energy: share of each layer's spectrum that a projection keeps; None not to project.
        period: steps between projections.
        nuclear_weight: of the nuclear norm's subgradient; 0 for none.
        target_macs: MACs to be reached at the value threshold, relative to the dense network;
            None to leave it to ``energy``.
        stride_1_only: leave strided convolutions alone, as the original code does.
    """

    scheme: str = "spatial"
    energy: float | None = 0.9
    period: int = 20
    nuclear_weight: float = 3e-4
    target_macs: float | None = None
    stride_1_only: bool = False


@dataclass(frozen=True)
class Compute:
    """How a run computes; none of it changes what is computed but for rounding.

    Attributes:
        device: ``auto``, ``cpu`` or ``cuda``.
        bf16: run the forward pass in bfloat16 where that is safe.
        compile: compile the network.
        sync_bn: take batch-norm statistics over all workers.
        save_seconds: time between two states within an epoch.
        decoders: processes that decode image files, for each worker; None for one a core.
    """

    device: str = "auto"
    bf16: bool = False
    compile: bool = False
    sync_bn: bool = False
    save_seconds: float = 60.0
    decoders: int | None = None


@dataclass(frozen=True)
class RunSettings:
    """What training and fine-tuning have in common.

    Attributes:
        data: the data set, as in ``cifar10:DIR``.
        recipe: how long and how fast.
        seed: of everything random.
        augment: shift and mirror the training images, or cut and mirror larger ones.
        size: height and width of the input, in pixels; None for that of the images, or, where they
            differ, of the architecture.
        resize: length of the shorter edge of a test image before its centre is cut out; None for
            size / 0.875.
        compute: how it computes.
    """

    data: str
    recipe: Recipe = RECIPES["original"]
    seed: int = 0
    augment: bool = True
    size: int | None = None
    resize: int | None = None
    compute: Compute = Compute()

    def facts(self) -> dict[str, Any]:
        """Return what two runs share when one may go on where the other stopped."""
        settings = asdict(self)
        compute = settings.pop("compute")
        # On other devices a run goes on as well, if not to the same last bit.
        return {**settings, "bf16": compute["bf16"], "sync_bn": compute["sync_bn"]}


def train(
    arch: str,
    settings: RunSettings,
    low_rank: LowRank | None,
    out: Path,
    *,
    init: Path | None = None,
    watcher: Watcher,
    restart: bool = False,
) -> dict[str, Any]:
    """Train a network of the zoo; go on where an earlier call with the same settings stopped.

    Args:
        arch: text form of the architecture.
        settings: the run.
        low_rank: how the network is pulled towards low rank; None for plain training.
        out: the run's directory: see :mod:`trpexport.training.run_directory`.
        init: a checkpoint of the same architecture to start from; None for fresh weights.
        watcher: who wants to know how it goes.
        restart: throw away what an earlier run left in ``out``.

    Returns:
        The last epoch's line of the metrics.

    Raises:
        CheckpointError: ``init`` can't be read, or holds another network.
        TrainingError: the loss became NaN, or ``out`` holds another run.
        DataError: the images can't be read, or don't fit ``init``.
        OutputError: ``out`` can't be written.
    """
    zoo = importlib.import_module("trpexport.models_zoo")
    with joined(settings.compute.device) as workers:
        start = None if init is None else load_checkpoint(init, arch=arch)
        # A wrong name is said before the data are read.
        _, _, *default_size = zoo.parse_architecture(arch, num_classes=1).input_shape
        data = TrainingData.open(
            settings.data,
            _preprocessing(start) if start else None,
            size=settings.size,
            resize=settings.resize,
            default_size=(default_size[0], default_size[1]),
        )
        architecture: Architecture = zoo.parse_architecture(
            arch, num_classes=len(data.dataset.classes), in_channels=data.dataset.channels
        )
        torch.manual_seed(settings.seed)
        model = architecture.build()
        facts = {"arch": arch, "low_rank": asdict(low_rank) if low_rank else None}
        if start:
            _check_fit(start, data)
            facts["init"] = start.sha256
            model.load_state_dict(start.module.state_dict())
        _check_size(arch, model, data, default_size[0])
        run = _Run(settings, data, workers, RunDirectory(out), watcher)
        trp = run.trained_rank_pruning(model, low_rank) if low_rank else None
        run.open(facts, restart)
        return run.fit(model, architecture, facts, trp, _cross_entropy(settings.recipe))


def finetune(
    source: Path,
    settings: RunSettings,
    out: Path,
    *,
    teacher: Path | None = None,
    temperature: float = 4.0,
    teacher_weight: float = 0.5,
    model: str | None = None,
    unsafe_pickle: bool = False,
    watcher: Watcher,
    restart: bool = False,
) -> dict[str, Any]:
    """Train a network further, factors staying factors; go on where an earlier call stopped.

    Images become input as the source says, else in the data set's own way.

    Args:
        source: a bundle, or a checkpoint.
        settings: the run.
        out: the run's directory: see :mod:`trpexport.training.run_directory`.
        teacher: a checkpoint or bundle whose answers are learnt as well; None for the labels alone.
        temperature: how much the teacher's unlikely classes count.
        teacher_weight: share of the teacher in the loss, 0 to 1.
        model: ``package.module:factory`` that makes the network, for one that is not of the zoo.
        unsafe_pickle: load files that hold pickled code, **which runs that code**.
        watcher: who wants to know how it goes.
        restart: throw away what an earlier run left in ``out``.

    Returns:
        The last epoch's line of the metrics.

    Raises:
        CheckpointError: the source or the teacher can't be read.
        DataError: the images can't be read, or do not fit the network.
        TrainingError: the loss became NaN, or ``out`` holds another run.
        OutputError: ``out`` can't be written.
    """
    if not (0 <= teacher_weight <= 1 and temperature > 0):
        raise TrainingError(
            f"teacher weight {teacher_weight:g} at temperature {temperature:g} makes no sense: "
            "give a weight from 0 to 1 and a temperature above 0"
        )
    checkpoint = _load(source, model, unsafe_pickle)
    with joined(settings.compute.device) as workers:
        data = TrainingData.open(settings.data, _preprocessing(checkpoint))
        _check_fit(checkpoint, data)
        facts: dict[str, Any] = {"source": checkpoint.sha256}
        loss = _cross_entropy(settings.recipe)
        if teacher is not None:
            expert = _load(teacher, model, unsafe_pickle)
            _check_fit(expert, data)
            facts |= {"teacher": expert.sha256, "teacher_weight": teacher_weight}
            loss = Distillation(
                expert.module.to(workers.device),
                temperature,
                teacher_weight,
                settings.recipe.label_smoothing,
            )
        run = _Run(settings, data, workers, RunDirectory(out), watcher)
        run.open(facts, restart)
        return run.fit(
            checkpoint.module, checkpoint.architecture, facts, None, loss, checkpoint.plan
        )


def _load(path: Path, model: str | None, unsafe_pickle: bool) -> Checkpoint:
    if path.is_dir():
        return load_bundle(path, model=model)
    return load_checkpoint(path, model=model, unsafe_pickle=unsafe_pickle)


def _preprocessing(checkpoint: Checkpoint) -> Preprocessing | None:
    data = checkpoint.metadata.get("preprocessing")
    return None if data is None else Preprocessing.from_json(data, str(checkpoint.path))


def _check_fit(checkpoint: Checkpoint, data: TrainingData) -> None:
    """Refuse images that the network can't take, or whose classes are not its own.

    Raises:
        DataError: they don't fit.
    """
    wanted, found = checkpoint.input_shape, data.input_shape
    if wanted is not None and tuple(wanted[1:]) != tuple(found[1:]):
        raise DataError(
            f"{checkpoint.path} takes {'x'.join(map(str, wanted[1:]))} images, {data.dataset.name} "
            f"has {'x'.join(map(str, found[1:]))}: give the data that it was trained on"
        )
    module = checkpoint.module
    with evaluating(module):
        classes = module(example_input(module, found)).shape[-1]
    if classes != len(data.dataset.classes):
        raise DataError(
            f"{checkpoint.path} tells {classes} classes apart, {data.dataset.name} has "
            f"{len(data.dataset.classes)}: give the data that it was trained on"
        )


def _check_size(arch: str, model: nn.Module, data: TrainingData, usual: int) -> None:
    """Refuse images that a network shrinks to nothing.

    Raises:
        DataError: it does.
    """
    try:
        run_example(model, data.input_shape, {})
    except PlanError as error:
        height, width = data.input_shape[2:]
        raise DataError(
            f"{arch} can't take the {height}x{width} images of {data.dataset.name}: "
            f"give --size {usual}, or another --arch"
        ) from error


def _cross_entropy(recipe: Recipe) -> Loss:
    def loss(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        return cross_entropy(logits, labels, label_smoothing=recipe.label_smoothing)

    return loss


@dataclass(frozen=True)
class _Run:
    """A run whose data are open."""

    settings: RunSettings
    data: TrainingData
    workers: Workers
    directory: RunDirectory
    watcher: Watcher

    def open(self, facts: Mapping[str, Any], restart: bool) -> None:
        """Make the directory, or check that it holds this run."""
        _ = self.batches  # what is wrong with them is said before anything is written
        everything = {**facts, **self.settings.facts()}
        self.workers.first_does(lambda: self.directory.open(everything, restart=restart))

    @cached_property
    def batches(self) -> Batches:
        """The training batches of this worker."""
        settings = self.settings
        return self.data.batches(
            settings.recipe.batch_size,
            settings.seed,
            settings.augment,
            self.workers,
            settings.compute.decoders,
        )

    def trained_rank_pruning(self, model: nn.Module, low_rank: LowRank) -> TrainedRankPruning:
        """Return the TRP step for a network."""
        return TrainedRankPruning(
            model,
            scheme=low_rank.scheme,
            energy=low_rank.energy,
            period=low_rank.period,
            nuclear_weight=low_rank.nuclear_weight,
            stride_1_only=low_rank.stride_1_only,
            target_macs=low_rank.target_macs,
            total_steps=self.settings.recipe.epochs * len(self.batches),
            input_shape=self.data.input_shape,
        )

    def fit(
        self,
        model: nn.Module,
        architecture: Architecture | None,
        facts: Mapping[str, Any],
        trp: TrainedRankPruning | None,
        loss: Loss,
        plan: Plan | None = None,
    ) -> dict[str, Any]:
        """Train ``model`` to the end."""
        recipe, compute, device = self.settings.recipe, self.settings.compute, self.workers.device
        model.to(device)
        if len(self.data.input_shape) == 4:
            model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compute.sync_bn:
            model = self.workers.synchronise(model)
        net = self.workers.wrap(model)
        if compute.compile:  # around the averaging, which then overlaps with the compiled pieces
            net = cast(nn.Module, torch.compile(net))
        metadata = {
            "input_shape": list(self.data.input_shape),
            "dataset": self.data.dataset.name.partition(":")[0],
            "preprocessing": self.data.preprocessing.to_json(),
            "training": {**facts, "recipe": asdict(recipe), "seed": self.settings.seed},
        }

        def save(path: Path, metrics: dict[str, Any]) -> None:
            save_checkpoint(
                path,
                model,
                architecture=architecture,
                plan=plan,
                metadata={**metadata, "metrics": metrics},
            )

        return Loop(
            model=model,
            net=net,
            batches=self.batches,
            test=self.data.test_batches(self.workers, compute.decoders),
            recipe=recipe,
            optimizer=torch.optim.SGD(
                model.parameters(),
                recipe.lr,
                momentum=recipe.momentum,
                weight_decay=recipe.weight_decay,
                nesterov=recipe.nesterov,
            ),
            workers=self.workers,
            directory=self.directory,
            save=save,
            trp=trp,
            loss=loss,
            bf16=compute.bf16,
            seed=self.settings.seed,
            save_seconds=compute.save_seconds,
            watcher=self.watcher,
        ).run()
