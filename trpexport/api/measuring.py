"""Files from Python: how fast they are, how good, and whether that is enough."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from trpexport.api.networks import Images
    from trpexport.datasets import Dataset, Preprocessing, TensorSet
    from trpexport.judge.gate.check import GateResult
    from trpexport.judge.metrics import Metric
    from trpexport.judge.predictions import Evaluation
    from trpexport.judge.scoring import Score, Scores

Announce = Callable[[str], None]


def bench(
    models: Sequence[str | Path],
    *,
    inputs: Any = None,
    preprocessing: Preprocessing | None = None,
    announce: Announce | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Measure how fast ONNX files run, in turns, and return the record.

    Args:
        models: ONNX files or bundles; the first one is the baseline of all ratios, or the one that
            a single bundle brings.
        inputs: real inputs: what :func:`trpexport.decompose` takes as images; drawn where None.
        preprocessing: how images become input; as the first bundle says where it is None.
        announce: called with a line on each step.
        settings: those of :class:`~trpexport.BenchSettings`; ``threads`` may be a single number.

    Raises:
        TrpexportError: a file can't be run, or a setting can't be used.
    """
    from trpexport.judge.real_inputs import with_inputs
    from trpexport.measure.bench import bench as run
    from trpexport.measure.settings import BenchSettings, find_models

    files = find_models([Path(model) for model in models])
    how = BenchSettings(files, **_bench_settings(settings))
    with with_inputs(how, inputs, preprocessing) as prepared:
        return run(prepared, announce=announce)


@overload
def evaluate(
    model: str | Path, data: str | Dataset, *, metric: None = None, **options: Any
) -> Evaluation: ...


@overload
def evaluate(
    model: str | Path,
    data: str | Dataset | TensorSet,
    *,
    metric: Metric | Callable[..., Any] | str,
    **options: Any,
) -> Score: ...


def evaluate(
    model: str | Path,
    data: str | Dataset | TensorSet,
    *,
    split: str = "test",
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    output: str | None = None,
    metric: Metric | Callable[..., Any] | str | None = None,
    lower_is_better: bool = False,
    batch: int | None = None,
    **session: Any,
) -> Evaluation | Score:
    """Return how well an ONNX file does on a data set.

    Args:
        model: the file, or a bundle.
        data: the data set, as in ``cifar10:DIR``; or raw tensors, as in ``tensors:FILE.npz``.
        split: which images of it.
        limit: how many, spread evenly over the split; None for all.
        preprocessing: how images become input; None takes what the bundle says.
        output: name of the output to judge, where there are several.
        metric: None counts images whose class is right, and gives an evaluation; else a score of
            this metric: ``"miou"``, ``"rmse"``, ``"package.module:function"``, or a function of
            all predictions and targets that returns a number, or one a sample.
        lower_is_better: of one's own metric, whether a smaller number is the better one.
        batch: images at a time.
        session: options of the session: ``provider``, ``threads``.

    Raises:
        TrpexportError: the network or the data can't be read, or do not fit each other.
    """
    from trpexport.datasets import TensorSet
    from trpexport.judge.classify import evaluate as run
    from trpexport.judge.examples import find_judge, open_classifiers
    from trpexport.judge.images import choose_images

    dataset = _opened(data, limit)
    judge = find_judge(dataset.name, metric, lower_is_better=lower_is_better)
    how: dict[str, Any] = {"preprocessing": preprocessing, "output": output, **session}
    if judge is not None:
        how |= {"split": split, "limit": limit}
        return _scores([Path(model)], dataset, judge, batch=batch, **how).models[0]
    images = choose_images(dataset, split, limit)
    assert not isinstance(dataset, TensorSet)
    classifiers = open_classifiers([Path(model)], dataset, **how)
    return run(classifiers, images, batch=batch).classifiers[0]


def gate(
    baseline: str | Path,
    candidate: str | Path,
    *,
    data: Images | None = None,
    split: str = "test",
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    output: str | None = None,
    metric: Metric | Callable[..., Any] | str | None = None,
    lower_is_better: bool = False,
    confident: bool = False,
    settings: Mapping[str, Any] | None = None,
    announce: Announce | None = None,
    **limits: float,
) -> GateResult:
    """Hold a network against its baseline: is it as good, as small, as fast as was asked for?

    Args:
        baseline: an ONNX file or a bundle.
        candidate: another one.
        data: images to judge by, as :func:`trpexport.decompose` takes them; limits on outputs
            need no labels.
        split: which images of it.
        limit: how many; None for all.
        preprocessing: how images become input; None takes what the bundles say.
        output: name of the output to judge, where there are several.
        metric: what ``max_drop`` is of, as for :func:`evaluate`: in points of shares, else in its
            own unit.
        lower_is_better: of one's own metric, whether a smaller number is the better one.
        confident: whole confidence intervals must be inside of the limits.
        settings: those of :class:`~trpexport.BenchSettings`, for rules on latency.
        announce: called with a line on each step.
        limits: the rules, as in ``max_drop=1.0, min_macs_ratio=2.0``.

    Raises:
        TrpexportError: a rule is unknown or needs what is missing, or a network can't be read.
    """
    from trpexport.judge.examples import find_judge
    from trpexport.judge.gate.check import run_gate
    from trpexport.judge.gate.config import needs_labels, parsed_limits
    from trpexport.judge.gate.evidence import gathered
    from trpexport.measure.settings import BenchSettings, find_models

    dataset = None if data is None else _opened(data, limit)
    typed = {name.replace("_", "-"): value for name, value in limits.items()}
    judge = None
    if dataset is not None and (metric is not None or needs_labels(typed)):
        judge = find_judge(dataset.name, metric, lower_is_better=lower_is_better)
    rules = parsed_limits(typed, confident, metric=judge)
    files = find_models([Path(baseline), Path(candidate)])
    bench_settings = BenchSettings(files, **{"memory": False, **_bench_settings(settings or {})})
    found: dict[str, Any] = {}
    if dataset is not None:
        paths = [Path(file.path) for file in files]
        how: dict[str, Any] = {"preprocessing": preprocessing, "output": output}
        how |= {"split": split, "limit": limit, "batch": bench_settings.batch}
        found = gathered(paths, dataset, rules, **how)
    return run_gate(rules, bench_settings, announce=announce, **found)


def _bench_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a bench as it takes them.

    Raises:
        TrpexportError: one is unknown, or the numbers of threads are none.
    """
    from trpexport.errors import TrpexportError
    from trpexport.measure.settings import BenchSettings

    known = [one.name for one in fields(BenchSettings) if one.name != "models"]
    if unknown := given.keys() - {*known}:
        raise TrpexportError(f"a bench has no setting {min(unknown)!r}: it has {', '.join(known)}")
    threads = given.get("threads", (1,))
    numbers = (threads,) if isinstance(threads, int) else threads
    if not isinstance(numbers, Sequence) or not all(type(one) is int for one in numbers):
        raise TrpexportError(
            f"threads can't be {threads!r}: give a number, or several as in (1, 2)",
            parameters=("threads",),
        )
    return {**given, "threads": tuple(numbers)}


def _opened(data: Any, limit: int | None = None) -> Dataset | TensorSet:
    from trpexport.datasets.given import data_from

    return data_from(data, limit=limit)


def _scores(
    paths: Sequence[Path],
    data: Dataset | TensorSet,
    metric: Metric,
    *,
    batch: int | None,
    **how: Any,
) -> Scores:
    from trpexport.judge.examples import opened
    from trpexport.judge.scoring import score

    return score(*opened(paths, data, **how), metric, batch=batch)
