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
    from trpexport.judge.scoring import Score

Announce = Callable[[str], None]


def bench(
    models: Sequence[str | Path],
    *,
    inputs: Any = None,
    preprocessing: Preprocessing | None = None,
    provider: str = "cpu",
    provider_options: Mapping[str, str] | None = None,
    threads: int | Sequence[int] = (1,),
    batch: int | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    min_time: float = 1.0,
    min_runs: int = 30,
    max_time: float = 30.0,
    warmup_seconds: float = 10.0,
    graph_optimization: str | None = None,
    allow_spinning: bool | None = None,
    io_binding: bool = True,
    data: str | Path | None = None,
    seed: int = 0,
    memory: bool = True,
    keep_samples: bool = False,
    announce: Announce | None = None,
) -> dict[str, Any]:
    """Measure how fast ONNX files run, in turns, and return the record.

    Args:
        models: ONNX files or bundles; the first one is the baseline of all ratios, or the one that
            a single bundle brings.
        inputs: real inputs: what :func:`trpexport.decompose` takes as images; drawn where None.
        preprocessing: how images become input; as the first bundle says where it is None.
        provider: who runs them, as in ``"cpu"`` or ``"cuda"``.
        provider_options: the provider's options.
        threads: numbers of threads to measure with, one after the other; or one number.
        batch: images at a time; None takes what the file says, 1 where it leaves it open.
        shapes: whole input shapes by name, for other dynamic dimensions.
        min_time: least number of seconds that each model is timed for.
        min_runs: least number of timed runs of each model.
        max_time: largest number of seconds that each model is timed for on a busy machine.
        warmup_seconds: longest time to wait until a model's run time is steady.
        graph_optimization: ONNX Runtime's; None for what a bundle recommends, else ``"all"``.
        allow_spinning: whether waiting threads keep their cores busy; None for ONNX Runtime's way.
        io_binding: keep inputs and outputs on the provider's device, where it has one.
        data: a ``.npy`` or ``.npz`` file with real inputs, in the place of ``inputs``.
        seed: of the inputs that are drawn, of the order of the models, and of the bootstrap.
        memory: measure peak memory too, in processes of its own.
        keep_samples: keep every timed run in the record.
        announce: called with a line on each step.

    Raises:
        TrpexportError: a file can't be run, or a setting can't be used.
    """
    from trpexport.judge.real_inputs import with_inputs
    from trpexport.measure.bench import bench as run
    from trpexport.measure.settings import BenchSettings, find_models

    how = BenchSettings(
        find_models([Path(model) for model in models]),
        provider=provider,
        provider_options=provider_options or {},
        threads=_numbers(threads),
        batch=batch,
        shapes=shapes or {},
        min_time=min_time,
        min_runs=min_runs,
        max_time=max_time,
        warmup_seconds=warmup_seconds,
        graph_optimization=graph_optimization,
        allow_spinning=allow_spinning,
        io_binding=io_binding,
        data=None if data is None else str(data),
        seed=seed,
        memory=memory,
        keep_samples=keep_samples,
    )
    with with_inputs(how, inputs, preprocessing) as prepared:
        return run(prepared, announce=announce)


@overload
def evaluate(
    model: str | Path,
    data: str | Dataset,
    *,
    split: str = ...,
    limit: int | None = ...,
    preprocessing: Preprocessing | None = ...,
    output: str | None = ...,
    metric: None = None,
    lower_is_better: bool = ...,
    batch: int | None = ...,
    provider: str = ...,
    threads: int | None = ...,
    ray: str | None = ...,
) -> Evaluation: ...


@overload
def evaluate(
    model: str | Path,
    data: Images,
    *,
    split: str = ...,
    limit: int | None = ...,
    preprocessing: Preprocessing | None = ...,
    output: str | None = ...,
    metric: Metric | Callable[..., Any] | str,
    lower_is_better: bool = ...,
    batch: int | None = ...,
    provider: str = ...,
    threads: int | None = ...,
    ray: str | None = ...,
) -> Score: ...


@overload
def evaluate(
    model: str | Path,
    data: Images,
    *,
    split: str = ...,
    limit: int | None = ...,
    preprocessing: Preprocessing | None = ...,
    output: str | None = ...,
    metric: None = None,
    lower_is_better: bool = ...,
    batch: int | None = ...,
    provider: str = ...,
    threads: int | None = ...,
    ray: str | None = ...,
) -> Evaluation | Score: ...


def evaluate(
    model: str | Path,
    data: Images,
    *,
    split: str = "test",
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    output: str | None = None,
    metric: Metric | Callable[..., Any] | str | None = None,
    lower_is_better: bool = False,
    batch: int | None = None,
    provider: str = "cpu",
    threads: int | None = None,
    ray: str | None = None,
) -> Evaluation | Score:
    """Return how well an ONNX file does on a data set.

    Args:
        model: the file, or a bundle.
        data: labelled samples, as :func:`trpexport.decompose` takes them: a data set, as in
            ``cifar10:DIR``, raw tensors, as in ``tensors:FILE.npz``, a loader of (tensor, label).
        split: which images of it.
        limit: how many, spread evenly over the split; None for all.
        preprocessing: how images become input; None takes what the bundle says.
        output: name of the output to judge, where there are several.
        metric: None counts images whose class is right, and gives an evaluation, of raw tensors
            with classes a score; else a score of this metric: ``"miou"``, ``"rmse"``,
            ``"package.module:function"``, or a function of all predictions and targets that
            returns a number, or one a sample.
        lower_is_better: of one's own metric, whether a smaller number is the better one.
        batch: images at a time.
        provider: who runs it, as in ``"cpu"`` or ``"cuda"``.
        threads: threads that one operator is spread over; None leaves it to ONNX Runtime.
        ray: address of a Ray cluster whose machines run it; ``"auto"`` for the one that runs here;
            None for this machine alone.

    Raises:
        TrpexportError: the network or the data can't be read, or do not fit each other.
    """
    from trpexport.datasets import TensorSet
    from trpexport.judge.classify import evaluate as run
    from trpexport.judge.examples import find_judge, open_classifiers, opened, usual_metric
    from trpexport.judge.images import choose_images
    from trpexport.judge.scoring import score
    from trpexport.judge.spread import spread

    dataset = _opened(data, limit)
    chosen = usual_metric(dataset, metric)
    judge = find_judge(dataset.name, chosen, lower_is_better=lower_is_better)
    how: dict[str, Any] = {"preprocessing": preprocessing, "output": output}
    session: dict[str, Any] = {"provider": provider, "threads": threads}
    if judge is not None:
        how |= {"split": split, "limit": limit}
        judged, examples = opened([Path(model)], dataset, **how, **session)
        with spread(judged, ray, batch, **session) as those:
            return score(those.models, examples, judge, batch=those.batch).models[0]
    images = choose_images(dataset, split, limit)
    assert not isinstance(dataset, TensorSet)
    classifiers = open_classifiers([Path(model)], dataset, **how, **session)
    with spread(classifiers, ray, batch, **session) as those:
        return run(those.models, images, batch=those.batch).classifiers[0]


def gate(
    baseline: str | Path,
    candidate: str | Path,
    *,
    data: Images | None = None,
    max_drop: float | None = None,
    max_top5_drop: float | None = None,
    min_agreement: float | None = None,
    max_output_error: float | None = None,
    min_macs_ratio: float | None = None,
    max_parameters: float | str | None = None,
    max_file_size: float | str | None = None,
    min_speedup: float | None = None,
    max_latency: float | None = None,
    min_efficiency: float | None = None,
    split: str = "test",
    limit: int | None = None,
    preprocessing: Preprocessing | None = None,
    output: str | None = None,
    metric: Metric | Callable[..., Any] | str | None = None,
    lower_is_better: bool = False,
    confident: bool = False,
    settings: Mapping[str, Any] | None = None,
    announce: Announce | None = None,
) -> GateResult:
    """Hold a network against its baseline: is it as good, as small, as fast as was asked for?

    Args:
        baseline: an ONNX file or a bundle.
        candidate: another one.
        data: images to judge by, as :func:`trpexport.decompose` takes them; limits on outputs
            need no labels.
        max_drop: points of top-1 accuracy, or of ``metric``, that may be lost.
        max_top5_drop: points of top-5 accuracy that may be lost.
        min_agreement: percent of the samples that both must give the same class.
        max_output_error: error of the worst output over its RMS.
        min_macs_ratio: how many times fewer MACs.
        max_parameters: number of parameters, as in 1e6 or "1M".
        max_file_size: bytes of the file, as in "10MB".
        min_speedup: how many times faster.
        max_latency: milliseconds of a run.
        min_efficiency: speed-up over MACs saved.
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

    Raises:
        TrpexportError: there is no limit, or one needs what is missing, or a network can't be read.
    """
    from trpexport.judge.examples import find_judge, usual_metric
    from trpexport.judge.gate.check import run_gate
    from trpexport.judge.gate.config import needs_labels, parsed_limits
    from trpexport.judge.gate.evidence import gathered
    from trpexport.measure.settings import BenchSettings, find_models

    dataset = None if data is None else _opened(data, limit)
    limits = {
        "max-drop": max_drop,
        "max-top5-drop": max_top5_drop,
        "min-agreement": min_agreement,
        "max-output-error": max_output_error,
        "min-macs-ratio": min_macs_ratio,
        "max-parameters": max_parameters,
        "max-file-size": max_file_size,
        "min-speedup": min_speedup,
        "max-latency": max_latency,
        "min-efficiency": min_efficiency,
    }
    typed: dict[str, Any] = {name: one for name, one in limits.items() if one is not None}
    judge = None
    if dataset is not None and (metric is not None or needs_labels(typed)):
        chosen = usual_metric(dataset, metric)
        judge = find_judge(dataset.name, chosen, lower_is_better=lower_is_better)
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
    return {**given, "threads": _numbers(given.get("threads", (1,)))}


def _numbers(threads: Any) -> tuple[int, ...]:
    """Return numbers of threads, of which one may be given by itself.

    Raises:
        TrpexportError: they are none.
    """
    from trpexport.errors import TrpexportError

    numbers = (threads,) if isinstance(threads, int) else threads
    if not isinstance(numbers, Sequence) or not all(type(one) is int for one in numbers):
        raise TrpexportError(
            f"threads can't be {threads!r}: give a number, or several as in (1, 2)",
            parameters=("threads",),
        )
    return tuple(numbers)


def _opened(data: Any, limit: int | None = None) -> Dataset | TensorSet:
    from trpexport.datasets.given import data_from

    return data_from(data, limit=limit)
