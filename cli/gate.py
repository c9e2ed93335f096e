"""``trpexport gate``: hold a candidate against its baseline, rule by rule. Without torch."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trpexport.errors import TrpexportError

from . import measuring as m
from . import options as opt
from .commands import COMMANDS
from .console import bar, complain, progress, show, show_json
from .eval import (
    Data,
    DataPreprocessing,
    LowerIsBetter,
    Mean,
    OfMetric,
    Resize,
    Size,
    Split,
    Std,
    open_data,
    preprocessing,
)
from .idle import Idle, is_typed, refuse_idle, refuse_typed
from .interrupts import tell_written
from .limits import MIN_AGREEMENT
from .report import ReportTo, write_report
from .settings import chosen_file, option_names

if TYPE_CHECKING:
    from trpexport.datasets import Dataset, TensorSet
    from trpexport.datasets.preprocessing import Preprocessing
    from trpexport.judge.gate.check import Checked, GateResult
    from trpexport.judge.gate.config import Limits
    from trpexport.measure.bench import BenchSettings

_IMAGES = (
    *("split", "images", "mean", "std", "size", "resize", "data_preprocessing", "output"),
    *("metric", "metric_lower_is_better"),
)
_Bound = str | None  # limits are read by their rules, which say what is wrong with one


def gate(
    context: typer.Context,
    candidate: Annotated[Path, typer.Option(help="Network to judge: an ONNX file or a bundle.")],
    baseline: Annotated[
        Path | None,
        typer.Option(
            help="Original to compare with. Default: the baseline in the candidate's bundle."
        ),
    ] = None,
    data: Data = None,
    split: Split = "test",
    images: opt.Images = None,
    max_drop: Annotated[
        _Bound,
        typer.Option(help=opt.MAX_DROP),
    ] = None,
    max_top5_drop: Annotated[_Bound, typer.Option(help="Largest drop of top-5, in points.")] = None,
    min_agreement: Annotated[_Bound, typer.Option(help=MIN_AGREEMENT)] = None,
    max_output_error: Annotated[
        _Bound, typer.Option(help="Largest RMS difference of the outputs, as a share of their RMS.")
    ] = None,
    min_macs_ratio: Annotated[
        _Bound, typer.Option(help="Smallest ratio of MACs, original to candidate.")
    ] = None,
    max_parameters: Annotated[_Bound, typer.Option(help="Most parameters, as in 100k.")] = None,
    max_file_size: Annotated[_Bound, typer.Option(help="Largest file, as in 1.2MB.")] = None,
    min_speedup: Annotated[_Bound, typer.Option(help=opt.MIN_SPEEDUP)] = None,
    max_latency: opt.MaxLatency = None,
    min_efficiency: Annotated[
        _Bound,
        typer.Option(help="Smallest efficiency: measured speed-up divided by the ratio of MACs."),
    ] = None,
    confident: Annotated[
        bool | None,
        typer.Option(
            "--confident/--estimate",
            help="Whether whole confidence intervals must be within the limits.",
        ),
    ] = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    output: opt.Output = None,
    metric: OfMetric = None,
    metric_lower_is_better: LowerIsBetter = False,
    provider: m.Provider = "cpu",
    provider_option: m.ProviderOption = None,
    threads: m.Threads = "1",
    batch: m.Batch = None,
    input_shape: opt.InputShape = None,
    min_time: m.MinTime = 2.0,
    max_time: m.MaxTime = 30.0,
    junit: Annotated[
        Path | None, typer.Option(help="Write the result to this file as JUnit XML.")
    ] = None,
    save: m.Save = None,
    history: Annotated[Path | None, typer.Option(help="Append the result to this file.")] = None,
    compare_to: Annotated[
        Path | None,
        typer.Option(help="Fail if worse than the last result that passed in this history."),
    ] = None,
    report: ReportTo = None,
    as_json: opt.Json = False,
) -> None:
    """Exit with 0 if a candidate is within all limits, with 1 if not, with 2 on misuse.

    Limits and metric are given as options, or in the section [gate] of trpexport.toml
    ([tool.trpexport.gate] of pyproject.toml); options win. The drop is paired, image by image; too
    few images to tell a limit from twice that limit are a failure. Latency is measured during the
    gate, both networks in turns. Each network is measured at its own input size; where the sizes
    differ, images prepared by --mean and --std are cropped to each.

    Example:
        trpexport gate --candidate out --data cifar10:DIR --max-drop 1
    """
    from trpexport.files import write_atomically, write_json
    from trpexport.judge.gate.check import run_gate
    from trpexport.judge.gate.ci import junit_xml
    from trpexport.judge.gate.config import read_limits, with_usual_metric
    from trpexport.judge.gate.history import append_entry, compare, history_entry, last_accepted
    from trpexport.judge.gate.rules import RULES
    from trpexport.measure.bench import BenchSettings, find_models
    from trpexport.report.views.gate import gate_view
    from trpexport.runtime.providers import parse_provider_options

    tell_written(history, save, junit, report)
    parameters = {name: name.replace("-", "_") for name in RULES}
    typed = {
        name: context.params[parameter]
        for name, parameter in parameters.items()
        if is_typed(context, parameter)
    }
    refuse_idle(context, Idle(_IMAGES, without="data"))
    limits = read_limits(
        typed,
        confident=confident if is_typed(context, "confident") else None,
        config=chosen_file(context),
        data=data or "the data",
        metric=metric if is_typed(context, "metric") else None,
        lower_is_better=is_typed(context, "metric_lower_is_better"),
        others=option_names(context),
        beside=COMMANDS,
    )
    _refuse_idle(context, limits)
    accepted = None if compare_to is None else last_accepted(compare_to)
    models = find_models([candidate] if baseline is None else [baseline, candidate])
    if len(models) != 2:
        raise TrpexportError(f"{candidate} has no baseline of its own: name one with --baseline")
    settings = BenchSettings(
        models,
        provider=provider,
        provider_options=parse_provider_options(provider_option or ()),
        threads=(m.number_of_threads(threads),),
        batch=batch,
        shapes=opt.parse_named_shapes(input_shape),
        min_time=min_time,
        max_time=max_time,
        memory=False,
    )
    found: dict[str, Any] = {}
    if data is not None:
        dataset = open_data(data)
        limits = with_usual_metric(limits, dataset)
        how = preprocessing(dataset, mean, std, size, resize, data_preprocessing)
        drawn = {"split": split, "limit": images}
        found = _judged(settings, dataset, limits, drawn, preprocessing=how, output=output)
    with progress() as stages:
        result = run_gate(limits, settings, announce=stages.say, **found)
    regressions = () if accepted is None else compare(result, accepted)
    entry = history_entry(result, regressions)
    if as_json:
        show_json(entry)
    else:
        show(*gate_view(result, regressions))
    if history is not None:
        append_entry(history, entry)
    if save is not None:
        write_json(save, entry)
    if junit is not None:
        write_atomically(junit, junit_xml(result, regressions))
    _report(report, candidate, entry)
    _tell_github(result, regressions)
    if not entry["accepted"]:
        raise typer.Exit(1)


def _report(place: Path | None, candidate: Path, entry: Mapping[str, Any]) -> None:
    """Write a page about a result, and about the candidate where that is a bundle."""
    from trpexport.bundle import is_bundle, split_name
    from trpexport.report.documents import Record

    if place is None:
        return
    named = split_name(candidate)
    bundles = [named[0]] if named is not None and is_bundle(named[0]) else []
    write_report(place, Record(Path("gate"), "gate", entry), *bundles)


def _refuse_idle(context: typer.Context, limits: Limits) -> None:
    """Refuse options on what no limit asks to be measured."""
    costs, latency = (limits.of(need) for need in ("costs", "latency"))
    images = [*limits.of("data"), *limits.of("outputs")]
    if not images:
        refuse_typed(context, ("data",), "where no limit is on accuracy or outputs")
    if not latency:
        refuse_typed(context, ("threads", "min_time", "max_time"), "where no limit is on latency")
    if not (costs or latency):
        refuse_typed(context, ("input_shape",), "where no limit is on costs or latency")
    if not (images or latency):
        running = ("provider", "provider_option", "batch")
        refuse_typed(context, running, "where no limit makes the networks run")


def _tell_github(result: GateResult, regressions: Sequence[Checked]) -> None:
    """Annotate the run and append to its summary, inside of a GitHub job."""
    from trpexport.files import append_text
    from trpexport.judge.gate.ci import github_annotations
    from trpexport.report.render.markdown import markdown
    from trpexport.report.views.gate import gate_view

    if not os.environ.get("GITHUB_ACTIONS"):
        return
    for line in github_annotations((*result.rules, *regressions)):
        complain(line)  # standard output may be JSON; GitHub reads both
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        *found, outcome = gate_view(result, regressions)
        append_text(Path(summary), markdown([outcome, *found]))


def _judged(
    settings: BenchSettings,
    dataset: Dataset | TensorSet,
    limits: Limits,
    drawn: dict[str, Any],
    *,
    preprocessing: Preprocessing | None,
    output: str | None,
) -> dict[str, Any]:
    """Run both networks on the same samples; return what :func:`run_gate` takes of that."""
    from trpexport.judge.gate.evidence import gathered

    paths = [Path(model.path) for model in settings.models]
    how: dict[str, Any] = {
        "output": output,
        "provider": settings.provider,
        "provider_options": settings.provider_options,
        "allow_spinning": False,
    }
    return gathered(
        paths,
        dataset,
        limits,
        batch=settings.batch,
        watching=lambda total: bar(total, "evaluate"),
        preprocessing=preprocessing,
        **drawn,
        **how,
    )
