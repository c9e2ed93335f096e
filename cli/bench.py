"""``trpexport bench``: latency that can be believed, here, on a device, or emulated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from trpexport.errors import TrpexportError

from .console import claim, progress, show, show_json, show_text
from .options import Idle, Json, NamedShapes, at_most_one, parse_named_shapes, refuse_idle

if TYPE_CHECKING:
    from trpexport.measure.bench import BenchSettings


_METHOD = ("min_time", "max_time", "warmup_seconds")
_SESSION = ("provider", "provider_option", "threads", "graph_optimization", "allow_spinning")
_IDLE = (
    Idle((*_METHOD, "data", "no_memory", "as_csv"), beside="profile"),
    Idle((*_METHOD, *_SESSION, "min_runs", "no_memory", "as_csv"), beside="emulate"),
    Idle(
        (*_METHOD, *_SESSION, "min_runs", "batch", "shape", "data", "seed", "no_memory", "as_csv"),
        beside="compare",
    ),
    Idle(("python",), without="host"),
    Idle(("allow_other_machine",), without="compare"),
)


def bench(
    context: typer.Context,
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="ONNX files or bundles; the first is the base."),
    ],
    provider: Annotated[
        str, typer.Option(help="cpu, arm, cuda, ...; a wrong name lists all.")
    ] = "cpu",
    provider_option: Annotated[
        list[str] | None, typer.Option(help="An option of the provider, key=value. Repeatable.")
    ] = None,
    threads: Annotated[
        str, typer.Option(help="Threads of one operator; several to sweep, as in 1,2,4.")
    ] = "1",
    batch: Annotated[
        int | None, typer.Option(help="Images at a time, where the file leaves that open.")
    ] = None,
    shape: NamedShapes = None,
    min_time: Annotated[
        float, typer.Option(help="Seconds to time each model for, at least.")
    ] = 2.0,
    min_runs: Annotated[int, typer.Option(help="Runs of each model to time, at least.")] = 50,
    max_time: Annotated[
        float, typer.Option(help="Seconds at most, where a busy machine blurs the speed-ups.")
    ] = 30.0,
    warmup_seconds: Annotated[
        float, typer.Option(help="Longest time to wait until run times are steady.")
    ] = 10.0,
    graph_optimization: Annotated[
        str | None,
        typer.Option(
            help="ONNX Runtime's: disable, basic, extended or all; else as the bundle recommends, "
            "or all."
        ),
    ] = None,
    allow_spinning: Annotated[
        bool | None,
        typer.Option(
            "--allow-spinning/--no-spinning", help="Whether waiting threads keep cores busy."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A .npy or .npz file of real inputs; else they are drawn.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of drawn inputs and the order of turns.")] = 0,
    no_memory: Annotated[
        bool, typer.Option("--no-memory", help="Do not measure peak memory.")
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show the time of every layer instead.")
    ] = False,
    host: Annotated[
        str | None, typer.Option(help="Measure on user@device, over your own ssh.")
    ] = None,
    python: Annotated[str, typer.Option(help="The Python to run on --host.")] = "python3",
    emulate: Annotated[
        str | None,
        typer.Option(help="Verify and count instructions on an emulated ARM CPU, no latency."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare two records, old.json and new.json.")
    ] = False,
    allow_other_machine: Annotated[
        bool, typer.Option("--allow-other-machine", help="With --compare: of two machines.")
    ] = False,
    as_json: Json = False,
    as_csv: Annotated[
        bool, typer.Option("--csv", callback=claim, help="Print the record as CSV.")
    ] = False,
) -> None:
    """Measure ONNX files or bundles against the first of them, in turns, in one process.

    Prints latency beside MACs, and the measured speed-up with its 95 % interval: where that holds
    1, there is no measurable difference. A bundle made with --baseline is compared with its
    baseline. A provider that does not really run is an error. Needs no torch.
    """
    from trpexport.measure.bench import BenchSettings, find_models
    from trpexport.runtime.providers import parse_provider_options

    at_most_one(context, "profile", "host", "emulate", "compare")
    at_most_one(context, "as_json", "as_csv")
    refuse_idle(context, *_IDLE)
    if compare:
        _compare(models, allow_other_machine, as_json)
        return
    settings = BenchSettings(
        models=find_models(models),
        provider=provider,
        provider_options=parse_provider_options(provider_option or ()),
        threads=_numbers(threads),
        batch=batch,
        shapes=parse_named_shapes(shape),
        min_time=min_time,
        min_runs=min_runs,
        max_time=max_time,
        warmup_seconds=warmup_seconds,
        graph_optimization=graph_optimization,
        allow_spinning=allow_spinning,
        data=None if data is None else str(data),
        seed=seed,
        memory=not no_memory,
    )
    if profile and len(settings.threads) > 1:
        raise TrpexportError(f"--profile takes one number of threads, not --threads {threads}")
    if profile:
        _profile(settings, models, as_json)
    elif emulate:
        _emulate(settings, emulate, as_json)
    else:
        _measure(settings, host, python, as_json, as_csv)


def _measure(
    settings: BenchSettings, host: str | None, python: str, as_json: bool, as_csv: bool
) -> None:
    from trpexport.measure.bench import bench as measure
    from trpexport.measure.records import attach_costs, to_csv
    from trpexport.measure.slowness import explained
    from trpexport.report.views.bench import bench_view

    with progress() as stages:
        if host is None:
            record = explained(measure(settings, announce=stages.say), settings)
        else:
            from trpexport.device.remote import run_on_host

            record = run_on_host(host, settings, python=python, announce=stages.say)
        record = attach_costs(record, settings.models)
    if as_json:
        show_json(record)
    elif as_csv:
        show_text(to_csv(record))
    else:
        show(*bench_view(record))


def _profile(settings: BenchSettings, models: list[str], as_json: bool) -> None:
    from trpexport.measure.profile.bench_profile import profile_bench
    from trpexport.report.views.profile import profile_view

    with progress() as stages:
        stages.say("profile " + ", ".join(model.label for model in settings.models))
        result = profile_bench(settings, [Path(model) for model in models])
    if as_json:
        show_json(result.to_json())
    else:
        show(*profile_view(result))


def _emulate(settings: BenchSettings, cpu: str, as_json: bool) -> None:
    from trpexport.device.emulate.arm_cpus import CPUS
    from trpexport.device.emulate.emulation import run_emulated
    from trpexport.measure.inputs import bench_inputs
    from trpexport.onnxfile.counting import count_onnx
    from trpexport.report.views.emulation import emulation_view
    from trpexport.runtime.session import open_session

    _ = CPUS[cpu]  # an unknown one is told before any work
    paths = [Path(model.path) for model in settings.models]
    with progress() as stages:
        inputs = bench_inputs([open_session(path, threads=1) for path in paths], settings)
        emulated = run_emulated(cpu, paths, inputs, announce=stages.say)
    costs = [
        count_onnx(path, shapes={name: array.shape for name, array in own.items()})
        for path, own in zip(paths, inputs, strict=True)
    ]
    if as_json:
        facts: dict[str, Any] = emulated.to_json()
        for entry, cost in zip(facts["models"], costs, strict=True):
            entry["macs"] = cost.macs
        show_json(facts)
    else:
        labels = [model.label for model in settings.models]
        show(*emulation_view(emulated, labels, costs))


def _compare(records: list[str], allow_other_machine: bool, as_json: bool) -> None:
    from trpexport.measure.records import compare_records, read_record
    from trpexport.report.views.bench import changes_view

    if len(records) != 2:
        raise TrpexportError("--compare takes two records: bench --compare old.json new.json")
    old, new = (read_record(Path(record)) for record in records)
    changes = compare_records(old, new, allow_other_machine=allow_other_machine)
    if as_json:
        show_json([change.to_json() for change in changes])
    else:
        show(*changes_view(changes))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise TrpexportError(f"--threads {text!r} must look like 1 or 1,2,4") from None
