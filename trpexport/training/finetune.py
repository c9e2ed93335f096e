"""``trpexport finetune`` as a function: a decomposed network trained further."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trpexport.checkpoints import Checkpoint, load_network
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import TrainingError
from trpexport.training.data import TrainingData
from trpexport.training.distillation import Distillation
from trpexport.training.distributed import joined
from trpexport.training.recipe import FLOAT32_MAX
from trpexport.training.run import Run, check_fit, labels_alone
from trpexport.training.run_directory import RunDirectory
from trpexport.training.settings import RunSettings
from trpexport.training.watching import Watcher


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
    preprocessing: Preprocessing | None = None,
    watcher: Watcher,
    restart: bool = False,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any]:
    """Train a network further, factors staying factors; go on where an earlier call stopped.

    Args:
        source: a bundle, or a checkpoint.
        settings: the run.
        out: the run's directory: see :mod:`trpexport.training.run_directory`.
        teacher: a checkpoint or bundle whose answers are learnt as well; None for the labels alone.
        temperature: how much the teacher's unlikely classes count.
        teacher_weight: share of the teacher in the loss, 0 to 1.
        model: ``package.module:factory`` that makes the network, for one that is not of the zoo.
        unsafe_pickle: load files that hold pickled code, **which runs that code**.
        preprocessing: how images become input; as the source says where it is None, else in the
            data set's own way.
        watcher: who wants to know how it goes.
        restart: throw away what an earlier run left in ``out``.
        should_stop: asked after each step whether to save the state and end there; None for never.

    Returns:
        The last epoch's line of the metrics.

    Raises:
        CheckpointError: the source or the teacher can't be read.
        DataError: the images can't be read, or do not fit the network.
        TrainingError: the loss became NaN, or ``out`` holds another run.
        OutputError: ``out`` can't be written.
        KeyboardInterrupt: it was to stop, and has saved its state.
    """
    if not (0 <= teacher_weight <= 1 and 0 < temperature <= FLOAT32_MAX):
        raise TrainingError(
            f"teacher weight {teacher_weight:g} at temperature {temperature:g} makes no sense: "
            "give a weight from 0 to 1 and a temperature above 0"
        )
    checkpoint = load_network(source, model=model, unsafe_pickle=unsafe_pickle)
    with joined(settings.compute.device) as workers:
        data = TrainingData.open(
            settings.data,
            preprocessing or checkpoint.preprocessing,
            size=settings.size,
            resize=settings.resize,
            default_size=_size(checkpoint),
        )
        check_fit(checkpoint, data)
        facts: dict[str, Any] = {
            "source": checkpoint.sha256,
            "preprocessing": data.preprocessing.to_json(),
        }
        loss = labels_alone(settings.recipe)
        if teacher is not None:
            expert = load_network(teacher, model=model, unsafe_pickle=unsafe_pickle)
            check_fit(expert, data)
            facts |= {
                "teacher": expert.sha256,
                "teacher_weight": teacher_weight,
                "temperature": temperature,
            }
            loss = Distillation(
                expert.module.to(workers.device),
                temperature,
                teacher_weight,
                settings.recipe.label_smoothing,
            )
        run = Run(settings, data, workers, RunDirectory(out), watcher, should_stop)
        with run.opened(facts, restart):
            return run.fit(
                checkpoint.module, checkpoint.architecture, facts, None, loss, plan=checkpoint.plan
            )


def _size(checkpoint: Checkpoint) -> tuple[int, int] | None:
    """Return (height, width) of a network's input, where somebody says."""
    if checkpoint.input_shape is None or len(checkpoint.input_shape) != 4:
        return None
    _, _, height, width = checkpoint.input_shape
    return height, width
