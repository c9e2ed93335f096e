"""``trpexport train`` as a function: from an architecture to checkpoints."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trpexport.checkpoints import Checkpoint, load_network
from trpexport.choose.alignment import AUTO
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import DataError, PlanError
from trpexport.networks.torch.rewrite import merge
from trpexport.networks.torch.running import run_example
from trpexport.training.data import TrainingData
from trpexport.training.distributed import Workers, joined
from trpexport.training.run import Run, check_fit, labels_alone
from trpexport.training.run_directory import RunDirectory
from trpexport.training.settings import LowRank, RunSettings
from trpexport.training.trp import TrainedRankPruning
from trpexport.training.watching import Watcher, Watchers

if TYPE_CHECKING:  # only for the types: the zoo is loaded by name, see docs/architecture.md
    from models_zoo.family import Architecture


def train(
    arch: str,
    settings: RunSettings,
    low_rank: LowRank | None,
    out: Path,
    *,
    init: Path | None = None,
    preprocessing: Preprocessing | None = None,
    watcher: Watcher,
    restart: bool = False,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Train a network of the zoo; go on where an earlier call with the same settings stopped.

    Args:
        arch: text form of the architecture.
        settings: the run.
        low_rank: how the network is pulled towards low rank; None for plain training.
        out: the run's directory: see :mod:`trpexport.training.run_directory`.
        init: a checkpoint or bundle of the same architecture to start from, whose factors are
            multiplied out; None for fresh weights.
        preprocessing: how images become input; as ``init`` says where it is None, else in the data
            set's own way.
        watcher: who wants to know how it goes.
        restart: throw away what an earlier run left in ``out``.
        should_stop: asked after each step whether to save the state and end there; None for never.

    Returns:
        The last epoch's line of the metrics, with ``original_top1`` where ``init`` is given.

    Raises:
        CheckpointError: ``init`` can't be read, or holds another network.
        TrainingError: the loss became NaN, or ``out`` holds another run.
        DataError: the images can't be read, or don't fit ``init``.
        OutputError: ``out`` can't be written.
        KeyboardInterrupt: it was to stop, and has saved its state.
    """
    with joined(settings.compute.device) as workers:
        begun = _prepared(
            arch, settings, low_rank, out, workers, init=init, preprocessing=preprocessing,
            watcher=watcher, restart=restart, should_stop=should_stop,
        )  # fmt: skip
        run, start = begun.run, begun.start
        with run.opened(begun.facts, restart):
            loss = labels_alone(settings.recipe.label_smoothing)
            found = run.fit(begun.model, begun.architecture, begun.facts, begun.trp, loss)
        return found if start is None else {**found, "original_top1": run.top1_of(_dense(start))}


def planned(
    arch: str,
    settings: RunSettings,
    low_rank: LowRank | None,
    out: Path,
    *,
    init: Path | None = None,
    preprocessing: Preprocessing | None = None,
    restart: bool = False,
) -> dict[str, Any]:
    """Return what :func:`train` would train, in how many steps, and what low rank can win at best.

    Nothing is written. The arguments and what is refused are those of :func:`train`.

    Returns:
        JSON-ready facts. ``low_rank`` has the number of ``layers`` that are projected, and the
        ``least_macs_ratio``: MACs after / before at their lowest ranks; None for plain training.
    """
    with joined(settings.compute.device) as workers:
        begun = _prepared(
            arch, settings, low_rank, out, workers, init=init, preprocessing=preprocessing,
            restart=restart,
        )  # fmt: skip
        epochs, steps = settings.recipe.epochs, len(begun.run.batches)
        trp = begun.trp
        return {
            "arch": arch,
            "data": settings.data,
            "parameters": sum(one.numel() for one in begun.model.parameters()),
            "input_shape": list(begun.run.data.input_shape),
            "epochs": epochs,
            "steps_per_epoch": steps,
            "steps": epochs * steps,
            "low_rank": None
            if trp is None
            else {
                **begun.facts["low_rank"],
                "layers": len(trp.status.ranks),
                "least_macs_ratio": trp.least_macs_ratio,
            },
        }


@dataclass(frozen=True)
class _Begun:
    """A run before its first step."""

    run: Run
    model: nn.Module
    architecture: Architecture
    facts: dict[str, Any]
    trp: TrainedRankPruning | None
    start: Checkpoint | None


def _prepared(
    arch: str,
    settings: RunSettings,
    low_rank: LowRank | None,
    out: Path,
    workers: Workers,
    *,
    init: Path | None,
    preprocessing: Preprocessing | None,
    restart: bool,
    watcher: Watcher | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> _Begun:
    """Read what is trained and on what; write nothing."""
    zoo = importlib.import_module("trpexport.models_zoo")
    start = None if init is None else load_network(init, arch=arch)
    # A wrong name is said before the data are read.
    _, _, *default_size = zoo.parse_architecture(arch, num_classes=1).input_shape
    data = TrainingData.open(
        settings.data,
        preprocessing or (start.preprocessing if start else None),
        size=settings.size,
        resize=settings.resize,
        default_size=(default_size[0], default_size[1]),
    )
    architecture: Architecture = zoo.parse_architecture(
        arch, num_classes=len(data.dataset.classes), in_channels=data.dataset.channels
    )
    torch.manual_seed(settings.seed)
    model = architecture.build()
    directory = RunDirectory(out)
    if low_rank and not restart:
        low_rank = _as_begun(low_rank, directory)
    facts: dict[str, Any] = {"arch": arch, "low_rank": asdict(low_rank) if low_rank else None}
    if preprocessing is not None:
        facts["preprocessing"] = preprocessing.to_json()
    if start:
        check_fit(start, data)
        facts["init"] = start.sha256
        model.load_state_dict(_dense(start).state_dict())
    _check_size(arch, model, data, default_size[0])
    run = Run(settings, data, workers, directory, watcher or Watchers(()), should_stop)
    trp = run.trained_rank_pruning(model, low_rank) if low_rank else None
    if trp:
        facts["low_rank"] |= {"rank_multiple": trp.rank_multiple}
    return _Begun(run, model, architecture, facts, trp, start)


def _as_begun(low_rank: LowRank, directory: RunDirectory) -> LowRank:
    """Return the same for a run that may have begun on another processor: with its multiple."""
    begun = directory.begun().get("low_rank")
    multiple = begun.get("rank_multiple") if isinstance(begun, dict) else None
    if low_rank.rank_multiple == AUTO and isinstance(multiple, int):
        return replace(low_rank, rank_multiple=multiple)
    return low_rank


def _dense(start: Checkpoint) -> nn.Module:
    """Return the network of a checkpoint, its factors multiplied out."""
    if start.plan is None:
        return start.module
    return merge(start.module, start.plan.inputs)


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
            f"give the size {usual}, or another architecture",
            parameters=("size", "arch"),
        ) from error
