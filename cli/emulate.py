"""``trpexport emulate``: networks on an emulated ARM processor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import completion
from . import measuring as m
from . import options as opt
from .console import progress, show, show_json
from .eval import PREPARING, DataPreprocessing, Mean, Resize, Size, Std, prepared_inputs
from .idle import Idle, refuse_idle


def emulate(
    context: typer.Context,
    models: m.Models,
    cpu: Annotated[
        str,
        typer.Option(
            help="Processor: cortex-a53, cortex-a72, cortex-a76, ... A wrong name lists all.",
            autocompletion=completion.arm_cpus,
        ),
    ] = "cortex-a72",
    batch: m.Batch = None,
    input_shape: opt.InputShape = None,
    inputs: opt.Inputs = None,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    data_preprocessing: DataPreprocessing = False,
    seed: opt.Seed = 0,
    as_json: opt.Json = False,
) -> None:
    """Verify networks on an emulated ARM processor and count their instructions; no latency.

    Needs what trpexport arm-setup prepares, and no torch.

    Example:
        trpexport emulate out --cpu cortex-a76
    """
    from trpexport.device.emulate.arm_cpus import CPUS
    from trpexport.device.emulate.emulation import run_emulated
    from trpexport.judge.real_inputs import with_inputs
    from trpexport.measure.bench import BenchSettings, find_models
    from trpexport.measure.inputs import bench_inputs
    from trpexport.onnxfile.counting import count_onnx
    from trpexport.report.views.emulation import emulation_view
    from trpexport.runtime.session import open_session

    _ = CPUS[cpu]  # an unknown one is told before any work
    settings = BenchSettings(
        models=find_models(models),
        batch=batch,
        shapes=opt.parse_named_shapes(input_shape),
        seed=seed,
    )
    refuse_idle(context, Idle(PREPARING, without="inputs"))
    how = (mean, std, size, resize, data_preprocessing)
    prepared = None if inputs is None else prepared_inputs(inputs, how)
    paths = [Path(model.path) for model in settings.models]
    with progress() as stages, with_inputs(settings, inputs, prepared) as settings:
        drawn = bench_inputs([open_session(path, threads=1) for path in paths], settings)
        emulated = run_emulated(cpu, paths, drawn, announce=stages.say)
    costs = [
        count_onnx(path, shapes={name: array.shape for name, array in own.items()})
        for path, own in zip(paths, drawn, strict=True)
    ]
    if as_json:
        facts: dict[str, Any] = emulated.to_json()
        for entry, cost in zip(facts["models"], costs, strict=True):
            entry["macs"] = cost.macs
        show_json(facts)
    else:
        labels = [model.label for model in settings.models]
        show(*emulation_view(emulated, labels, costs))
