"""Files from Python: how fast they are, how good, and whether that is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trpexport.datasets import Dataset, Preprocessing
    from trpexport.judge.gate.check import GateResult
    from trpexport.judge.predictions import Evaluation

Announce = Callable[[str], None]


def bench(
    models: Sequence[str | Path], *, announce: Announce | None = None, **settings: Any
) -> dict[str, Any]:
    """Measure how fast ONNX files run, in turns, and return the record.

    Args:
        models: ONNX files or bundles; the first one is the baseline of all ratios, or the one that
            a single bundle brings.
        announce: called with a line on each step.
        settings: those of :class:`~trpexport.BenchSettings`.

    Raises:
        TrpexportError: a file can't be run, or a setting can't be used.
    """
    from trpexport.measure.bench import bench as run
    from trpexport.measure.settings import BenchSettings, find_models

    files = find_models([Path(model) for model in models])
    return run(BenchSettings(files, **settings), announce=announce)


def evaluate(
    model: str | Path,
    data: str | Dataset,
    *,
    split: str = "test",
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    output: str | None = None,
    batch: int | None = None,
    **session: Any,
) -> Evaluation:
    """Return how well an ONNX file classifies the images of a data set.

    Args:
        model: the file, or a bundle.
        data: the data set, as in ``cifar10:DIR``.
        split: which images of it.
        limit: how many, spread evenly over the split; None for all.
        preprocessing: how images become input; None takes what the bundle says.
        output: name of the output with one number a class, where there are several.
        batch: images at a time.
        session: options of the session: ``provider``, ``threads``.

    Raises:
        TrpexportError: the network or the data can't be read, or do not fit each other.
    """
    from trpexport.judge.classify import choose_images, open_classifier
    from trpexport.judge.classify import evaluate as run

    images = choose_images(_opened(data), split, limit)
    classifier = open_classifier(Path(model), preprocessing=preprocessing, output=output, **session)
    return run([classifier], images, batch=batch).classifiers[0]


def gate(
    baseline: str | Path,
    candidate: str | Path,
    *,
    data: str | Dataset | None = None,
    split: str = "test",
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    confident: bool = False,
    settings: Mapping[str, Any] | None = None,
    announce: Announce | None = None,
    **limits: float,
) -> GateResult:
    """Hold a network against its baseline: is it as good, as small, as fast as was asked for?

    Args:
        baseline: an ONNX file or a bundle.
        candidate: another one.
        data: images to judge accuracy by, as in ``cifar10:DIR``.
        split: which images of it.
        limit: how many; None for all.
        preprocessing: how images become input; None takes what the bundles say.
        confident: whole confidence intervals must be inside of the limits.
        settings: those of :class:`~trpexport.BenchSettings`, for rules on latency.
        announce: called with a line on each step.
        limits: the rules, as in ``max_drop=1.0, min_macs_ratio=2.0``.

    Raises:
        TrpexportError: a rule is unknown or needs what is missing, or a network can't be read.
    """
    from trpexport.judge.classify import choose_images, open_classifier
    from trpexport.judge.classify import evaluate as run
    from trpexport.judge.gate.check import run_gate
    from trpexport.judge.gate.config import parsed_limits
    from trpexport.measure.settings import BenchSettings, find_models

    rules = parsed_limits(
        {name.replace("_", "-"): value for name, value in limits.items()}, confident=confident
    )
    files = find_models([Path(baseline), Path(candidate)])
    bench_settings = BenchSettings(files, **{"memory": False, **(settings or {})})
    evaluations = None
    if data is not None and rules.of("data"):
        classifiers = [
            open_classifier(Path(file.path), preprocessing=preprocessing) for file in files
        ]
        evaluations = run(classifiers, choose_images(_opened(data), split, limit))
    return run_gate(rules, bench_settings, evaluations=evaluations, announce=announce)


def _opened(data: str | Dataset) -> Dataset:
    from trpexport.datasets import open_dataset

    return open_dataset(data) if isinstance(data, str) else data
