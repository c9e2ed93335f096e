"""``trpexport bench``: latency that can be believed, here or on a device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Annotated

import typer

from . import measuring as m
from . import options as opt
from .console import claim, progress, show, show_json, show_text
from .drawing import Plot, draw
from .eval import PREPARING, DataPreprocessing, Mean, Preparing, Resize, Size, Std, prepared_inputs
from .idle import Idle, at_most_one, refuse_idle
from .interrupts import tell_written

if TYPE_CHECKING:
    from trpexport.measure.settings import BenchSettings

_IDLE = (Idle(("python",), without="host"), Idle(PREPARING, without="inputs"))


def bench(
    context: typer.Context,
    models: m.Models,
    provider: m.Provider = "cpu",
    provider_option: m.ProviderOption = None,
    threads: m.Threads = "1",
    batch: m.Batch = None,
    input_shape: opt.InputShape = None,
    min_time: m.MinTime = 2.0,
    min_runs: m.MinRuns = 50,
    max_time: m.MaxTime = 30.0,
    warmup_seconds: Annotated[
        float, typer.Option(help="Longest warm-up until timings are steady, in seconds.")
    ] = 10.0,
    graph_optimization: m.GraphOptimization = None,
    allow_spinning: m.AllowSpinning = None,
    inputs: opt.Inputs = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    seed: opt.Seed = 0,
    no_memory: Annotated[
        bool, typer.Option("--no-memory", help="Do not measure peak memory.")
    ] = False,
    host: m.Host = None,
    python: m.Python = "python3",
    save: m.Save = None,
    plot: Plot = None,
    as_json: opt.Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", callback=claim, help="Print the record as CSV.")
    ] = False,
) -> None:
    """Measure the latency of ONNX files or bundles, and the speed-up over the first of them.

    Runs all of them in turns, in one process. Prints latency beside MACs, and the speed-up with its
    95 % interval; if that includes 1, there is no measurable difference. A bundle made with
    --add-baseline is compared with its own baseline. An execution provider that is listed but does
    not run is an error. Needs no torch.

    Example:
        trpexport bench out --provider cpu --threads 1,4
    """
    from trpexport.files import write_json
    from trpexport.measure.bench import bench as measure
    from trpexport.measure.bench import find_models
    from trpexport.measure.records import attach_costs, to_csv
    from trpexport.measure.settings import BenchSettings
    from trpexport.measure.slowness import explained
    from trpexport.runtime.providers import parse_provider_options

    at_most_one(context, "as_json", "as_csv")
    refuse_idle(context, *_IDLE)
    tell_written(save, plot)
    settings = BenchSettings(
        models=find_models(models),
        provider=provider,
        provider_options=parse_provider_options(provider_option or ()),
        threads=m.numbers_of_threads(threads),
        batch=batch,
        shapes=opt.parse_named_shapes(input_shape),
        min_time=min_time,
        min_runs=min_runs,
        max_time=max_time,
        warmup_seconds=warmup_seconds,
        graph_optimization=graph_optimization,
        allow_spinning=allow_spinning,
        seed=seed,
        memory=not no_memory,
    )
    how = (mean, std, size, resize, data_preprocessing)
    with progress() as stages, _with_inputs(settings, inputs, how) as settings:
        if host is None:
            record = explained(measure(settings, announce=stages.say), settings)
        else:
            from trpexport.device.remote import run_on_host

            record = run_on_host(host, settings, python=python, announce=stages.say)
        record = attach_costs(record, settings.models)
        record["settings"]["data"] = inputs
    if save is not None:
        write_json(save, record)
    if plot is not None:
        from trpexport.report.views.plots import latency_lanes, speedup_lanes

        draw(plot, [*speedup_lanes(record), *latency_lanes(record)])
    if as_json:
        show_json(record)
    elif as_csv:
        show_text(to_csv(record))
    else:
        from trpexport.report.views.bench import bench_view

        show(*bench_view(record))


def _with_inputs(
    settings: BenchSettings, inputs: str | None, how: Preparing
) -> AbstractContextManager[BenchSettings]:
    """Return settings that measure on real inputs; who gives none does not load what reads them."""
    if inputs is None:
        return nullcontext(settings)
    from trpexport.judge.real_inputs import with_inputs

    return with_inputs(settings, inputs, prepared_inputs(inputs, how))
