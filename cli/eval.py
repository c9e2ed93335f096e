"""``trpexport eval``: how accurate an ONNX classifier is on a data set. Without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trpexport.errors import TrpexportError

from . import completion
from . import measuring as m
from .console import bar, say, show, show_json
from .idle import refuse_typed
from .interrupts import tell_written
from .options import Images, Json, Output
from .pixels import normalisation, read_size

if TYPE_CHECKING:
    from trpexport.calibration_data import CalibrationData
    from trpexport.conversion import Labelled
    from trpexport.datasets import Dataset, TensorSet
    from trpexport.datasets.preprocessing import Preprocessing
    from trpexport.expectations import Expectation
    from trpexport.judge.metrics import Metric
    from trpexport.judge.predictions import Evaluation
    from trpexport.judge.scoring import Score, Scores
    from trpexport.report.blocks import Text

# What prepares images, by their parameters.
PREPARING = ("mean", "std", "size", "resize", "data_preprocessing")
Preparing = tuple[str | None, str | None, str | None, int | None, bool]
_VERIFIED = 256  # images to verify on
# What tells a drop, by their parameters.
JUDGING = ("data", "metric", "metric_lower_is_better")

_CALIBRATED = 512  # images
DATA = (
    "Labelled data to train on or to measure accuracy on: cifar10:DIR, imagefolder:DIR, npz:FILE, "
    "tensors:FILE, ..."
)
Mean = Annotated[
    str | None,
    typer.Option(help="Mean of each channel, for pixels from 0 to 1, as in 0.485,0.456,0.406."),
]
Std = Annotated[
    str | None, typer.Option(help="Standard deviation of each channel, as in 0.229,0.224,0.225.")
]
Size = Annotated[
    str | None,
    typer.Option(
        help="Crop images from the centre to this size: 224, or 192x256 (height x width)."
    ),
]
Resize = Annotated[
    int | None,
    typer.Option(min=1, help="Scale the shorter edge of images to this many pixels first."),
]
DataPreprocessing = Annotated[
    bool,
    typer.Option("--data-preprocessing", help="Prepare images as is usual for the data set."),
]
Data = Annotated[
    str | None,
    typer.Option(help=DATA, autocompletion=completion.data),
]
Split = Annotated[str, typer.Option(help="Part of --data to use: train or test.")]
DataImages = Annotated[
    int | None,
    typer.Option(
        min=1, help="Number of images of --data to use, taken at even distances. Default: all."
    ),
]
OfMetric = Annotated[
    str | None,
    typer.Option(
        help="Metric other than top-1: miou, rmse, mae, top5, ... (a wrong name lists all), or a "
        "function of predictions and targets, as package.module:function.",
        autocompletion=completion.metrics,
    ),
]
LowerIsBetter = Annotated[
    bool,
    typer.Option("--metric-lower-is-better", help="Your own metric is better where it is smaller."),
]


def eval_(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file or a bundle.")],
    data: Data = None,
    split: Split = "test",
    images: Images = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    output: Output = None,
    metric: OfMetric = None,
    metric_lower_is_better: LowerIsBetter = False,
    provider: m.Provider = "cpu",
    provider_option: m.ProviderOption = None,
    threads: m.Threads = "1",
    batch: m.Batch = None,
    ray: m.Ray = None,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Show the confusion matrix's largest entries.")
    ] = False,
    save: m.Save = None,
    against: Annotated[
        Path | None, typer.Option(help="Compare image by image with predictions written by --save.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure top-1, top-5 and loss of an ONNX classifier on a data set, or another metric.

    Images are prepared as the bundle says; for other files give --mean and --std. The loss is the
    cross-entropy of the outputs taken as logits, or -log p where they are probabilities. An image
    whose outputs are not finite counts as wrong. Needs no torch.

    tensors:FILE.npz holds a network's inputs by name, and the expected output as target (or
    target.NAME for each output). A function for --metric gets all predictions and targets as arrays
    (dicts by output if there are several) and returns one number, or one for each sample; a class
    gets them batch by batch in update(), and returns the number from compute().

    Example:
        trpexport eval out --data cifar10:DIR
    """
    from trpexport.datasets import Dataset
    from trpexport.judge.classify import evaluate
    from trpexport.judge.examples import find_judge, open_classifiers, usual_metric
    from trpexport.judge.images import choose_images
    from trpexport.judge.predictions import read_evaluation, save_evaluation
    from trpexport.judge.spread import spread
    from trpexport.report.views.evaluation import evaluation_view
    from trpexport.runtime.providers import parse_provider_options

    tell_written(save)
    dataset = open_data(data)
    chosen_metric = usual_metric(dataset, metric)
    judge = find_judge(dataset.name, chosen_metric, lower_is_better=metric_lower_is_better)
    session: dict[str, Any] = {
        "provider": provider,
        "provider_options": parse_provider_options(provider_option or ()),
        "threads": m.number_of_threads(threads),
        "allow_spinning": False,  # waiting threads would only take cores from other jobs
    }
    how = preprocessing(dataset, mean, std, size, resize, data_preprocessing)
    if judge is not None:
        refuse_typed(context, ("confusion", "save", "against"), f"beside the metric {judge.name}")
        drawn = {"split": split, "limit": images, "preprocessing": how, "output": output}
        scored = scores([model], dataset, judge, batch=batch, ray=ray, session=session, **drawn)
        _show_score(scored.models[0], as_json)
        return
    earlier = None if against is None else read_evaluation(against)
    seen = None if earlier is None else earlier.fingerprint  # unknown ones are refused at once
    chosen = choose_images(dataset, split, images)
    assert isinstance(dataset, Dataset)  # raw tensors have a metric, or were refused
    opened = open_classifiers([model], dataset, preprocessing=how, output=output, **session)
    with (
        spread(opened, ray, batch, **session) as those,
        bar(len(chosen.indices), "evaluate") as advance,
    ):
        found = evaluate(those.models, chosen, batch=those.batch, advance=advance).classifiers[0]
    for remark in chosen.remarks(opened[0].preprocessing):
        say(f"note: of the images: {remark}")
    if save is not None:
        save_evaluation(save, found)
    facts = found.to_json(confusion=confusion)
    change: tuple[Text, ...] = ()
    if earlier is not None:
        if found.fingerprint != seen:
            raise TrpexportError(
                f"the predictions of {earlier.label} are of other images ({len(earlier)} of "
                f"{earlier.data}): evaluate both on the same ones"
            )
        change = (_compare(earlier, found, facts),)
    if as_json:
        show_json(facts)
    else:
        show(*evaluation_view(found, confusion=confusion), *change)


def scores(
    models: Sequence[Path],
    data: Dataset | TensorSet,
    metric: Metric,
    *,
    batch: int | None,
    session: Mapping[str, Any],
    ray: str | None = None,
    **how: Any,
) -> Scores:
    """Judge networks by a metric, under a bar; ``how`` is that of ``judge.examples.opened``."""
    from trpexport.judge.examples import opened
    from trpexport.judge.scoring import score
    from trpexport.judge.spread import spread

    judged, examples = opened(models, data, **how, **session)
    with (
        spread(judged, ray, batch, **session) as those,
        bar(len(examples.indices), "evaluate") as advance,
    ):
        return score(those.models, examples, metric, batch=those.batch, advance=advance)


def _show_score(score: Score, as_json: bool) -> None:
    from trpexport.report.views.evaluation import score_view

    if as_json:
        show_json(score.to_json())
    else:
        show(*score_view(score))


def _compare(earlier: Evaluation, found: Evaluation, facts: dict[str, object]) -> Text:
    """Add to the facts how two networks differ on the same images, and say it."""
    from trpexport.judge.gate.rules import drop_between
    from trpexport.judge.paired import mcnemar_p
    from trpexport.report.views.evaluation import drop_view

    drop = drop_between(earlier.correct, found.correct)
    low, high = drop.interval()
    p = mcnemar_p(int(drop.lost), int(drop.won))
    facts["against"] = {
        **{"model": earlier.label, "sha256": earlier.sha256, "top1": earlier.top1},
        **{"drop": drop.estimate, "drop_low": low, "drop_high": high},
        **{"lost": drop.lost, "won": drop.won, "mcnemar_p": p},
    }
    return drop_view(earlier.to_json(), drop, p)


def open_data(data: str | None) -> Dataset | TensorSet:
    """Open the data that were typed.

    Raises:
        DataError: there is none, or it can't be read.
        TrpexportError: nothing was typed.
    """
    from trpexport import datasets

    if data is None:
        raise TrpexportError(
            f"name a data set, as in --data cifar10:DIR: choose from {', '.join(datasets.DATASETS)}"
        )
    return datasets.open_data(data)


def preprocessing(
    data: Dataset | TensorSet | None,
    mean: str | None,
    std: str | None,
    size: str | None,
    resize: int | None,
    data_preprocessing: bool,
    *,
    kept: bool = False,
) -> Preprocessing | None:
    """Return how images become input, as it was typed; None where it was not.

    Args:
        data: what is prepared so; None for nothing yet.
        mean: as it was typed.
        std: likewise.
        size: likewise.
        resize: likewise.
        data_preprocessing: likewise.
        kept: whether a bundle keeps it, so that it is of use beside input that needs none.

    Raises:
        TrpexportError: a part is missing or is not what it should be.
    """
    from trpexport.datasets import Dataset

    given = any(part is not None for part in (mean, std, size, resize))
    are_inputs = data is not None and not (isinstance(data, Dataset) and not data.are_inputs)
    if are_inputs and (data_preprocessing or (given and not kept)):
        assert data is not None
        raise TrpexportError(
            "--mean, --std, --size, --resize and --data-preprocessing prepare images: leave "
            f"them out, {data.name} holds a network's input as it is"
        )
    if data_preprocessing:
        assert isinstance(data, Dataset)
        if given:
            raise TrpexportError(
                "--data-preprocessing and --mean, --std, --size, --resize exclude each other"
            )
        return data.preprocessing
    found = normalisation(mean, std)
    if found is None:
        if size is not None or resize is not None:
            raise TrpexportError("--size and --resize need --mean and --std with them")
        return None
    return replace(found, size=read_size(size), resize=resize)


def calibration(
    data: str | None,
    images: int | None,
    seed: int,
    how: tuple[str | None, str | None, str | None, int | None, bool],
    judged: str | None = None,
) -> CalibrationData | None:
    """Return what to calibrate on and to judge by, as it was typed; None where it was not.

    Raises:
        TrpexportError: a part is missing, or is not what it should be.
    """
    from trpexport.calibration_data import CalibrationData
    from trpexport.datasets import TensorSet

    if data is None:
        return None
    dataset = open_data(data)
    others = None if judged is None else open_data(judged)
    # Of both those that are images, if any are, are prepared so.
    prepared = others if isinstance(dataset, TensorSet) and others is not None else dataset
    return CalibrationData(
        dataset,
        _CALIBRATED if images is None else images,
        seed,
        preprocessing(prepared, *how, kept=True),
        others,
    )


def kept_preprocessing(
    how: tuple[str | None, str | None, str | None, int | None, bool],
    *used: CalibrationData | Expectation | Labelled | None,
) -> Preprocessing | None:
    """Return how images become input, as it was typed or is used, for a bundle to keep it.

    Raises:
        TrpexportError: a part is missing, or is not what it should be.
    """
    found = next((data.preprocessing for data in used if data is not None), None)
    if found is None and how[-1]:
        raise TrpexportError(
            "--data-preprocessing does nothing without --calib: add --calib, or leave it out"
        )
    return preprocessing(None, *how) if found is None else found


def real_inputs(
    data: str | None, how: tuple[str | None, str | None, str | None, int | None, bool]
) -> CalibrationData | None:
    """Return what to verify on, as it was typed: all raw tensors, some of the images.

    Raises:
        TrpexportError: they can't be read.
    """
    from trpexport.calibration_data import CalibrationData
    from trpexport.datasets import TensorSet

    if data is None:
        return None
    found = open_data(data)
    count = None if isinstance(found, TensorSet) else _VERIFIED
    return CalibrationData(found, count, preprocessing=preprocessing(found, *how, kept=True))


def prepared_inputs(data: str, how: Preparing) -> Preprocessing | None:
    """Return how images to run on become input, as it was typed; None where it was not.

    Raises:
        TrpexportError: they can't be read, or a part is missing or not what it should be.
    """
    if not any(part is not None and part is not False for part in how):
        return None
    return preprocessing(open_data(data), *how)


def expectation(
    data: str | None,
    mean: str | None,
    std: str | None,
    size: str | None,
    resize: int | None,
    data_preprocessing: bool,
) -> Expectation | None:
    """Return the images whose classes a checkpoint should tell; None where none were typed.

    Raises:
        TrpexportError: a part is missing or is not what it should be.
    """
    from trpexport.expectations import Expectation

    if data is None:
        return None
    from trpexport.datasets import open_dataset

    dataset = open_dataset(data)
    how = preprocessing(dataset, mean, std, size, resize, data_preprocessing)
    return Expectation(dataset, how)
