"""A run whose data are open: what training and fine-tuning have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trpexport.checkpoints import save_checkpoint
from trpexport.errors import DataError
from trpexport.networks.torch.running import evaluating, example_input
from trpexport.plan import Plan
from trpexport.training.batches import Batches
from trpexport.training.cuda_graphs import Recorded
from trpexport.training.data import TrainingData
from trpexport.training.distributed import Workers
from trpexport.training.loop import Loop, evaluate
from trpexport.training.objectives import Loss
from trpexport.training.run_directory import RunDirectory
from trpexport.training.settings import LowRank, RunSettings
from trpexport.training.tensor_data import TensorData
from trpexport.training.trp import TrainedRankPruning
from trpexport.training.watching import Watcher

if TYPE_CHECKING:  # only for the types: the zoo is loaded by name, see docs/architecture.md
    from models_zoo.family import Architecture


@dataclass(frozen=True)
class Run:
    """A run whose data are open."""

    settings: RunSettings
    data: TrainingData | TensorData
    workers: Workers
    directory: RunDirectory
    watcher: Watcher
    should_stop: Callable[[], bool] | None = None

    @contextmanager
    def opened(self, facts: Mapping[str, Any], restart: bool) -> Iterator[None]:
        """Make the directory, or check that it holds this run; keep others out of it."""
        _ = self.batches  # what is wrong with them is said before anything is written
        directory = self.directory.opened({**facts, **self.settings.facts()}, restart=restart)
        with ExitStack() as stack:
            self.workers.first_does(lambda: stack.enter_context(directory))
            yield

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

    def top1_of(self, model: nn.Module) -> float | None:
        """Return how many of the test images another classifier gets right, in percent."""
        compute = self.settings.compute
        test = self.data.test_batches(self.workers, compute.decoders)
        return evaluate(model.to(self.workers.device), test(), self.workers, compute.bf16).top1

    def trained_rank_pruning(self, model: nn.Module, low_rank: LowRank) -> TrainedRankPruning:
        """Return the TRP step for a network."""
        return TrainedRankPruning(
            model,
            scheme=low_rank.scheme,
            energy=low_rank.energy,
            period=low_rank.period,
            nuclear_weight=low_rank.nuclear_weight,
            stride_1_only=low_rank.stride_1_only,
            rank_multiple=low_rank.rank_multiple,
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
        *,
        plan: Plan | None = None,
        counts_classes: bool = True,
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
        if compute.cuda_graphs:
            shape = (recipe.batch_size // self.workers.count, *self.data.input_shape[1:])
            net = Recorded(net, shape, bf16=compute.bf16, workers=self.workers)
        metadata = {
            **self.data.facts(),
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
            counts_classes=counts_classes,
            should_stop=self.should_stop,
        ).run()


def labels_alone(label_smoothing: float) -> Loss:
    """Return the loss that knows the labels and nothing else."""

    def loss(logits: Tensor, labels: Tensor, images: Tensor) -> Tensor:
        return cross_entropy(logits, labels, label_smoothing=label_smoothing)

    return loss


class ReadNetwork(Protocol):
    """A network that was read from a file."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def module(self) -> nn.Module:
        """The network."""

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        """Shape of its first input, batch first; None where nobody says."""


def check_fit(checkpoint: ReadNetwork, data: TrainingData) -> None:
    """Refuse images that a classifier can't take, or whose classes are not its own.

    Raises:
        DataError: they don't fit.
    """
    check_size(checkpoint, data)
    module = checkpoint.module
    with evaluating(module):
        scores = example_input(module, data.input_shape).call(module)
    classes = scores.shape[-1] if isinstance(scores, Tensor) else None
    if classes is None:
        raise DataError(
            f"{checkpoint.path} has several outputs, {data.dataset.name} has one class an image: "
            "give a loss, a function of what the network gives and the labels",
            parameters=("loss",),
        )
    if classes != len(data.dataset.classes):
        raise DataError(
            f"{checkpoint.path} tells {classes} classes apart, {data.dataset.name} has "
            f"{len(data.dataset.classes)}: give the data that it was trained on"
        )


def check_size(checkpoint: ReadNetwork, data: TrainingData) -> None:
    """Refuse images that a network can't take.

    Raises:
        DataError: they are of another size.
    """
    wanted, found = checkpoint.input_shape, data.input_shape
    if wanted is not None and tuple(wanted[1:]) != tuple(found[1:]):
        raise DataError(
            f"{checkpoint.path} takes {'x'.join(map(str, wanted[1:]))} images, {data.dataset.name} "
            f"has {'x'.join(map(str, found[1:]))}: give the data that it was trained on"
        )
