"""``trpexport profile``: where the time of a network goes, layer by layer."""

from __future__ import annotations

from pathlib import Path

from . import measuring as m
from . import options as opt
from .console import progress, show, show_json


def profile(
    models: m.Models,
    provider: m.Provider = "cpu",
    provider_option: m.ProviderOption = None,
    threads: m.Threads = "1",
    batch: m.Batch = None,
    input_shape: opt.InputShape = None,
    min_runs: m.MinRuns = 50,
    graph_optimization: m.GraphOptimization = None,
    allow_spinning: m.AllowSpinning = None,
    seed: opt.Seed = 0,
    as_json: opt.Json = False,
) -> None:
    """Show the time of every layer; for a decomposed one, of its factors and of the original.

    A bundle made with --add-baseline is compared with its baseline, layer by layer. Needs no torch.

    Example:
        trpexport profile out --threads 4
    """
    from trpexport.measure.bench import BenchSettings, find_models
    from trpexport.measure.profile.bench_profile import profile_bench
    from trpexport.report.views.profile import profile_view
    from trpexport.runtime.providers import parse_provider_options

    settings = BenchSettings(
        models=find_models(models),
        provider=provider,
        provider_options=parse_provider_options(provider_option or ()),
        threads=(m.number_of_threads(threads),),
        batch=batch,
        shapes=opt.parse_named_shapes(input_shape),
        min_runs=min_runs,
        graph_optimization=graph_optimization,
        allow_spinning=allow_spinning,
        seed=seed,
    )
    with progress() as stages:
        stages.say("profile " + ", ".join(model.label for model in settings.models))
        result = profile_bench(settings, [Path(model) for model in models])
    if as_json:
        show_json(result.to_json())
    else:
        show(*profile_view(result))
