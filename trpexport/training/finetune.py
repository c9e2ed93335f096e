"""``trpexport finetune`` as a function: a decomposed network trained further."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from trpexport.checkpoints import Checkpoint, load_network
from trpexport.datasets import TensorSet, open_data
from trpexport.datasets.preprocessing import Preprocessing
from trpexport.errors import TrainingError
from trpexport.inputs import Inputs, input_of_array
from trpexport.training.data import TrainingData
from trpexport.training.distillation import Distillation
from trpexport.training.distributed import joined
from trpexport.training.objectives import Imitation, Loss, Mixed, OwnLoss
from trpexport.training.recipe import FLOAT32_MAX
from trpexport.training.run import Run, check_fit, check_size, labels_alone
from trpexport.training.run_directory import RunDirectory
from trpexport.training.settings import RunSettings
from trpexport.training.teachers import ORIGINAL, teacher_for
from trpexport.training.tensor_data import TensorData
from trpexport.training.watching import Watcher


def finetune(
    source: Path,
    settings: RunSettings,
    out: Path,
    *,
    teacher: str | Path | None = ORIGINAL,
    temperature: float = 4.0,
    teacher_weight: float = 0.5,
    loss: str | Callable[..., Any] | None = None,
    model: str | None = None,
    unsafe_pickle: bool = False,
    preprocessing: Preprocessing | None = None,
    watcher: Watcher,
    restart: bool = False,
    should_stop: Callable[[], bool] | None = None,
    announce: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Train a network further, factors staying factors; go on where an earlier call stopped.

    Args:
        source: a bundle, or a checkpoint.
        settings: the run.
        out: the run's directory: see :mod:`trpexport.training.run_directory`.
        teacher: a checkpoint, bundle or ONNX file whose answers are learnt as well, without labels
            they alone; ``original`` for the network that the bundle was made of, where that is at
            hand and there is no loss of one's own; None for the labels alone.
        temperature: how much the teacher's unlikely classes count.
        teacher_weight: share of the teacher in the loss, 0 to 1.
        loss: a function of what the network gives and the labels, or ``package.module:function``;
            None for the cross-entropy of classes, or, without labels, the teacher's outputs.
        model: ``package.module:factory`` that makes the network, for one that is not of the zoo.
        unsafe_pickle: load files that hold pickled code, **which runs that code**.
        preprocessing: how images become input; as the source says where it is None, else in the
            data set's own way.
        watcher: who wants to know how it goes.
        restart: throw away what an earlier run left in ``out``.
        should_stop: asked after each step whether to save the state and end there; None for never.
        announce: called with a line on the teacher where nobody named one.

    Returns:
        The last epoch's line of the metrics, with the file of the ``teacher``, None for none, and
        with ``original_top1`` where it has classes.

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
    own = OwnLoss.imported(loss) if isinstance(loss, str) else loss and OwnLoss("given", loss)
    how: dict[str, Any] = {"model": model, "unsafe_pickle": unsafe_pickle}
    checkpoint = load_network(source, **how)
    named = None if teacher == ORIGINAL and own is not None else teacher
    expert = teacher_for(source, named, announce=announce, **how)
    with joined(settings.compute.device) as workers:
        data = _opened(settings, checkpoint, preprocessing, classified=own is None)
        facts: dict[str, Any] = {"source": checkpoint.sha256}
        if isinstance(data, TrainingData):
            facts["preprocessing"] = data.preprocessing.to_json()
        if expert is not None:
            facts |= {
                "teacher": expert.sha256,
                "teacher_weight": teacher_weight,
                "temperature": temperature,
            }
            expert.module.to(workers.device).eval()
        if own is not None:
            facts["loss"] = own.name
        classified = own is None and data.has_classes
        if classified and isinstance(data, TrainingData):
            for one in (checkpoint, expert):
                if one is not None:
                    check_fit(one, data)
        smoothing = settings.recipe.label_smoothing
        lesson = None
        if expert is not None:
            lesson = Distillation(expert.module, temperature, teacher_weight, smoothing)
        objective = _objective(data, own, lesson, smoothing)
        run = Run(settings, data, workers, RunDirectory(out), watcher, should_stop)
        with run.opened(facts, restart):
            found = run.fit(
                checkpoint.module,
                checkpoint.architecture,
                facts,
                None,
                objective,
                plan=checkpoint.plan,
                counts_classes=classified,
            )
        if expert is None:
            return {**found, "teacher": None}
        found = {**found, "teacher": str(expert.path)}
        return found | ({"original_top1": run.top1_of(expert.module)} if classified else {})


def _opened(
    settings: RunSettings,
    checkpoint: Checkpoint,
    preprocessing: Preprocessing | None,
    *,
    classified: bool,
) -> TrainingData | TensorData:
    """Return what to train on, as far as it fits the network.

    Raises:
        DataError: it can't be read, or does not fit.
    """
    known = preprocessing or checkpoint.preprocessing
    found = open_data(settings.data)
    if isinstance(found, TensorSet):
        inputs = checkpoint.inputs
        if inputs is None:
            samples = {name: input_of_array(array, 1) for name, array in found.inputs.items()}
            inputs = Inputs(samples)
        inputs.named(found.inputs_of(inputs), found.name)
        return TensorData(found, inputs, known)
    split = found.images("train" if "train" in found.readers else next(iter(found.readers)))
    data = TrainingData.open(
        settings.data,
        known,
        size=settings.size,
        resize=settings.resize,
        default_size=_size(checkpoint),
        labelled=classified and split.is_labelled,
    )
    check_size(checkpoint, data)
    return data


def _objective(
    data: TrainingData | TensorData,
    own: OwnLoss | None,
    lesson: Distillation | None,
    label_smoothing: float,
) -> Loss:
    """Return what the network is trained to do.

    Raises:
        TrainingError: nothing says it.
    """
    name = data.dataset.name
    if own is not None:
        if not data.has_labels:
            raise TrainingError(
                f"{name} has no labels, which the loss {own.name} is of: save them, or leave the "
                "loss out and give the original network as teacher",
                parameters=("loss", "teacher"),
            )
        return own if lesson is None else Mixed(own, Imitation(lesson.teacher), lesson.weight)
    if data.has_classes:
        return labels_alone(label_smoothing) if lesson is None else lesson
    if lesson is None:
        what = "targets that are no classes" if data.has_labels else "no labels"
        raise TrainingError(
            f"{name} has {what}: give the original network as teacher, whose outputs are learnt, "
            "or a loss of what the network gives and the labels",
            parameters=("teacher", "loss"),
        )
    return Imitation(lesson.teacher)


def _size(checkpoint: Checkpoint) -> tuple[int, int] | None:
    """Return (height, width) of a network's input, where somebody says."""
    if checkpoint.input_shape is None or len(checkpoint.input_shape) != 4:
        return None
    _, _, height, width = checkpoint.input_shape
    return height, width
