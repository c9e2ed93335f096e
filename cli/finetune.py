"""``trpexport finetune``: train a decomposed network further, its factors staying factors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import measuring
from . import options as opt
from .eval import Mean, Resize, Size, Std
from .idle import Idle, refuse_idle
from .interrupts import is_asked, tell
from .pixels import normalisation
from .train import (
    Bf16,
    Compile,
    CudaGraphs,
    Data,
    Decoders,
    Epochs,
    LearningRate,
    NoAugment,
    Recipe,
    Restart,
    RunOut,
    SaveSeconds,
    SyncBn,
    TensorBoard,
    WeightDecay,
    finish,
    run_settings,
    standing,
    watching,
)


def finetune(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="A bundle of decompose, or a checkpoint.")
    ],
    data: Data,
    out: RunOut = Path("finetuned"),
    teacher: Annotated[
        Path | None,
        typer.Option(help="Network to learn from as well (distillation), such as the original."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Temperature of the distillation.")] = 4.0,
    teacher_weight: Annotated[
        float, typer.Option(help="Weight of the distillation in the loss, from 0 to 1.")
    ] = 0.5,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Your own loss, a function of the network's outputs and the labels, as "
            "package.module:function. Without labels, the outputs of --teacher are learnt."
        ),
    ] = None,
    recipe: Recipe = "finetune",
    model: opt.Model = None,
    unsafe_pickle: opt.UnsafePickle = False,
    epochs: Epochs = None,
    batch: measuring.Batch = None,
    lr: LearningRate = None,
    weight_decay: WeightDecay = None,
    seed: opt.Seed = 0,
    mean: Mean = None,
    std: Std = None,
    size: Size = None,
    resize: Resize = None,
    workers: Decoders = None,
    no_augment: NoAugment = False,
    device: opt.Device = "auto",
    bf16: Bf16 = False,
    compile_network: Compile = False,
    cuda_graphs: CudaGraphs = False,
    sync_bn: SyncBn = False,
    save_seconds: SaveSeconds = 60.0,
    tensorboard: TensorBoard = False,
    restart: Restart = False,
    as_json: opt.Json = False,
) -> None:
    """Train a decomposed network further; its factors stay factors.

    Writes last.safetensors and best.safetensors, which export reads, and metrics.jsonl. Needs
    images with classes, or a --loss of your own; without labels, the outputs of --teacher are
    learnt. The same command resumes a run that was stopped.

    Example:
        trpexport finetune out --data cifar10:DIR --teacher network.pth
    """
    refuse_idle(context, Idle(("temperature", "teacher_weight"), without="teacher"))
    from trpexport.training.finetune import finetune as run
    from trpexport.training.settings import Compute

    settings = run_settings(
        data, recipe, epochs, batch, lr, weight_decay, seed, no_augment, size, resize,
        Compute(
            device, bf16, compile_network, sync_bn, save_seconds, workers, cuda_graphs
        ),
    )  # fmt: skip
    tell(lambda: standing(context, out))
    facts = run(
        source,
        settings,
        out,
        teacher=teacher,
        temperature=temperature,
        teacher_weight=teacher_weight,
        loss=loss,
        model=model,
        unsafe_pickle=unsafe_pickle,
        preprocessing=normalisation(mean, std),
        watcher=watching(out, tensorboard),
        restart=restart,
        should_stop=is_asked,
    )
    finish(context, facts, out, "export", as_json)
